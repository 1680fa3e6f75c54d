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

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # what a terminal may take for a command
SPLITS = ("train", "val", "test")
MAX_NAMED = 10  # weights that differ


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
    if any(type(checkpoint.get(name, 0)) is not int for name in ("epoch", "global_step")):
        raise ValueError("global_step or epoch is no whole number")
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
    return rebuild(read_checkpoint(ckpt_path), ckpt_path, datasets, data_dir)


def rebuild(
    checkpoint: Mapping[str, Any], ckpt_path: Path, datasets: Mapping[str, type], data_dir: str | None = None
) -> tuple[LitVAE, Any]:
    """The model and the data module of a checkpoint that was read; arguments and errors as `load_run`."""
    with as_untrusted(ckpt_path):
        has_data = "data" in settings_of(checkpoint)
    if not has_data:
        raise RunError(
            f"{ckpt_path} does not say which data its model is for: its Trainer had no data module of this project.\n"
            "If it is of a vae.LitVAE, its load_from_checkpoint reads it from Python."
        )
    with as_untrusted(ckpt_path):
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
    with as_untrusted(ckpt_path):
        weights = checkpoint["state_dict"]
        if not all(is_weight(*item) for item in weights.items()):
            raise ValueError("state_dict holds something else than weights")
        settings = settings_of(checkpoint)
        hparams = settings["model"], lit.hparams
        palettes = [{tuple(colour) for colour in part.get("palette") or ()} for part in hparams]
    if all(palettes) and palettes[0] != palettes[1]:
        raise RunError(
            f"--init_from {ckpt_path}: it was trained on images of other colours than these.\n"
            "Choose the --seed_everything and --data options of that run, which test.py --info lists."
        )
    there, here = ({name: list(value.shape) for name, value in part.items()} for part in (weights, lit.state_dict()))
    differ = [name for name in {**here, **there} if there.get(name) != here.get(name)]
    if differ:
        sizes = [
            f"{name}: {there.get(name, 'none')} there, {here.get(name, 'none')} here" for name in differ[:MAX_NAMED]
        ]
        sizes += [f"and {len(differ) - MAX_NAMED} more"] if len(differ) > MAX_NAMED else []
        raise RunError(
            f"--init_from {ckpt_path}: its weights do not fit this model.\n"
            + "\n".join(sizes)
            + "\nChoose the --model options of that run, which test.py --info lists."
        )
    lit.load_state_dict(weights)
    lit.starts_at_mean = False
    kind = type(data)
    with as_untrusted(ckpt_path):
        if settings.get("data", {}).get("name") == kind.__name__:
            data.exclude_trained(checkpoint.get(kind.__qualname__, {}))


def describe_epochs(checkpoint: Mapping[str, Any]) -> str:
    """After how many epochs a checkpoint was written, in words."""
    if "epoch" not in checkpoint:
        return "unknown"
    if not checkpoint.get("whole_epoch", True):
        return f"{checkpoint['epoch']} and a part of the next, up to step {checkpoint['global_step']}"
    return str(checkpoint["epoch"] + 1)


def best_score(checkpoint: Mapping[str, Any]) -> float | None:
    """The highest val/elbo of a run up to a checkpoint, nats per image; None where there was no validation.

    Raises:
        Exception: of any type, if the checkpoint is of another form.
    """
    callbacks = checkpoint.get("callbacks", {})
    states = [callbacks.get("best"), *callbacks.values()]  # of older versions it has another name
    states = [state for state in states if isinstance(state, Mapping) and state.get("monitor") == "val/elbo"]
    scores = [state["best_model_score"] for state in states]
    return float(scores[0]) if scores and scores[0] is not None else None


def read_best_score(ckpt_path: Path) -> float | None:
    """`best_score` of a file.

    Raises:
        RunError: the file is missing, damaged or not one of this project's.
    """
    checkpoint = read_checkpoint(ckpt_path)
    with as_untrusted(ckpt_path):
        return best_score(checkpoint)


def describe(ckpt_path: Path, datasets: Mapping[str, type]) -> dict[str, str]:
    """What a checkpoint is, without its data: what it was trained on and how, its layers, its best, what made it.

    Options are written as train.py takes them. What the file does not hold is left out, as a ready-made model's split.

    Raises:
        RunError: as `load_run`.
    """
    checkpoint = read_checkpoint(ckpt_path)
    lit, data = rebuild(checkpoint, ckpt_path, datasets)
    model, its_data = dict(lit.hparams), dict(data.hparams)
    palette, shape = model.pop("palette", None), model.pop("image_shape")  # which the data tells
    model.pop("num_classes", None)
    seeds = dict.fromkeys([model.pop("seed"), its_data.pop("seed")])
    name = its_data["dataset"]
    kind = its_data.pop("data_module", None) or its_data.pop("dataset")
    unused = unused_options(model.get("network"), model.get("likelihood"))
    options = {
        **{f"--model.{name}": value for name, value in model.items() if name not in unused},
        "--data": kind,
        **{f"--data.{name}": value for name, value in its_data.items()},
        "--seed_everything": seeds.popitem()[0] if len(seeds) == 1 else [*seeds],
    }
    layers = [(name, layer) for name, layer in lit.vae.named_modules() if [*layer.parameters(recurse=False)]]
    counts = {name: sum(p.numel() for p in layer.parameters(recurse=False)) for name, layer in layers}
    with as_untrusted(ckpt_path):  # a file that was stripped to its weights lacks some of these
        best = best_score(checkpoint)
        score = "none: no validation" if best is None else f"{best:.4f} nats per image"
        sizes = checkpoint.get(type(data).__name__, {})
        return {
            "checkpoint": str(ckpt_path),
            "data set": name,
            "images": " x ".join(map(str, shape)),
            **({"split": ", ".join(f"{sizes[split]:,} {split}" for split in SPLITS)} if sizes else {}),
            "measure": lit.vae.likelihood.log_prob_kind(data.binary),
            "epochs": describe_epochs(checkpoint),
            **({"best val/elbo": score} if "callbacks" in checkpoint else {}),
            **{option: value if isinstance(value, str) else json.dumps(value) for option, value in options.items()},
            **({"palette": f"{len(palette)} colours"} if palette else {}),
            **{name: f"{counts[name]:,} parameters, {layer}" for name, layer in layers},
            "in all": f"{sum(counts.values()):,} parameters",
            **{name: str(version) for name, version in checkpoint.get("versions", {}).items()},
        }
