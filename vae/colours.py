"""The colours of labels and curves, in the figures and in the explorer."""

import torch
from matplotlib import colormaps
from matplotlib.colors import to_hex

# Ten colours whose least difference is 39 in CIELAB, and 20 as seen in deuteranopia.
COLOURS = (
    *("#3f90da", "#ffa90e", "#4daf4a", "#e41a1c", "#984ea3"),
    *("#882d17", "#e68fac", "#42d4f4", "#000075", "#222222"),
)


def label_colours(number: int) -> list[str]:
    """A colour for each of so many labels: the first of COLOURS, or steps of a colour map where these are too few."""
    if number <= len(COLOURS):
        return list(COLOURS[:number])
    return [to_hex(colour) for colour in colormaps["turbo"](torch.linspace(0, 1, number))]
