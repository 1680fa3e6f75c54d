"""Downloads: one error whatever goes wrong, and files compared with their published checksums."""

import gzip
import hashlib
import socket
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from datamodules.errors import DataError

DOWNLOAD_TIMEOUT = 60  # seconds without an answer
MAX_UNPACKED = 2**26  # bytes of a packed file; the largest, the training images of MNIST, has 47 million
REMEDY = "Delete it to have it downloaded again. The data set Digits needs no file."


@contextmanager
def fetching(what: str, source: str, files: Sequence[str], folder: Path) -> Iterator[None]:
    """Context of a download: every failure becomes one error, and a server that stops answering is one.

    Args:
        what: what is downloaded.
        source: where it comes from.
        files: the names of the missing files.
        folder: where they belong; it is created, and if the download fails removed again.

    Raises:
        DataError: the download failed.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # whatever the bytes that a server sends make of their readers
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"{what} could not be downloaded from {source} ({reason[-1]}).\n"
            f"Put {', '.join(files)} into {folder}. The data set Digits needs no file."
        ) from error
    finally:
        socket.setdefaulttimeout(before)
        with suppress(OSError):  # the innermost first; one with files in it stays
            for path in made:
                path.rmdir()


def read_content(path: Path) -> bytes:
    """The content of a file, unpacked if its name ends in .gz.

    Raises:
        DataError: the file is missing or cannot be unpacked.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing.\n{REMEDY}")
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        with gzip.open(path) as file:
            return file.read(MAX_UNPACKED)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} cannot be unpacked: {error}.\n{REMEDY}") from error


def verify(path: Path, sha256: str) -> None:
    """Compare the content of a file, as `read_content`, with the SHA-256 of the published one.

    Raises:
        DataError: the file is missing or differs.
    """
    if (found := hashlib.sha256(read_content(path)).hexdigest()) != sha256:
        raise DataError(
            f"{path} ({path.stat().st_size:,} bytes) is truncated or altered.\n"
            f"Expected SHA-256 {sha256},\nfound            {found}.\n{REMEDY}"
        )
