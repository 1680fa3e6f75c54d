"""One pure function a figure: model, tensors and histories in, figure out. Nothing is read or written here.

A new figure is a function in one of these modules and its name below, or one elsewhere that `register_figure` enters.
The arguments before the `*` are what it shows; those after it are its options, which `visualizations.py` offers on the
command line. `Annotated[Tensor, n]` says that the figure needs the first n images or labels only. A figure returns a
matplotlib figure, a list of them (an animation) or a string (an HTML page). One that does not apply to a model raises
`NotApplicable`.
"""

from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from io import BytesIO
from typing import Any

import matplotlib.style
import torch

from vae.choices import choose, register
from vae.figures.drawing import (
    DPI,
    STYLE,
    NotApplicable,
    add_caption,
    check_resolution,
    encode_gif,
    thumbnails,
)
from vae.figures.explorer import explorer
from vae.figures.latent_space import (
    encode_images,
    interpolations,
    latent_scatter,
    latent_usage,
    learned_manifold,
    traversals,
)
from vae.figures.posterior import posterior
from vae.figures.reconstructions import (
    reconstruction,
    reconstruction_by_class,
    reconstruction_grid,
    sample_grid,
    samples,
)
from vae.figures.training import film_frame, learning_curve, learning_curves, training_film
from vae.model import LabelsNeeded

__all__ = [
    "CAN_SHOW_SAMPLES",
    "DPI",
    "FIGURES",
    "NotApplicable",
    "compares_runs",
    "encode_images",
    "film_frame",
    "reconstruction_grid",
    "register_figure",
    "render",
    "sample_grid",
    "thumbnails",
]

FIGURES: dict[str, Callable] = {}


def register_figure(function: Callable) -> Callable:
    """Enter a figure in `FIGURES` under the function's name; a decorator.

    Raises:
        ValueError: there is one of that name, or an option of it has no default or the name of what figures show.
    """
    parameters = [each for known in (*FIGURES.values(), function) for each in signature(known).parameters.values()]
    shown = {"source", *(each.name for each in parameters if each.kind is not Parameter.KEYWORD_ONLY)}
    for name, each in signature(function).parameters.items():
        if each.kind is Parameter.KEYWORD_ONLY and (each.default is Parameter.empty or name in shown):
            raise ValueError(f"figure {function.__name__}: its option {name} needs a default, and a name of its own")
    register("figure", function.__name__, torch.no_grad()(matplotlib.style.context(STYLE)(function)), FIGURES)
    return function


for figure in (
    reconstruction,
    reconstruction_by_class,
    samples,
    learned_manifold,
    latent_scatter,
    posterior,
    traversals,
    interpolations,
    learning_curve,
    learning_curves,
    latent_usage,
    training_film,
    explorer,
):
    register_figure(figure)
del figure
CAN_SHOW_SAMPLES = ("traversals", "explorer")  # where the images are missing, in their place


def compares_runs(name: str) -> bool:
    """Whether the figure of that name shows several runs."""
    return "histories" in signature(FIGURES[name]).parameters


@matplotlib.style.context(STYLE)
def render(
    name: str, inputs: Mapping[str, Callable[..., Any]], file_format: str = "png", dpi: int = DPI
) -> tuple[str, bytes]:
    """The figure of that name as a file: its suffix (that of the format, gif or html) and its content.

    Args:
        name: one of FIGURES.
        inputs: what gets each argument that a figure may have; those of images and labels take their number. `source`
            gets what the caption says: run, epoch, data, split and likelihood.
        file_format: png, pdf or svg; animations are GIF and pages HTML nevertheless.
        dpi: pixels per inch of a PNG, and of images inside a PDF or SVG.

    Raises:
        UnknownName: the figure has an argument that is none of the inputs.
        NotApplicable: from the figure, or it would have too many pixels.
    """
    parameters = signature(FIGURES[name]).parameters
    arguments = {
        part: choose("argument of a figure", part, inputs)(*getattr(parameter.annotation, "__metadata__", ()))
        for part, parameter in parameters.items()
    }
    if {"vae", "images"} <= arguments.keys() and arguments["vae"].needs_labels:
        arguments["vae"] = arguments["vae"].given(inputs["labels"](len(arguments["images"])))
    try:
        result = FIGURES[name](**arguments)
    except LabelsNeeded as error:
        raise NotApplicable(f"{name} does not show conditional models, whose images need a label each") from error
    if isinstance(result, str):
        return "html", result.encode()
    absent = {part for part, argument in {"epoch": "vae", "split": "images"}.items() if argument not in parameters}
    source = {} if compares_runs(name) else inputs["source"]()
    source = {part: text for part, text in source.items() if part not in absent}
    for chart in result if isinstance(result, list) else [result]:
        add_caption(chart, source)
    if isinstance(result, list):
        return "gif", encode_gif(result, source)
    check_resolution(result, dpi)
    content = BytesIO()
    result.savefig(content, format=file_format, dpi=dpi, metadata=file_metadata(name, source, file_format))
    return file_format, content.getvalue()


def file_metadata(name: str, source: Mapping[str, str], file_format: str) -> Mapping[str, str | None]:
    """What a file says of its figure; PDF and SVG have one field for all of it, and would bear the time."""
    if file_format == "png":
        return {"Title": name} | {part.capitalize(): text for part, text in source.items()}
    field, time = {"pdf": ("Subject", "CreationDate"), "svg": ("Description", "Date")}[file_format]
    return {"Title": name, field: ", ".join(f"{part}: {text}" for part, text in source.items()), time: None}
