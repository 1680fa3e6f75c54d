"""Resuming an interrupted run: from which checkpoint, with which settings, and what must fit them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vae.runs.checkpoints import as_untrusted, check_settings, read_checkpoint, settings_of
from vae.runs.folders import RunError, best_checkpoint, find_checkpoint, last_checkpoint, resume_command, run_of

MAY_NAME_CODE = ("callbacks", "logger", "plugins", "profiler")  # options of the Trainer
WORD = re.compile(r"[\w:,-]*")  # a text that imports nothing: what is imported has a dot
FROM_DATA = ("image_shape", "palette", "num_classes")  # options of the model that the data gives


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
    """The settings of a run, as `settings_of` reads them again.

    Args:
        checkpoint: what the Trainer saves.
        trainer: its options.
        init_from: the option of that name.
    """
    options, left_out = split_options(trainer)
    return settings_of(checkpoint) | {"trainer": options, "left_out": left_out, "init_from": init_from}


def split_options(trainer: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The options of the Trainer that a checkpoint holds, and the names of those that it does not: they may name code.

    A file of a run is untrusted; what is imported is said on the command line alone.
    """
    plain = {name: value for name, value in trainer.items() if name not in MAY_NAME_CODE and names_no_code(value)}
    return plain, [name for name, value in trainer.items() if name not in plain and value is not None]


def names_no_code(value: Any) -> bool:
    """Whether a value of an option is a number, a truth value, None, a word, a list of these, or numbers by name."""
    if isinstance(value, Mapping):  # max_time
        return all(isinstance(part, int) for part in value.values())
    if isinstance(value, list):
        return all(isinstance(part, str | int) and names_no_code(part) for part in value)
    return value is None or (bool(WORD.fullmatch(value)) if isinstance(value, str) else isinstance(value, int | float))


def how_to_resume(run: Path) -> str:
    """What to do when a run was stopped before its end."""
    if not run.exists():
        return f"The run's folder {run} has vanished, and its checkpoints with it: begin a new run."
    for path in (last_checkpoint(run), best_checkpoint(run)):
        if is_resumable(path):
            return f"Resume it: {resume_command(path)}"
    return "There is no checkpoint to resume from: no whole epoch was saved."


def is_resumable(ckpt_path: Path) -> bool:
    """Whether it is a checkpoint of a whole epoch."""
    try:
        checkpoint = read_checkpoint(ckpt_path)
        with as_untrusted(ckpt_path):
            return is_whole_epoch(checkpoint)
    except RunError:
        return False


def is_whole_epoch(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a checkpoint was written at the end of an epoch that had all its steps."""
    epoch = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
    return bool(checkpoint.get("whole_epoch", epoch["processed"] == epoch["ready"]))  # older ones do not say so


def check_whole_epoch(checkpoint: Mapping[str, Any], ckpt_path: Path, options: Mapping[str, Any]) -> None:
    """See that training can continue from the end of a checkpoint's epoch.

    Args:
        checkpoint: its contents.
        options: the Trainer's options.

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
