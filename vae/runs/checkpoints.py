"""Untrusted checkpoints: read, checked, and turned into a model and its data; nothing in them is executed."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser

from vae.choices import UnknownName, choose
from vae.likelihoods import LIKELIHOODS
from vae.lit_vae import LitVAE
from vae.model import unused_options
from vae.networks import NETWORKS
from vae.objectives import OBJECTIVES
from vae.runs.folders import RunError

FROM_DATA = ("image_shape", "palette", "num_classes")  # options of the model that the data gives
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # what a terminal may take for a command
MAX_COUNT = 2**53  # of what a training counts


def read_checkpoint(ckpt_path: Path) -> dict[str, Any]:
    """The plain values and tensors in a checkpoint; nothing in it is executed.

    Raises:
        RunError: the file is missing or damaged.
    """
    try:
        checkpoint = torch.load(ckpt_path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RunError(
            f"There is no checkpoint {ckpt_path}: name one that exists, or train first, python3 train.py"
        ) from None
    except Exception as error:  # whatever the bytes of a file that is no checkpoint make of the reader
        raise RunError(f"{ckpt_path} cannot be read as a checkpoint: it is truncated, or something else.") from error
    with as_untrusted(ckpt_path):
        return dict(checkpoint)


@contextmanager
def as_untrusted(ckpt_path: Path) -> Iterator[None]:
    """Around the use of a checkpoint's contents: whatever those of an untrusted file lead to is one error.

    Raises:
        RunError: something went wrong; of a name that is not registered, which one.
    """
    try:
        yield
    except RunError:
        raise
    except UnknownName as error:
        advice = "If it is a part of your own, name the module that registers it: --import MODULE"
        raise RunError(f"{ckpt_path}: {error}.\n{advice}") from error
    except Exception as error:  # its text may be of the file, or of a part of the user's own that has changed
        reason = CONTROL.sub("?", f"{type(error).__name__}: {error}")[:200]
        raise RunError(f"{ckpt_path} is not a checkpoint that this project's train.py wrote ({reason}).") from error


def settings_of(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run, plain values: `model`, `data` (name and options), `trainer`, `left_out` and `init_from`.

    train.py writes them into each checkpoint. Of an older one, or one of a Trainer from Python, those of model and data
    are its hyper-parameters, and there are no others; it has no `data` if the Trainer had no data module of this
    project.
    """
    if "settings" in checkpoint:
        return dict(checkpoint["settings"])
    settings = {"model": checkpoint["hyper_parameters"], "trainer": {}}
    if "datamodule_hyper_parameters" in checkpoint:
        options = dict(checkpoint["datamodule_hyper_parameters"])
        name = options.pop("data_module", None) or options.pop("dataset")  # some have an option `dataset`
        settings["data"] = {"name": name, "options": options}
    return settings


def check_settings(checkpoint: Mapping[str, Any], datasets: Mapping[str, type]) -> tuple[dict[str, Any], dict, type]:
    """The options of model and data in an untrusted checkpoint, with their defaults, and the class of the data.

    Their types are those of the command line, and the weights are of the sizes that they say.

    Args:
        datasets: the data modules by name.

    Raises:
        Exception: of any type, if they are not.
    """
    settings = settings_of(checkpoint)
    if not is_plain([settings, checkpoint.get("versions")]):
        raise ValueError("settings that are no plain values, or have control characters in a text")
    kind = choose("data set", settings["data"]["name"], datasets)
    for part, table in (("network", NETWORKS), ("likelihood", LIKELIHOODS), ("objective", OBJECTIVES)):
        if part in settings["model"]:
            choose(part, settings["model"][part], table)
    model, data = parse_options(LitVAE, settings["model"]), parse_options(kind, settings["data"]["options"])
    for name in ("epoch", "global_step"):
        as_count(checkpoint.get(name, 0))
    with torch.device("meta"):  # where no size takes memory
        expected = {name: value.shape for name, value in LitVAE(**model).state_dict().items()}
    weights = checkpoint["state_dict"].items()
    if expected != {name: value.shape for name, value in weights if is_weight(name, value)}:
        raise ValueError("the weights are not of the sizes that the settings say")
    return model, data, kind


def parse_options(kind: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a class, with the types that they have on the command line, and its defaults.

    Raises:
        ArgumentError: one is of another type, or unknown.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, fail_untyped=False)
    return parser.parse_object(dict(options)).as_dict()


def as_count(value: Any) -> int:
    """A count of an untrusted file.

    Raises:
        ValueError: it is none.
    """
    if type(value) is not int or not 0 <= value < MAX_COUNT:
        raise ValueError("expected a count, a whole number")
    return value


def options_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run by the names of train.py's options, those that its network and likelihood take."""
    model, data = settings["model"], settings["data"]
    left_out = {*unused_options(model.get("network"), model.get("likelihood")), *FROM_DATA, "seed"}
    groups = {"data": data["options"], "model": model, "trainer": settings["trainer"]}
    named = {f"{group}.{name}": value for group, options in groups.items() for name, value in options.items()}
    kept = {name: value for name, value in named.items() if name.rpartition(".")[2] not in left_out}
    seeds = sorted({options["seed"] for options in (model, data["options"]) if options.get("seed") is not None})
    if seeds:
        kept["seed_everything"] = seeds[0] if len(seeds) == 1 else seeds  # from Python they may differ
    return {"data": data["name"], **kept, "init_from": settings.get("init_from") or ""}


