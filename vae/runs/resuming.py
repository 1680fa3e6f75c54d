"""Resuming an interrupted run: from which checkpoint, with which settings, and what must not have changed."""

import os
import re
import shlex
from collections.abc import Collection, Mapping
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from vae.lit_vae import LitVAE
from vae.model import VAE
from vae.runs.checkpoints import as_untrusted, check_contents, read_checkpoint
from vae.runs.folders import RunError, find_checkpoint, last_checkpoint, run_of

GROUPS = ("trainer", "model")  # of options in config.yaml; `data` is a class and its options
WORD = r"[\w:,-]*"  # names no code: what is imported has a dot
TEXT = r"[^\x00-\x1f\x7f-\x9f]*"


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


def read_settings(run: Path) -> dict[str, Any]:
    """The settings in a run's config.yaml: plain YAML, and the three groups of options are mappings.

    Raises:
        RunError: it is something else.
    """
    path = run / "config.yaml"
    try:
        config = yaml.safe_load(path.read_text())
        if all(isinstance(part, dict) for part in (config["data"]["init_args"], *(config[group] for group in GROUPS))):
            return config
    except (yaml.YAMLError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise RunError(f"{path} is not a file that this project's train.py wrote.")


def check_settings(
    settings: Mapping[str, Any], ckpt_path: Path, options: Mapping[str, Collection[str]], datasets: Mapping[str, type]
) -> dict[str, Any]:
    """The settings of a run, if they are harmless: the file is untrusted.

    Args:
        options: the names of the options of each group.
        datasets: the data modules by name.

    Raises:
        RunError: they name a class that is no data module, or options that train.py does not have.
    """
    path = run_of(ckpt_path) / "config.yaml"
    known = {f"{kind.__module__.partition('.')[0]}.{name}" for name, kind in datasets.items()}
    data = settings["data"]
    if not (is_plain(settings) and data.keys() == {"class_path", "init_args"} and data["class_path"] in known):
        raise RunError(
            f"{path} names code that would be run, or more than plain values.\n"
            f"If it is yours, say so: {resume_command(ckpt_path, trusted=True)}"
        )
    for group in GROUPS:
        if unknown := settings[group].keys() - options[group]:
            raise RunError(f"{path} has an option that train.py does not have: {group}.{unknown.pop()}")
    return {name: settings[name] for name in ("seed_everything", *GROUPS, "data") if name in settings}


def is_plain(settings: Mapping[str, Any]) -> bool:
    """Whether no key leads out of its group, and all values are plain ones that name no code."""
    keys = [*settings, *(key for part in (settings["data"], settings["data"]["init_args"]) for key in part)]
    keys += [key for group in GROUPS for key in settings[group]]
    top = {"seed_everything", "run_name", "ckpt_path", "data", *GROUPS}
    others = [value for name, value in settings.items() if name not in ("data", *GROUPS)]
    return (
        settings.keys() <= top
        and all(isinstance(key, str) and key.isidentifier() for key in keys)
        and all(is_plain_value(value, WORD) for value in settings["trainer"].values())
        and all(
            is_plain_value(value, TEXT)
            for values in (settings["model"].values(), settings["data"]["init_args"].values(), others)
            for value in values
        )
    )


def is_plain_value(value: Any, pattern: str) -> bool:
    """Whether a value is a number, a truth value, None, a text of that form, or a list of these."""
    return all(
        re.fullmatch(pattern, one) is not None if isinstance(one, str) else one is None or isinstance(one, int | float)
        for one in (value if isinstance(value, list) else [value])
    )


def resume_command(ckpt_path: Path, trusted: bool = False) -> str:
    """The command that resumes a run from a checkpoint.

    Args:
        trusted: whether its config.yaml is followed whatever it names, since the user says so.
    """
    config = ["--config", str(run_of(ckpt_path) / "config.yaml")] if trusted else []
    return shlex.join(["python3", "train.py", *config, "--ckpt_path", str(ckpt_path)])


def how_to_resume(run: Path) -> str:
    """What to do when a run was stopped before its end."""
    last = last_checkpoint(run)
    if not run.exists():
        return f"The run's folder {run} has vanished, and its checkpoints with it: begin a new run."
    if not last.exists():
        return "There is no checkpoint to resume from: no epoch was complete."
    return f"Resume it: {resume_command(last, trusted=not is_plain(read_settings(run)))}"


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
    begun: Mapping[str, Any],
    options: Mapping[str, Any],
) -> None:
    """See that training can continue from a checkpoint, before anything in its run's folder changes.

    Args:
        checkpoint: its contents.
        fresh: the `loops` and `callbacks` that the Trainer would write before training.
        begun: the Trainer's options in the run's config.yaml.
        options: the Trainer's options now.

    Raises:
        RunError: its state of training is damaged, or an option of the Trainer does not fit it.
    """
    with as_untrusted(ckpt_path):
        check_training_state(checkpoint, lit, fresh)
    epochs, max_epochs = checkpoint["epoch"] + 1, options["max_epochs"]
    if max_epochs is not None and -1 < max_epochs < epochs:
        raise RunError(f"--trainer.max_epochs is {max_epochs}, but {ckpt_path} holds {epochs} epochs already.")
    for option in ("max_epochs", "max_steps"):
        then, now = begun.get(option), options[option]
        if lit.hparams.lr_schedule == "cosine" and then != now:
            unit = option.removeprefix("max_")
            raise RunError(f"A cosine schedule ends with its run, here after {then} {unit}; it cannot change to {now}.")


