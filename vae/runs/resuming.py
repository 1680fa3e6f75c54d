"""Resuming an interrupted run: from which checkpoint, and what must not have changed."""

from collections.abc import Mapping
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from vae.lit_vae import LitVAE
from vae.model import VAE
from vae.runs.checkpoints import as_untrusted, check_contents, read_checkpoint
from vae.runs.folders import RunError, best_checkpoint, find_checkpoint, last_checkpoint, resume_command, run_of
from vae.runs.settings import is_plain, read_settings
from vae.runs.training_state import check_training_state


def checkpoint_to_resume(
    ckpt_path: str, run_name: str | None, datasets: Mapping[str, type]
) -> tuple[Path, dict[str, Any]]:
    """The checkpoint to resume from, as `find_checkpoint`, and its contents.

    Args:
        datasets: the data modules by name.

    Raises:
        RunError: it is missing, damaged or not one of this project's, or its run's folder has no config.yaml.
    """
    path = find_checkpoint(ckpt_path, run_name, resume=True)
    checkpoint = read_checkpoint(path)
    with as_untrusted(path):
        check_contents(checkpoint, datasets)
    if not (run_of(path) / "config.yaml").is_file():
        raise RunError(
            f"{run_of(path) / 'config.yaml'} is missing: train.py resumes a run only in its own, whole folder."
        )
    return path, checkpoint


def how_to_resume(run: Path) -> str:
    """What to do when a run was stopped before its end."""
    if not run.exists():
        return f"The run's folder {run} has vanished, and its checkpoints with it: begin a new run."
    for path in (last_checkpoint(run), best_checkpoint(run)):
        if is_resumable(path):
            return f"Resume it: {resume_command(path, trusted=not is_plain(read_settings(run)))}"
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


def check_hyperparameters(
    checkpoint: Mapping[str, Any], model: Mapping[str, Any], data: Mapping[str, Any], data_class: type
) -> None:
    """See that a run is resumed with the hyper-parameters that it began with; only where the data is may have changed.

    A hyper-parameter that the run did not have yet takes its default.

    Args:
        checkpoint: the contents of a checkpoint of this project.
        model: the hyper-parameters of the model now.
        data: those of the data module now.
        data_class: its class.

    Raises:
        RunError: one of them differs.
    """
    begun = {
        "model": defaults(VAE) | defaults(LitVAE) | checkpoint["hyper_parameters"],
        "data": defaults(data_class) | checkpoint["datamodule_hyper_parameters"],
    }
    for group, now in (("data", data), ("model", model)):
        for name in (name for name in now if name != "data_dir"):
            if now[name] != begun[group].get(name):
                option = "--data" if name == "dataset" else f"--{group}.{name}"
                raise RunError(
                    f"{option} is {now[name]}, but the run began with {begun[group].get(name)}.\n"
                    "A run keeps its hyper-parameters; begin a new one, without --ckpt_path."
                )


def defaults(kind: type) -> dict[str, Any]:
    """The default values of the arguments of a class and of those that it inherits from."""
    inits = [vars(base)["__init__"] for base in reversed(kind.__mro__) if "__init__" in vars(base)]
    parameters = [parameter for init in inits for parameter in signature(init).parameters.values()]
    return {parameter.name: parameter.default for parameter in parameters if parameter.default is not Parameter.empty}


def check_resumable(
    checkpoint: Mapping[str, Any],
    ckpt_path: Path,
    lit: LitVAE,
    fresh: Mapping[str, Any],
    options: Mapping[str, Any],
) -> None:
    """See that training can continue from a checkpoint, before anything in its run's folder changes.

    Args:
        checkpoint: its contents.
        fresh: the `loops` and `callbacks` that the Trainer would write before training.
        options: the Trainer's options.

    Raises:
        RunError: its state of training is damaged or of the middle of an epoch, or an option of the Trainer does not
            fit it.
    """
    with as_untrusted(ckpt_path):
        check_training_state(checkpoint, lit, fresh)
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