def is_plain(value: Any) -> bool:
    """Whether a nested value is one of numbers, truth values, None, and texts that can be shown on a terminal."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and is_plain(key) and is_plain(part) for key, part in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or (not CONTROL.search(value) if isinstance(value, str) else isinstance(value, int | float))


def is_weight(name: str, value: torch.Tensor) -> bool:
    """Whether an entry of a checkpoint's state_dict is one that a model can take, under a name that can be shown."""
    is_dense = value.layout == torch.strided and value.is_contiguous() and not value.is_meta
    return is_dense and not value.is_complex() and not CONTROL.search(name)


def load_run(ckpt_path: Path, datasets: Mapping[str, type], data_dir: str | None = None) -> tuple[LitVAE, Any]:
    """The model and the data module that a checkpoint was trained with, rebuilt from it alone.

    Args:
        datasets: the data modules by name, among which that of the checkpoint is looked up.
        data_dir: where the data is now, if it is not where it was.

    Raises:
        RunError: the file is missing, damaged or not one of this project's.
    """
    checkpoint = read_checkpoint(ckpt_path)
    with as_untrusted(ckpt_path):
        if "data" not in settings_of(checkpoint):
            raise RunError(
                f"{ckpt_path} does not say which data its model is for: its Trainer had no data module of ours.\n"
                "If it is of a vae.LitVAE, its load_from_checkpoint reads it from Python."
            )
        model, options, kind = check_settings(checkpoint, datasets)
        lit = LitVAE(**model)
        lit.load_state_dict(checkpoint["state_dict"])
        data = kind(**options | ({"data_dir": data_dir} if data_dir else {}))
        if data.image_shape != lit.vae.image_shape:
            raise ValueError("model and data do not fit each other")
        data.exclude_trained(checkpoint.get(kind.__qualname__, {}))  # it then tests on no image that was trained on
    return lit.eval(), data


def init_weights(lit: LitVAE, data: Any, ckpt_path: Path) -> None:
    """Give a model the weights of a checkpoint, and its data module the record of what these were trained on.

    Raises:
        RunError: the file is missing or damaged, or its weights have other names, sizes or colours, which the
            message says.
    """
    checkpoint = read_checkpoint(ckpt_path)
    choose_options = "Choose the --seed_everything, --data and --model options of that run, which test.py --info lists."
    with as_untrusted(ckpt_path):
        weights, settings = checkpoint["state_dict"], settings_of(checkpoint)
        if not all(is_weight(*item) for item in weights.items()):
            raise ValueError("state_dict holds something else than weights")
        here, there = ({*map(tuple, part.get("palette") or ())} for part in (lit.hparams, settings["model"]))
        if here and there and here != there:
            raise RunError(f"--init_from {ckpt_path}: its images had other colours than these.\n{choose_options}")
        try:
            lit.load_state_dict(weights)
        except RuntimeError as error:
            raise RunError(f"--init_from {ckpt_path}: its weights do not fit.\n{error}\n{choose_options}") from error
        lit.starts_at_mean = False
        if settings.get("data", {}).get("name") == type(data).__name__:
            data.exclude_trained(checkpoint.get(type(data).__qualname__, {}))


def best_score(checkpoint: Mapping[str, Any]) -> float | None:
    """The highest val/elbo of a run up to a checkpoint, nats per image; None where there was no validation.

    Raises:
        Exception: of any type, if the checkpoint is of another form.
    """
    callbacks = checkpoint.get("callbacks", {})
    for state in (callbacks.get("best"), *callbacks.values()):  # of older versions it has another name
        if isinstance(state, Mapping) and state.get("monitor") == "val/elbo":
            return None if state["best_model_score"] is None else float(state["best_model_score"])
    return None


def describe(ckpt_path: Path, datasets: Mapping[str, type]) -> dict[str, str]:
    """What a checkpoint is, without its data: what it was trained on and how, its layers, its best, what made it.

    Options are written as train.py takes them. What the file does not hold is left out, as a ready-made model's split.

    Raises:
        RunError: as `load_run`.
    """
    checkpoint, (lit, data) = read_checkpoint(ckpt_path), load_run(ckpt_path, datasets)
    layers = [(name, layer) for name, layer in lit.vae.named_modules() if [*layer.parameters(recurse=False)]]
    counts = {name: sum(p.numel() for p in layer.parameters(recurse=False)) for name, layer in layers}
    with as_untrusted(ckpt_path):  # a file that was stripped to its weights lacks some of these
        found = {
            "checkpoint": str(ckpt_path),
            "data set": data.hparams["dataset"],
            "images": " x ".join(map(str, lit.vae.image_shape)),
            "measure": lit.vae.likelihood.log_prob_kind(data.binary),
            "epochs": "unknown" if "epoch" not in checkpoint else str(checkpoint["epoch"] + 1),
        }
        if not checkpoint.get("whole_epoch", True):
            found["epochs"] = f"{checkpoint['epoch']} and a part of the next, up to step {checkpoint['global_step']}"
        if sizes := checkpoint.get(type(data).__qualname__):
            found["split"] = ", ".join(f"{sizes[split]:,} {split}" for split in ("train", "val", "test"))
        if "callbacks" in checkpoint:
            best = best_score(checkpoint)
            found["best val/elbo"] = "none: no validation" if best is None else f"{best:.4f} nats per image"
        if palette := lit.hparams.get("palette"):
            found["palette"] = f"{len(palette)} colours"
        for name, value in options_of(settings_of(checkpoint) | {"trainer": {}}).items():
            if name != "init_from":
                found[f"--{name}"] = value if isinstance(value, str) else json.dumps(value)
        found |= {name: f"{counts[name]:,} parameters, {layer}" for name, layer in layers}
        found["in all"] = f"{sum(counts.values()):,} parameters"
        return found | {name: str(version) for name, version in checkpoint.get("versions", {}).items()}
