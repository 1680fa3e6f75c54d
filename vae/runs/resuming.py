"""Resuming an interrupted run: from which checkpoint, with which settings, and what must fit them."""

import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from vae.runs.checkpoints import FROM_DATA, as_untrusted, check_settings, is_plain, read_checkpoint, settings_of
from vae.runs.folders import RunError, best_checkpoint, find_checkpoint, last_checkpoint, run_of

MAY_NAME_CODE = ("callbacks", "logger", "plugins", "profiler")  # options of the Trainer
IMPORTED = re.compile(r"\.[^\W\d]|class_path")  # what is imported has a dot before a letter


class SettingsLeftOut(UserWarning):
    """A resume does without some of the run's options of the Trainer."""


def checkpoint_to_resume(
    ckpt_path: str, run_name: str | None, datasets: Mapping[str, type]
) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """The checkpoint to resume from, as `find_checkpoint`, its contents, and its settings as the command line has them.

    Those of the Trainer that name code are not among them: their names are in the checkpoint's `left_out`.

    Args:
        datasets: the data modules by name.

    Raises:
        RunError: it is missing, damaged or not one of this project's.
    """
    path = find_checkpoint(ckpt_path, run_name, resume=True)
    checkpoint = read_checkpoint(path)
    with as_untrusted(path):
        model, data, kind = check_settings(checkpoint, datasets)
        settings = checkpoint["settings"] = settings_of(checkpoint)
        settings["trainer"], refused = split_options(settings["trainer"])
        settings["left_out"] = [*settings.get("left_out", []), *refused]
        settings["model"] = dict(model)
        seeds = {model.pop("seed") or 0, data.pop("seed") or 0}
        if len(seeds) > 1:
            raise ValueError("model and data have different seeds")
        options = {
            "seed_everything": seeds.pop(),
            "model": {name: value for name, value in model.items() if name not in FROM_DATA},
            "data": {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": data},
            "trainer": settings["trainer"],
            "init_from": settings.get("init_from"),
        }
    return path, checkpoint, options


def settings_to_save(checkpoint: Mapping[str, Any], trainer: Mapping[str, Any], init_from: str | None) -> dict:
    """The settings of a run, as `settings_of` reads them again: of what the Trainer saves, and of its options."""
    options, left_out = split_options(trainer)
    return settings_of(checkpoint) | {"trainer": options, "left_out": left_out, "init_from": init_from}


def split_options(trainer: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The options of the Trainer that a checkpoint holds, and the names of those that it does not: they may name code.

    A file of a run is untrusted; what is imported is said on the command line alone.
    """
    kept = {
        name: value
        for name, value in trainer.items()
        if name not in MAY_NAME_CODE and is_plain(value) and not IMPORTED.search(str(value))
    }
    return kept, [name for name, value in trainer.items() if name not in kept and value is not None]


def how_to_resume(run: Path) -> str:
    """What to do when a run was stopped before its end."""
    if not run.exists():
        return f"The run's folder {run} has vanished, and its checkpoints with it: begin a new run."
    for path in (last_checkpoint(run), best_checkpoint(run)):
        with suppress(RunError), as_untrusted(path):
            if is_whole_epoch(read_checkpoint(path)):
                return f"Resume it: {shlex.join(['python3', 'train.py', '--ckpt_path', str(path)])}"
    return "There is no checkpoint to resume from: no whole epoch was saved."


def is_whole_epoch(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a checkpoint was written at the end of an epoch that had all its steps."""
    epoch = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
    return bool(checkpoint.get("whole_epoch", epoch["processed"] == epoch["ready"]))  # older ones do not say so


def check_whole_epoch(checkpoint: Mapping[str, Any], ckpt_path: Path, options: Mapping[str, Any]) -> None:
    """See that training can continue from the end of a checkpoint's epoch, under these options of the Trainer.

    Raises:
        RunError: it is of the middle of an epoch, or the Trainer is to end before it.
    """
    if not is_whole_epoch(checkpoint):
        raise RunError(
            f"{ckpt_path} was written within epoch {checkpoint['epoch'] + 1}, after step {checkpoint['global_step']}, "
            "and training resumes at the start of an epoch.\n"
            f"{how_to_resume(run_of(ckpt_path))}"
        )
    for unit, held in (("epochs", checkpoint["epoch"] + 1), ("steps", checkpoint["global_step"])):
        limit = options[f"max_{unit}"]
        if limit is not None and -1 < limit < held:
            raise RunError(f"--trainer.max_{unit} is {limit}, but {ckpt_path} holds {held} {unit} already.")
