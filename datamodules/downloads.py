"""Downloads: one error whatever goes wrong, and files compared with their published checksums."""

import hashlib
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from datamodules.errors import DataError

DOWNLOAD_TIMEOUT = 60  # seconds without an answer
REMEDY = "Delete it to have it downloaded again. The data set Digits needs no file."


@contextmanager
def fetching(what: str, source: str, files: Sequence[str], folder: Path) -> Iterator[None]:
    """Context of a download: every failure becomes one error, and a server that stops answering is one.

    Args:
        what: what is downloaded.
        source: where it comes from.
        files: the names of the missing files.
        folder: where they belong; it is created.

    Raises:
        DataError: the download failed.
    """
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


def verify(path: Path, sha256: str) -> None:
    """Compare a file with the SHA-256 of its published content.

    Raises:
        DataError: the file is missing or differs.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing.\n{REMEDY}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise DataError(
            f"{path} ({path.stat().st_size:,} bytes) is truncated or altered.\n"
            f"Expected SHA-256 {sha256},\nfound            {found}.\n{REMEDY}"
        )
