"""The table of figures."""

from collections.abc import Callable, Mapping
from functools import wraps
from inspect import signature
from io import BytesIO
from typing import Any

import matplotlib.style
import torch
from matplotlib.figure import Figure

from vae.figures.drawing import STYLE, rasterize
from vae.registry import Registry

FIGURES = Registry("figure", {})


class NotApplicable(Exception):
    """This figure does not apply to this model; the message says why."""


def figure(function: Callable) -> Callable:
    """Enter a function into FIGURES; it draws in the one style, and without gradients."""

    @wraps(function)
    def draw(*args, **kwargs):
        with torch.no_grad(), matplotlib.style.context(STYLE):
            return function(*args, **kwargs)

    FIGURES[function.__name__] = draw
    return draw


def render(name: str, material: Mapping[str, Callable[[], Any]]) -> tuple[str, bytes]:
    """The figure of that name, as the end of a file's name and its content: a PNG, of a film a GIF, of a
    page HTML.

    Args:
        name: one of FIGURES.
        material: what gets each argument that a figure may have.

    Raises:
        NotApplicable: from the figure.
    """
    shown = FIGURES[name](**{part: material[part]() for part in signature(FIGURES[name]).parameters})
    if isinstance(shown, str):
        return "html", shown.encode()
    content = BytesIO()
    if isinstance(shown, Figure):
        rasterize(shown).save(content, "png")
        return "png", content.getvalue()
    milliseconds = [120] * (len(shown) - 1) + [2_000]
    shown[0].save(content, "gif", save_all=True, append_images=shown[1:], duration=milliseconds, loop=0)
    return "gif", content.getvalue()