def check_training_state(checkpoint: Mapping[str, Any], lit: LitVAE, fresh: Mapping[str, Any]) -> None:
    """See that what the Trainer restores is of the form that it writes itself.

    Raises:
        Exception: of any type, if it is not.
    """
    callbacks = {key: state for key, state in checkpoint["callbacks"].items() if fresh["callbacks"].get(key)}
    best = [state["best_model_score"] for state in callbacks.values() if "best_model_score" in state]
    fits = (
        {"epoch", "global_step"} <= checkpoint.keys()
        and re.fullmatch(r"\d+(\.\d+)*((rc|\.?dev|\.post)\d+)?", checkpoint["pytorch-lightning_version"])
        and has_form(checkpoint["loops"], fresh["loops"])
        and has_form(callbacks, {key: fresh["callbacks"][key] for key in callbacks})
        and all(score is None or (isinstance(score, Tensor) and score.ndim == 0) for score in best)
        and all(isinstance(size, int) and size >= 0 for size in checkpoint.get("log", {}).values())
        and optimizer_state_matches(checkpoint["optimizer_states"], checkpoint["lr_schedulers"], lit)
    )
    if not fits:
        raise ValueError("the state of training is not of the form that the Trainer writes")


def has_form(found: Any, expected: Any) -> bool:
    """Whether a nested value has the keys and the types of another; where that has None, any type will do."""
    if isinstance(expected, Mapping):
        return isinstance(found, Mapping) and all(
            key in found and has_form(found[key], value) for key, value in expected.items()
        )
    if isinstance(expected, int | float):
        return isinstance(found, int | float)
    return expected is None or isinstance(found, type(expected))


def optimizer_state_matches(states: Any, schedules: Any, lit: LitVAE) -> bool:
    """Whether the states of the optimiser and the schedule are of their kind and of the model's sizes.

    The fused kernels would not ask. The options of the optimiser are tried on a single number.

    Raises:
        Exception: of any type, if they are of another kind.
    """
    one = torch.zeros(1, requires_grad=True)
    one.grad = torch.zeros(1)
    (state,) = states
    (group,) = state["param_groups"]
    optimizer, shapes = lit.optimizer([one]), [parameter.shape for parameter in lit.parameters()]
    optimizer.load_state_dict({"state": {}, "param_groups": [group | {"params": [0]}]})
    optimizer.step()
    for schedule in schedules:
        expected = lit.lr_schedule(optimizer, T_max=1).state_dict()
        if not has_form(schedule, {name: expected[name] for name in schedule}):
            return False
    if group["params"] != [*range(len(shapes))] or not state["state"].keys() <= {*group["params"]}:
        return False
    if "fused" not in signature(lit.optimizer).parameters:
        return True  # it may keep rows and columns, or a history
    expected = {name: value.shape for name, value in optimizer.state[one].items()}
    return all(
        values.keys() == expected.keys()
        and all(
            isinstance(value, Tensor)
            and value.shape == (shapes[place] if expected[name] else ())
            and value.is_contiguous()
            and not value.is_meta
            for name, value in values.items()
        )
        for place, values in state["state"].items()
    )


def event_file_sizes(run: Path) -> dict[str, int]:
    """The bytes in each of a run's event files, which only ever grow."""
    return {path.name: path.stat().st_size for path in run.glob("events.out.tfevents.*")}


def truncate_event_files(run: Path, sizes: Mapping[str, int]) -> None:
    """Make a run's log what it was when it had these sizes."""
    found = event_file_sizes(run)
    if not sizes.keys() <= found.keys():
        return  # they are another log's
    for name, size in found.items():
        if name not in sizes:
            (run / name).unlink()
        elif size > sizes[name]:
            os.truncate(run / name, sizes[name])


def remove_later_frames(run: Path, epochs: int) -> None:
    """Remove the frames of a film that were drawn after so many epochs."""
    for path in (run / "frames").glob("*.png"):
        if path.stem.isdecimal() and int(path.stem) > epochs:
            path.unlink()
