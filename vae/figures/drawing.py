"""What the figures share: their style, grids of images, and figures around them."""

from collections.abc import Sequence

import matplotlib.style
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from vae.model import VAE

DPI = 100
COLOURS = "petroff10"  # ten that colour-blind eyes tell apart, arXiv 2107.02270
STYLE = [
    COLOURS,
    {
        "figure.dpi": DPI,
        "font.size": 12,
        "axes.titlesize": 13,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.alpha": 0.3,
        "legend.frameon": False,
        "text.parse_math": False,  # a label may hold a dollar
    },
]


def to_rgb(images: Tensor, at_least: int = 72) -> Tensor:
    """Images [N, C, H, W] in three channels, each side enlarged to so many pixels at least: [N, 3, H, W]."""
    return upscale(images.cpu(), at_least).expand(-1, 3, -1, -1)


def upscale(images: Tensor, at_least: int) -> Tensor:
    """Images [..., H, W] enlarged by the smallest whole number that brings the shorter side to so many pixels."""
    factor = -(-at_least // min(images.shape[-2:]))
    return images.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)


def error_colours(errors: Tensor) -> Tensor:
    """Numbers from 0 to 1, [N, H, W], as colours, enlarged: [N, 3, H, W]."""
    colours = matplotlib.colormaps["cividis"](errors.cpu().numpy())[..., :3]
    return to_rgb(torch.from_numpy(colours).float().permute(0, 3, 1, 2))


def image_grid(images: Tensor, columns: int, padding: int = 2) -> Tensor:
    """Images [N, 3, H, W] row by row on white: uint8 [3, H, W]."""
    return make_grid(images, nrow=columns, padding=padding, pad_value=1).mul(255).round().to(torch.uint8)


def decode_images(vae: VAE, z: Tensor, at_least: int = 72) -> Tensor:
    """The images of codes [N, Z], enlarged: [N, 3, H, W]."""
    return to_rgb(vae.generate(z.to(vae.prior_loc.device)), at_least)


def image_figure(image: Tensor, title: str, left: int = 20, right: int = 20, top: int = 50, bottom: int = 20) -> Figure:
    """A figure of one axes with the image, uint8 [3, H, W], pixel by pixel, under a title; margins in pixels."""
    _, high, wide = image.shape
    spare = max(0, 640 - left - wide - right) // 2  # room for the title
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
    rows = [name if len(name) <= 14 else f"{name[:13]}…" for name in rows]
    axes.set_xticks([(place + 0.5) * wide / len(columns) - 0.5 for place in range(len(columns))], columns)
    axes.set_yticks([(place + 0.5) * high / len(rows) - 0.5 for place in range(len(rows))], rows)
    axes.tick_params(length=0, bottom=bottom, labelbottom=bottom, labeltop=not bottom)


def latent_name(dimension: int) -> str:
    """A latent variable's name: z₁ is the first."""
    return "z" + str(dimension + 1).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def rasterize(chart: Figure) -> Image.Image:
    """A figure as pixels."""
    canvas = FigureCanvasAgg(chart)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
