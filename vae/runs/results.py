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
    """The curves that a run told TensorBoard: of each one its value after each epoch, counted from 1."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # no one else needs it

    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    curves = {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}
    epochs = {step: round(epoch) + 1 for step, epoch in curves.pop("epoch", {}).items()}
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
        "dataset": lambda: data.name,
        "history": lambda: read_history(run),
        "histories": lambda: {run.name: read_history(run) for run in compared},
        "frames": lambda: read_frames(run),
    }


@rank_zero_only
def save_test_metrics(ckpt_path: Path, metrics: Mapping[str, Any]) -> Path:
    """Keep what a test of a checkpoint found: in its run's test_metrics.json, and where there is one in TensorBoard."""
    from torch.utils.tensorboard import SummaryWriter  # a second to import

    run, step = run_of(ckpt_path), read_checkpoint(ckpt_path)["global_step"]
    if metrics["split"] == "test" and [*run.glob("events.out.tfevents.*")]:
        with SummaryWriter(run / "test") as writer:  # in a folder of its own: the run's own file may yet grow
            for name in ("elbo", "log_marginal"):
                writer.add_scalar(f"test/{name}", metrics[name], step)
    path = run / "test_metrics.json"
    write_atomically(path, json.dumps(metrics, indent=2).encode())
    return path
