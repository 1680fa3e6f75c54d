"""Run folders: a new one, the newest one, and where in them the checkpoints are.

A run lives in `lightning_logs/version_N/` (or `NAME/`): `config.yaml`, event files, `checkpoints/best.ckpt` (the
highest val/elbo) and `checkpoints/last.ckpt` (the last whole epoch).
"""

import os
from itertools import count
from pathlib import Path

from pytorch_lightning.utilities import rank_zero_only

ROOT = Path("lightning_logs")


class RunError(Exception):
    """A run that cannot be made, found or read; the message says what was expected and what to do."""


class Interrupted(RunError):
    """A signal stopped the run; the message says how to go on.

    Args:
        signum: the signal.
    """

    def __init__(self, message: str, signum: int):
        super().__init__(message)
        self.signum = signum


def new_run(name: str | None = None) -> Path:
    """A new folder for a run, this process's own even where several start at once.

    Raises:
        RunError: a run of that name exists, or it is no name.
        OSError: the folder cannot be made.
    """
    ROOT.mkdir(parents=True, exist_ok=True)
    for candidate in [run_folder(name)] if name else (ROOT / f"version_{n}" for n in count()):
        try:
            candidate.mkdir()
            return candidate
        except FileExistsError:
            continue
    raise RunError(
        f"{ROOT / name} exists already.\n"
        f"Choose another --run_name, or go on with it: python3 train.py --run_name {name} --ckpt_path last"
    )


def newest_run(name: str | None = None) -> Path:
    """The run whose checkpoint is the newest, or the one of that name.

    Raises:
        RunError: there is none with a checkpoint.
    """
    runs = [run_folder(name)] if name else [*ROOT.iterdir()] if ROOT.exists() else []
    found = [path for run in runs for path in (best_checkpoint(run), last_checkpoint(run)) if path.is_file()]
    if not found:
        raise RunError(
            f"There is no checkpoint in {ROOT / (name or '')}.\n"
            "Train a model first, python3 train.py, or name a checkpoint, --ckpt_path PATH"
        )
    return max(found, key=lambda path: path.stat().st_mtime).parents[1]


def run_folder(name: str) -> Path:
    """The folder of the run of that name.

    Raises:
        RunError: it is no name of a folder.
    """
    if Path(name).name != name:
        raise RunError(f"A run's name is that of a folder in {ROOT}, not a path; got {name}")
    return ROOT / name


def run_of(ckpt_path: Path) -> Path:
    """The folder of the run that a checkpoint belongs to; of one that was copied elsewhere, the folder it is in."""
    return ckpt_path.parents[1] if ckpt_path.parent.name == "checkpoints" else ckpt_path.parent


def best_checkpoint(run: Path) -> Path:
    """The checkpoint of the epoch with the highest val/elbo."""
    return run / "checkpoints" / "best.ckpt"


def last_checkpoint(run: Path) -> Path:
    """The checkpoint of the last epoch."""
    return run / "checkpoints" / "last.ckpt"


def find_checkpoint(ckpt_path: str | None = None, name: str | None = None) -> Path:
    """That checkpoint, or where none is named that of the newest run, or of the run of that name.

    It is the run's `best.ckpt`, or its `last.ckpt` if it had no validation.

    Raises:
        RunError: there is none.
    """
    if ckpt_path is not None:
        return Path(ckpt_path)
    run = newest_run(name)
    return best_checkpoint(run) if best_checkpoint(run).exists() else last_checkpoint(run)


@rank_zero_only
def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, and see it on the disk: also after a power cut it is the old one or the new.

    Its folder is made where it is missing, but not the one around it: a run's folder that vanished stays so.
    """
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
