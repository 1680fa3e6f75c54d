"""The log of a run: TensorBoard's event files, and the frames of its film."""

import os
from collections.abc import Mapping
from math import prod
from pathlib import Path

from PIL import Image
from torch import Tensor
from torchvision.io import decode_image

from vae.runs.folders import RunError

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


def remove_later_frames(run: Path, epochs: int) -> None:
    """Remove the frames of a film that were drawn after so many epochs."""
    for path in (run / "frames").glob("*.png"):
        if path.stem.isdecimal() and int(path.stem) > epochs:
            path.unlink()
