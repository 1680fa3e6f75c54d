"""What a run has found: its curves, its film, its test metrics, and the inputs of its figures."""

import json
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from math import prod
from pathlib import Path
from typing import Any

from PIL import Image
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor
from torchvision.io import decode_image

from vae.likelihoods import LIKELIHOODS
from vae.model import VAE
from vae.runs.checkpoints import load_run, read_checkpoint
from vae.runs.folders import RunError, find_checkpoint, run_of, write_atomically

MAX_VALUES = 2**27  # pixel values of the images that a figure is made from: 512 MB
LAST_GROUP = "workings/"  # TensorBoard sorts groups by name
MAX_PIXELS = 2**28  # in a film: 800 MB


def scalar_tag(name: str) -> str:
    """The tag in TensorBoard of a quantity: what has no group of its own comes after those of train and val."""
    return name if "/" in name else f"{LAST_GROUP}{name}"


def read_history(run: Path) -> dict[str, dict[int, float]]:
    """The curves in a run's event files: of each one its value after each epoch, counted from 1.

    Raises:
        RunError: the files are damaged.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # no one else needs it

    try:
        events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
        tags = {tag.removeprefix(LAST_GROUP): tag for tag in events.Tags()["scalars"]}
        curves = {name: {event.step: event.value for event in events.Scalars(tag)} for name, tag in tags.items()}
        epochs = {step: round(epoch) + 1 for step, epoch in curves.pop("epoch", {}).items()}
    except Exception as error:  # whatever the bytes of a damaged file make of the reader
        raise RunError(f"The event files in {run} are damaged: its curves cannot be read.") from error
    return {
        tag: {epochs[step]: curve[step] for step in sorted(curve) if step in epochs} for tag, curve in curves.items()
    }


def frame_path(run: Path, epoch: int) -> Path:
    """Where the frame of a film that shows that epoch is kept."""
    return run / "frames" / f"{epoch:06}.png"


def read_frames(run: Path) -> dict[int, Tensor]:
    """The frames that training kept for a film, uint8 [3, H, W], by epoch.

    Raises:
        RunError: one of them cannot be read.
    """
    pixels, found = 0, {}
    for path in sorted((run / "frames").glob("*.png")):
        try:
            with Image.open(path, formats=["PNG"]) as image:
                pixels += prod(image.size)
            if pixels > MAX_PIXELS:
                raise ValueError("more than memory should hold")
            found[int(path.stem)] = decode_image(str(path), "RGB")
        except Exception as error:  # whatever the bytes of a file that is no image make of the reader
            raise RunError(f"{path} is damaged, or too large for a film: delete it, or train anew.") from error
    return found


def figure_inputs(
    ckpt_path: Path, vae: VAE, data: Any, split: str, names: Sequence[str] | None, datasets: Mapping[str, type]
) -> dict[str, Callable[..., Any]]:
    """What a figure may show, by the name it has there, and how to get it: only what is asked for is read.

    Args:
        ckpt_path: the checkpoint that the model is from.
        vae: the model.
        data: its data module.
        split: the split whose images are shown.
        names: the runs whose histories are compared; by default that of the checkpoint.
        datasets: the data modules by name.

    Raises:
        RunError: one of the runs is not there.
    """
    run = run_of(ckpt_path)
    compared = [find_checkpoint(None, name) for name in names] if names else [ckpt_path]
    most = max(1, MAX_VALUES // prod(vae.image_shape))

    def histories() -> dict[str, dict[str, Any]]:
        groups = {}
        for path in compared:
            lit, its_data = load_run(path, datasets)
            groups.setdefault(measured(lit.vae, its_data), {})[run_of(path).name] = read_history(run_of(path))
        return groups

    return {
        "vae": lambda: vae,
        "images": lambda n: data.images(split, min(n, most)).to(vae.prior_loc.device),
        "labels": lambda n: data.labels(split, min(n, most)),
        "classes": lambda: data.classes,
        "dataset": lambda: data.name,
        "history": lambda: read_history(run),
        "histories": histories,
        "frames": lambda: read_frames(run),
        "source": lambda: {
            "run": run.resolve().name,
            "epoch": epoch_of(ckpt_path),
            "data": describe_data(data),
            "split": split,
            "likelihood": likelihood_name(vae),
        },
    }


def epoch_of(ckpt_path: Path) -> str:
    """The epochs that a checkpoint was trained for, as a caption says it."""
    epoch = read_checkpoint(ckpt_path).get("epoch")
    return str(epoch + 1) if isinstance(epoch, int) else "unknown"


def measured(vae: VAE, data: Any) -> str:
    """What the bound of a model is of: bounds compare where this is the same."""
    return f"{describe_data(data)}, {likelihood_name(vae)} ({vae.likelihood.log_prob_kind(data.binary)})"


def describe_data(data: Any) -> str:
    """The data set's name and the options of its own that change its images."""
    parameters = signature(vars(type(data)).get("__init__", object.__init__)).parameters  # not those of its base class
    own = [name for name in parameters if name in data.hparams and name not in ("val_size", "batch_size")]
    return ", ".join([data.name, *(f"{name} {data.hparams[name]}" for name in own)])


def likelihood_name(vae: VAE) -> str:
    """The name of a model's likelihood, as in --model.likelihood."""
    return next(name for name, kind in LIKELIHOODS.items() if type(vae.likelihood) is kind)


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

    Args:
        ckpt_path: the checkpoint that was tested.
        metrics: the metrics and the `split`; the file also names the `checkpoint`.
    """
    from torch.utils.tensorboard import SummaryWriter  # a second to import

    run, path = run_of(ckpt_path), metrics_path(ckpt_path, metrics["split"])
    step = read_checkpoint(ckpt_path).get("global_step")
    if step is not None and path.name == "test_metrics.json" and [*run.glob("events.out.tfevents.*")]:
        with SummaryWriter(run) as writer:  # a file of its own in the run's folder: TensorBoard shows one run
            for name in ("elbo", "log_marginal"):
                writer.add_scalar(scalar_tag(f"test_{name}"), metrics[name], step)
    write_atomically(path, json.dumps({"checkpoint": str(ckpt_path), **metrics}, indent=2).encode())
    return path
