"""Untrusted checkpoints: read, checked, and turned into a model and its data; nothing in them is executed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vae.lit_vae import LitVAE
from vae.runs.folders import RunError


def read_checkpoint(ckpt_path: Path) -> Any:
    """The plain values and tensors in a checkpoint; nothing in it is executed.

    Raises:
        RunError: the file is missing or damaged.
    """
    try:
        return torch.load(ckpt_path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RunError(
            f"There is no checkpoint {ckpt_path}: name one that exists, or train first, python3 train.py"
        ) from None
    except Exception as error:  # whatever the bytes of a file that is no checkpoint make of the reader
        raise RunError(f"{ckpt_path} cannot be read as a checkpoint: it is truncated, or something else.") from error


def load_run(ckpt_path: Path, datasets: Mapping[str, type], data_dir: str | None = None) -> tuple[LitVAE, Any]:
    """The model and the data module that a checkpoint was trained with, rebuilt from it alone.

    Args:
        datasets: the data modules by name, among which that of the checkpoint is looked up.
        data_dir: where the data is now, if it is not where it was.

    Raises:
        RunError: the file is missing, damaged or not one of this project's.
    """
    checkpoint = read_checkpoint(ckpt_path)
    try:
        options = dict(checkpoint["datamodule_hyper_parameters"])
        dataset = datasets[options.pop("dataset")]
        with torch.device("meta"):  # where no size takes memory: a stranger's file may ask for any
            shapes = {
                name: value.shape for name, value in LitVAE(**checkpoint["hyper_parameters"]).state_dict().items()
            }
        weights = checkpoint["state_dict"]
        if shapes != {name: value.shape for name, value in weights.items() if value.is_contiguous()}:
            raise ValueError("the weights are not of the sizes that the hyper-parameters tell")
        lit = LitVAE(**checkpoint["hyper_parameters"])
        lit.load_state_dict(weights)
        data = dataset(**options | ({"data_dir": data_dir} if data_dir else {}))
        if data.image_shape != lit.vae.image_shape:
            raise ValueError("model and data do not fit each other")
    except Exception as error:  # whatever the contents of a foreign file make of the constructors
        raise RunError(f"{ckpt_path} is not a checkpoint that this project's train.py wrote.") from error
    return lit.eval(), data


def describe(ckpt_path: Path, datasets: Mapping[str, type]) -> dict[str, str]:
    """What a checkpoint is, without its data: what it was trained on and how, its layers, its best, what made it.

    Raises:
        RunError: as `load_run`.
    """
    lit, data = load_run(ckpt_path, datasets)
    checkpoint = read_checkpoint(ckpt_path)
    hparams = {"model": dict(lit.hparams), "data": dict(data.hparams)}
    palette = hparams["model"].pop("palette", None)
    layers = [(name, layer) for name, layer in lit.vae.named_modules() if [*layer.parameters(recurse=False)]]
    counts = {name: sum(p.numel() for p in layer.parameters(recurse=False)) for name, layer in layers}
    best = [state.get("best_model_score") for state in checkpoint["callbacks"].values() if state.get("monitor")]
    return {
        "checkpoint": str(ckpt_path),
        "data set": hparams["data"].pop("dataset"),
        "split": ", ".join(f"{size:,} {split}" for split, size in checkpoint[type(data).__name__].items()),
        "measure": lit.vae.likelihood.log_prob_kind(data.binary),
        "epochs": str(checkpoint["epoch"] + 1),
        "best val/elbo": f"{best[0]:.4f} nats per image" if best and best[0] is not None else "none: no validation",
        **{f"--{group}.{name}": str(value) for group in hparams for name, value in hparams[group].items()},
        **({"palette": f"{len(palette)} colours"} if palette else {}),
        **{name: f"{counts[name]:,} parameters, {layer}" for name, layer in layers},
        "in all": f"{sum(counts.values()):,} parameters",
        **{name: str(version) for name, version in checkpoint["versions"].items()},
    }
