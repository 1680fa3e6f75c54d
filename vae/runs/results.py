"""What a run has found: its curves, its film, its test metrics, and the inputs of its figures."""

import json
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from PIL import Image
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor
from torchvision.io import decode_image

from vae.model import VAE
from vae.runs.checkpoints import read_checkpoint
from vae.runs.folders import RunError, newest_run, run_of, write_atomically

MAX_IMAGES = 100_000  # in a figure
MAX_PIXELS = 2**28  # in a film: 800 MB


def read_history(run: Path) -> dict[str, dict[int, float]]:
    """The curves in a run's event files: of each one its value after each epoch, counted from 1.

    Raises:
        RunError: the files are damaged.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # no one else needs it

    try:
        events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
        curves = {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}
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
    ckpt_path: Path, vae: VAE, data: Any, split: str, names: Sequence[str] | None
) -> dict[str, Callable[[], Any]]:
    """What a figure may show, by the name it has there, and how to get it: only what is asked for is read.

    Args:
        ckpt_path: the checkpoint that the model is from.
        vae: the model.
        data: its data module.
        split: the split whose images are shown.
        names: the runs whose histories are compared; by default that of the checkpoint.

    Raises:
        RunError: one of the runs is not there.
    """
    run = run_of(ckpt_path)
    compared = [newest_run(name) for name in names] if names else [run]
    return {
        "vae": lambda: vae,
        "images": lambda: data.images(split, MAX_IMAGES).to(vae.prior_loc.device),
        "labels": lambda: data.labels(split, MAX_IMAGES),
        "classes": lambda: data.classes,
        "history": lambda: read_history(run),
        "histories": lambda: {run.name: read_history(run) for run in compared},
        "frames": lambda: read_frames(run),
    }


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
        with SummaryWriter(run / "test") as writer:  # in a folder of its own: the run's own file may yet grow
            for name in ("elbo", "log_marginal"):
                writer.add_scalar(f"test/{name}", metrics[name], step)
    write_atomically(path, json.dumps({"checkpoint": str(ckpt_path), **metrics}, indent=2).encode())
    return path
