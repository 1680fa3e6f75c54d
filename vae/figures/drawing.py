"""What the figures share: their style, grids of images, figures around them, captions and animations."""

from collections.abc import Mapping, Sequence
from io import BytesIO

import numpy as np
import torch
from cycler import cycler
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad
from torchvision.utils import make_grid

from vae.model import VAE

DPI = 100
CAPTION_MARGIN = 30  # pixels below an image, which hold the caption
MAX_CAPTION_PART = 30  # characters
MAX_FILM_BYTES = 3_000_000
# Ten colours whose least difference is 39 in CIELAB, and 20 as seen in deuteranopia.
COLOURS = (
    *("#3f90da", "#ffa90e", "#4daf4a", "#e41a1c", "#984ea3"),
    *("#882d17", "#e68fac", "#42d4f4", "#000075", "#222222"),
)
STYLE = {
    "figure.dpi": DPI,
    "savefig.dpi": "figure",
    "svg.hashsalt": "vae",  # the same figure is the same file
    "savefig.bbox": None,
    "font.size": 12,
    "axes.titlesize": 13,
    "figure.titlesize": 13,
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "text.parse_math": False,  # a label may hold a dollar
}


class NotApplicable(Exception):
    """This figure does not apply to this model; the message says why."""


def to_rgb(images: Tensor, at_least: int = 72) -> Tensor:
    """Images [N, C, H, W] in three channels, each side enlarged to so many pixels at least: [N, 3, H, W]."""
    return upscale(images.cpu(), at_least).expand(-1, 3, -1, -1)


def upscale(images: Tensor, at_least: int) -> Tensor:
    """Images [..., H, W] enlarged by the smallest whole number that brings the shorter side to so many pixels."""
    factor = -(-at_least // min(images.shape[-2:]))
    return images.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)


def error_colours(errors: Tensor) -> Tensor:
    """Numbers from 0 to 1, [N, H, W], as colours, enlarged: [N, 3, H, W]."""
    colours = colormaps["cividis"](errors.cpu().numpy())[..., :3]
    return to_rgb(torch.from_numpy(colours).float().permute(0, 3, 1, 2))


def image_grid(images: Tensor, columns: int, spacing: int = 2) -> Tensor:
    """Images [N, 3, H, W] row by row, with so many white pixels between them: uint8 [3, H, W]."""
    grid = make_grid(images, nrow=columns, padding=spacing, pad_value=1)
    if len(images) > 1:  # make_grid adds a border around several images
        grid = pad(grid, (-spacing,) * 4)
    return grid.mul(255).round().to(torch.uint8)


def decode_images(vae: VAE, z: Tensor, at_least: int = 72) -> Tensor:
    """The images of codes [N, Z], enlarged: [N, 3, H, W]."""
    return to_rgb(vae.generate(z.to(vae.prior_loc.device)), at_least)


def image_figure(
    image: Tensor, title: str, left: int = 20, right: int = 20, top: int = 50, bottom: int = CAPTION_MARGIN
) -> Figure:
    """A figure of one axes with the image, uint8 [3, H, W], pixel by pixel, under a title; margins in pixels."""
    _, high, wide = image.shape
    spare = max(0, 640 - left - wide - right) // 2  # room for title and caption
    width, height = left + wide + right + 2 * spare, top + high + bottom
    chart = Figure(figsize=(width / DPI, height / DPI))
    axes = chart.add_axes(((left + spare) / width, bottom / height, wide / width, high / height))
    axes.imshow(image.permute(1, 2, 0), interpolation="nearest", aspect="auto")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.grid(False)
    chart.suptitle(title, y=1 - 12 / height)
    return chart


def label_cells(axes: Axes, rows: Sequence[str], columns: Sequence[str], bottom: bool = False) -> None:
    """Name the rows and columns of an image grid: on the left, and above or below it."""
    high, wide = axes.images[0].get_size()
    rows = [shorten(name, 14) for name in rows]
    axes.set_xticks([(place + 0.5) * wide / len(columns) - 0.5 for place in range(len(columns))], columns)
    axes.set_yticks([(place + 0.5) * high / len(rows) - 0.5 for place in range(len(rows))], rows)
    axes.tick_params(length=0, bottom=bottom, labelbottom=bottom, labeltop=not bottom)


def shorten(text: str, length: int) -> str:
    """The text, cut to that many characters."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def latent_name(dimension: int) -> str:
    """A latent variable's name: z₁ is the first."""
    return "z" + str(dimension + 1).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def add_caption(chart: Figure, source: Mapping[str, str]) -> None:
    """One small line at the bottom that says what the figure is of. A layout engine makes room for it."""
    named = ("run", "epoch", "split")  # the other parts explain themselves
    texts = [f"{part} {text}" if part in named else text for part, text in source.items()]
    parts = [shorten(text, MAX_CAPTION_PART) for text in texts]
    place = {} if chart.get_layout_engine() else {"y": 8 / chart.bbox.height}
    chart.supxlabel("  ·  ".join(parts), fontsize=8, color="dimgrey", **place)


def encode_gif(charts: Sequence[Figure], source: Mapping[str, str]) -> bytes:
    """An animation of eight seconds, where a frame is then shown for 0.12 to 1 second; the last one stays.

    Where it has more than MAX_FILM_BYTES, every second frame is left out.
    """
    stills = [rasterize(chart) for chart in charts]
    duration = min(1_000, max(120, 8_000 // len(stills)))
    comment = ", ".join(f"{part}: {text}" for part, text in source.items()).encode()
    while True:
        content, durations = BytesIO(), [duration] * (len(stills) - 1) + [2_000]
        options = {"save_all": True, "append_images": stills[1:], "duration": durations, "loop": 0, "comment": comment}
        stills[0].save(content, "gif", **options)
        if content.tell() <= MAX_FILM_BYTES or len(stills) == 1:
            return content.getvalue()
        stills, duration = stills[::-2][::-1], 2 * duration


def rasterize(chart: Figure) -> Image.Image:
    """A figure in 256 colours, or in 64 greys, which a GIF stores in half of the bytes."""
    canvas = FigureCanvasAgg(chart)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    is_grey = not np.ptp(pixels, axis=-1).any()
    return Image.fromarray(pixels).quantize(64 if is_grey else 256, dither=Image.Dither.NONE)
