"""The results of a run: the inputs of its figures, and its test metrics."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from vae.likelihoods import likelihood_name
from vae.model import VAE
from vae.runs.checkpoints import load_run, read_checkpoint
from vae.runs.folders import RunError, find_checkpoint, run_of, write_atomically
from vae.runs.logs import read_frames, read_history, scalar_tag

SHOWN = {"train": "training images", "val": "validation images", "test": "test images", "all": "images"}
MAX_VALUES = 2**27  # pixel values of the images that a figure is made from: 512 MB


def figure_inputs(
    ckpt_path: Path,
    vae: VAE,
    data: Any,
    split: str,
    names: Sequence[str] | None,
    datasets: Mapping[str, type],
    **options: Any,
) -> dict[str, Callable[..., Any]]:
    """What a figure may show, by the name it has there, and how to get it: only what is asked for is read.

    Args:
        ckpt_path: the checkpoint that the model is from.
        names: the runs whose histories are compared; by default that of the checkpoint.
        options: the values of the figures' options.

    Raises:
        RunError: one of the runs is not there.
    """
    run = run_of(ckpt_path)
    compared = [find_checkpoint(None, name) for name in names] if names else [ckpt_path]
    most = max(1, MAX_VALUES // prod(vae.image_shape))

    def histories() -> dict[str, dict[str, Any]]:
        groups: dict[str, dict[str, Any]] = {}
        for path in compared:
            lit, its_data = load_run(path, datasets)
            groups.setdefault(measured(lit.vae, its_data), {})[run_name(path)] = read_history(run_of(path))
        return groups

    def source() -> dict[str, str]:
        epoch = read_checkpoint(ckpt_path).get("epoch")
        return {
            "run": run_name(ckpt_path),
            "epoch": "unknown" if epoch is None else str(epoch + 1),
            "data": describe_data(data),
            "split": split,
            "likelihood": likelihood_name(vae.likelihood),
        }

    return {
        "vae": lambda: vae,
        "images": lambda n=most: data.images(split, min(n, most)).to(vae.prior_loc.device),
        "labels": lambda n=most: data.labels(split, min(n, most)),
        "classes": lambda: data.classes,
        "dataset": lambda: data.name,
        "shown": lambda: SHOWN[split],
        "history": lambda: read_history(run),
        "histories": histories,
        "frames": lambda: read_frames(run),
        "source": source,
        **{name: lambda value=value: value for name, value in options.items()},
    }


def run_name(ckpt_path: Path) -> str:
    """The name of a checkpoint's run; of one that is in no run, its folder's and its own: pretrained/mnist_2d."""
    path = ckpt_path.resolve()
    run = run_of(path)
    return f"{run.name}/{path.stem}" if path.parent == run else run.name


def measured(vae: VAE, data: Any) -> str:
    """What the bound of a model is of: bounds compare where this is the same."""
    return f"{describe_data(data)}, {likelihood_name(vae.likelihood)} ({vae.likelihood.log_prob_kind(data.binary)})"


def describe_data(data: Any) -> str:
    """The data set's name and the options of its own that change its images."""
    parameters = signature(vars(type(data)).get("__init__", object.__init__)).parameters  # not those of its base class
    alike = ("dataset", "val_size", "batch_size")
    own = [name for name in parameters if name in data.hparams and name not in alike]
    values = {name: getattr(data, name, data.hparams[name]) for name in own}  # an attribute is what null stands for
    return ", ".join([data.name, *(f"{name} {value}" for name, value in values.items())])


def metrics_path(ckpt_path: Path, split: str) -> Path:
    """The file of a test's metrics, one for each checkpoint and split.

    It is `test_metrics.json` for the test split and a run's best.ckpt, or the only checkpoint of a folder.
    """
    default = ckpt_path.name == "best.ckpt" or [*ckpt_path.parent.glob("*.ckpt")] == [ckpt_path]
    name = "test_metrics.json" if default and split == "test" else f"test_metrics.{ckpt_path.stem}.{split}.json"
    return run_of(ckpt_path) / name


@rank_zero_only
def save_test_metrics(ckpt_path: Path, metrics: Mapping[str, Any]) -> Path:
    """Write the metrics of a test into the run's folder; those of its test_metrics.json also into its TensorBoard.

    `metrics` has the `split` too; the file also names the `checkpoint`.
    """
    from torch.utils.tensorboard import SummaryWriter  # a second to import

    run, path = run_of(ckpt_path), metrics_path(ckpt_path, metrics["split"])
    write_atomically(path, json.dumps({"checkpoint": str(ckpt_path), **metrics}, indent=2, allow_nan=False).encode())
    step = read_checkpoint(ckpt_path).get("global_step")
    if step is not None and path.name == "test_metrics.json" and [*run.glob("events.out.tfevents.*")]:
        with SummaryWriter(run) as writer:  # a file of its own in the run's folder: TensorBoard shows one run
            for name in ("elbo", "log_marginal"):
                if metrics[name] is not None:
                    writer.add_scalar(scalar_tag(f"test_{name}"), metrics[name], step)
    return path


def check_file_name(path: Path) -> None:
    """See that codes could be written to a file of that name, and that it is no other file of a run.

    Raises:
        RunError: they could not.
    """
    if path.suffix != ".npz" or path.is_dir() or not os.access(path.resolve().parent, os.W_OK):
        raise RunError(f"{path}: expected a file that ends in .npz, in a folder that can be written to")


@rank_zero_only
def save_codes(path: Path, columns: Mapping[str, Tensor], labels: Tensor | None) -> Path:
    """Write what a test found of each image as a NumPy archive, with the images' labels [N], if there are any."""
    index = columns["index"].long()
    codes = {name: columns[name] for name in ("elbo", "log_marginal")}
    codes |= {f"{name}s": columns[name].float() for name in ("mean", "scale")} | {"index": index}
    content = BytesIO()
    np.savez(content, **codes, **({} if labels is None else {"labels": labels[index]}))
    write_atomically(path.resolve(), content.getvalue())  # what a link leads to
    return path
