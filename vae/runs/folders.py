"""Run folders: a new one, the newest one, their checkpoints, and the right to write into one.

A run lives in `lightning_logs/version_N/` (or `NAME/`): `config.yaml`, event files, `checkpoints/best.ckpt` (the
highest val/elbo) and `checkpoints/last.ckpt` (the last whole epoch).
"""

import errno
import os
import shlex
import shutil
import warnings
from contextlib import suppress
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout
from pytorch_lightning.utilities import rank_zero_only

ROOT = Path("lightning_logs")
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)  # what file systems without locks answer


class RunError(Exception):
    """A run that cannot be made, found or read; the message says what was expected and what to do."""


class Interrupted(BaseException):
    """A signal stopped the process; the message of a training has the command that resumes it.

    Like KeyboardInterrupt it is no Exception: what reads files or downloads and turns every failure into its own error
    lets it pass.

    Args:
        signum: the signal.
    """

    def __init__(self, message: str, signum: int):
        super().__init__(message)
        self.signum = signum


class OtherCheckpoint(UserWarning):
    """A run has no best.ckpt; another of its checkpoints is used."""


def new_run(name: str | None = None) -> Path:
    """A new folder for a run, this process's own even where several start at once.

    Raises:
        RunError: a run of that name exists, or it is no name.
        OSError: the folder cannot be made.
    """
    candidates = (ROOT / f"version_{n}" for n in count()) if name is None else [run_folder(name)]
    for candidate in candidates:
        ROOT.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            candidate.mkdir()
            return candidate
    resume = f", or resume it: python3 train.py --run_name {shlex.quote(str(name))} --ckpt_path last"
    can_resume = last_checkpoint(candidate).exists()
    raise RunError(f"{candidate} exists already.\nChoose another --run_name{resume if can_resume else ''}")


def discard_run(run: Path) -> None:
    """Remove a new run that took no training step, and its name is free again."""
    shutil.rmtree(run, ignore_errors=True)
    with suppress(OSError):  # where there are other runs
        ROOT.rmdir()


def lock_run(run: Path) -> FileLock:
    """Take the right to write into a run, which one process has at a time, until `release`.

    It is a lock of the operating system, on the file `.lock` in the run's folder. It ends with the process, however
    that ends; a file that is left behind locks nothing.

    Raises:
        RunError: another process has it.
    """
    lock = FileLock(run / ".lock", fallback_to_soft=False)  # a soft lock would outlive a killed process
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise RunError(
            f"Another process is training {run}, and only one at a time can write into a run.\n"
            "Wait until it has ended, or begin a new run, without --ckpt_path."
        ) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    for part in run.glob("checkpoints/.*.part"):  # of a process that was killed while it wrote
        part.unlink()
    return lock


def run_folder(name: str) -> Path:
    """The folder of the run of that name.

    Raises:
        RunError: it is no name of a folder.
    """
    is_folder_name = name.isprintable() and name == name.strip() and not {"/", "\\"} & {*name}
    if name in ("", ".", "..", "last") or name.startswith("-") or not is_folder_name or len(os.fsencode(name)) > 255:
        shown = repr(name if len(name) < 80 else f"{name[:80]}...")
        raise RunError(
            f"A run's name is that of a folder in {ROOT}, not a path; got {shown}.\n"
            "Expected at most 255 bytes of printable characters, which do not begin with -, and not last."
        )
    return ROOT / name


def run_of(ckpt_path: Path) -> Path:
    """The folder of the run that a checkpoint belongs to; of one that was copied elsewhere, the folder it is in."""
    return ckpt_path.parents[1] if is_in_run(ckpt_path) else ckpt_path.parent


def is_in_run(ckpt_path: Path) -> bool:
    """Whether a checkpoint is in the folder of a run; otherwise it was copied elsewhere."""
    return ckpt_path.parent.name == "checkpoints"


def best_checkpoint(run: Path) -> Path:
    """The checkpoint of the epoch with the highest val/elbo."""
    return run / "checkpoints" / "best.ckpt"


def last_checkpoint(run: Path) -> Path:
    """The checkpoint of the last whole epoch."""
    return run / "checkpoints" / "last.ckpt"


def checkpoints_of(place: Path, pattern: str = "*.ckpt") -> list[Path]:
    """The checkpoints of a run, or directly in a folder: best.ckpt, last.ckpt, then others, the newest first.

    A file is its own checkpoint, whatever its name.
    """
    if place.is_file():
        return [place]
    folder = place / "checkpoints" if (place / "checkpoints").is_dir() else place
    order = {"best.ckpt": 0, "last.ckpt": 1}
    found = filter(Path.is_file, folder.glob(pattern))
    return sorted(found, key=lambda path: (order.get(path.name, 2), -path.stat().st_mtime))


def places(name: str) -> tuple[Path, Path]:
    """Where a run or a checkpoint of that name may be, the likelier first.

    A bare name is that of a run before it is that of a folder at hand, which is ./NAME too.
    """
    path, run = Path(name), ROOT / name
    return (run, path) if name == path.name else (path, run)


def find_checkpoint(ckpt_path: str | None = None, run_name: str | None = None, resume: bool = False) -> Path:
    """The checkpoint that the options `--ckpt_path` and `--run_name` name.

    Args:
        ckpt_path: a checkpoint, a run's folder, or a run's name: of `places` the first with a checkpoint; `last`: the
            last.ckpt of the run of that name, or of the newest one; None: the checkpoint of that run.
        run_name: a run's name.
        resume: whether a run's checkpoint is its last.ckpt. Otherwise it is its best.ckpt, or if there is none another
            one, which a warning names.

    Raises:
        RunError: there is none, or the two options name different runs.
    """
    pattern = "last.ckpt" if resume or ckpt_path == "last" else "*.ckpt"
    if ckpt_path is None or ckpt_path == "last":
        runs = ROOT.glob("*/") if run_name is None else [run_folder(run_name)]
        written = {run: max((path.stat().st_mtime for path in checkpoints_of(run, pattern)), default=0) for run in runs}
        candidates, where = sorted(written, key=written.__getitem__, reverse=True), f"in {ROOT / (run_name or '')}"
    else:
        candidates, where = [*places(ckpt_path)] if ckpt_path else [], repr(ckpt_path)
    path = next((path for place in candidates for path in checkpoints_of(place, pattern)), None)
    if path is None:
        what = "last.ckpt" if pattern == "last.ckpt" and any(map(Path.exists, candidates)) else "checkpoint"
        raise RunError(
            f"There is no {what} {where}: name one that exists, a run's folder, a run's name, or last.\n"
            "Train a model first: python3 train.py"
        )
    if run_name is not None and is_in_run(path) and run_of(path).name != run_name:
        raise RunError(f"{path} is not of the run {run_name}: leave out --run_name or --ckpt_path.")
    if path.name not in ("best.ckpt", pattern) and path not in candidates:
        warnings.warn(f"{run_of(path)} has no best.ckpt; {path.name} is used.", OtherCheckpoint, stacklevel=2)
    return path


@rank_zero_only
def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, and see it on the disk: also after a power cut it is the old one or the new.

    Its folder is made where it is missing, but not the one around it: a run's folder that vanished stays so.

    Raises:
        OSError: it cannot be written, with the file's name, which a full disk leaves out.
    """
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):  # a read-only file system refuses it also where there is none
            part.unlink()
