"""Resuming an interrupted run: from which checkpoint, with which settings, and what must not have changed."""

import os
import re
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from vae.lit_vae import LitVAE
from vae.runs.checkpoints import load_run, read_checkpoint
from vae.runs.folders import RunError, last_checkpoint, newest_run, run_of


def checkpoint_to_resume(ckpt_path: str, name: str | None) -> Path:
    """The checkpoint to go on from: that path, or for `last` the last.ckpt of the newest run or the one of that name.

    Raises:
        RunError: it is missing or damaged, or there is no config.yaml in its run's folder.
    """
    path = last_checkpoint(newest_run(name)) if ckpt_path == "last" else Path(ckpt_path)
    read_checkpoint(path)
    if not (run_of(path) / "config.yaml").is_file():
        raise RunError(f"{run_of(path) / 'config.yaml'} is missing: a run can go on only in its own, whole folder.")
    return path


def check_settings(ckpt_path: Path, datasets: Mapping[str, type]) -> None:
    """See that the config.yaml of a run names no code, before any of it is followed: it may be a stranger's.

    Args:
        datasets: the data modules by name.

    Raises:
        RunError: it names a class that is no data module, or is no such file.
    """
    path = run_of(ckpt_path) / "config.yaml"
    try:
        config = yaml.safe_load(path.read_text())
        data, known = config["data"], {f"{kind.__module__.partition('.')[0]}.{name}" for name, kind in datasets.items()}
        words = all(is_plain(value, r"[\w:-]*") for value in config["trainer"].values())  # "a.b" would be imported
        plain = all(is_plain(value, r".*") for part in (config["model"], data["init_args"]) for value in part.values())
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path} is not a file that this project's train.py wrote.") from error
    if not (plain and words and data["class_path"] in known):
        raise RunError(
            f"{path} names code that would be run, or more than plain values.\n"
            f"If it is yours, say so: python3 train.py --config {path} --ckpt_path {ckpt_path}"
        )


def is_plain(value: Any, text: str) -> bool:
    """Whether a setting is a number, truth, nothing, text of that form, or several of these."""
    some = value if isinstance(value, list) else [value]
    return all(
        re.fullmatch(text, one) is not None if isinstance(one, str) else one is None or isinstance(one, int | float)
        for one in some
    )


def how_to_resume(run: Path) -> str:
    """What to do when a run came to a stop before its end."""
    if not run.exists():
        return f"The run's folder {run} has vanished, and with it what there was to go on with: begin a new run."
    if not last_checkpoint(run).exists():
        return "That was before its first checkpoint: there is nothing to go on with."
    return f"Go on with it: python3 train.py --ckpt_path {last_checkpoint(run)}"


def check_hyperparameters(ckpt_path: Path, lit: LitVAE, data: Any, datasets: Mapping[str, type]) -> None:
    """See that a run goes on with the hyper-parameters it began with; only where the data is may have changed.

    Raises:
        RunError: one of them differs, or the file is damaged or not one of this project's.
    """
    load_run(ckpt_path, datasets)
    checkpoint = read_checkpoint(ckpt_path)
    begun = {"model": checkpoint["hyper_parameters"], "data": checkpoint["datamodule_hyper_parameters"]}
    for group, now in (("model", lit.hparams), ("data", data.hparams)):
        for name in (name for name in now if name != "data_dir"):
            if name not in begun[group] or now[name] != begun[group][name]:
                raise RunError(
                    f"--{group}.{name} is {now[name]}, but the run began with {begun[group].get(name)}.\n"
                    "A run goes on as it began; begin a new one, without --ckpt_path."
                )
    sizes = checkpoint.get("log", {})
    log_fits = isinstance(sizes, dict) and all(isinstance(size, int) and size >= 0 for size in sizes.values())
    if not (log_fits and optimizer_state_matches(checkpoint.get("optimizer_states"), lit)):
        raise RunError(f"{ckpt_path} is not a checkpoint that this project's train.py wrote.")


def optimizer_state_matches(states: Any, lit: LitVAE) -> bool:
    """Whether an optimiser's state is of its kind and of the model's sizes: the fused kernels would not ask."""
    if "fused" not in signature(lit.optimizer).parameters:
        return True  # it may keep rows and columns, or a history
    one = torch.zeros(1, requires_grad=True)
    one.grad = torch.zeros(1)
    (optimizer := lit.optimizer([one])).step()
    names, shapes = optimizer.state[one].keys(), [parameter.shape for parameter in lit.parameters()]
    try:
        return all(
            state.keys() == names
            and all(
                value.shape == shapes[place] and value.is_contiguous()
                for value in state.values()
                if isinstance(value, Tensor) and value.ndim
            )
            for place, state in states[0]["state"].items()
        )
    except (AttributeError, IndexError, KeyError, TypeError, RuntimeError):
        return False


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
