"""What the figures share: their style, grids of images, figures around them, captions and animations."""

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO

import numpy as np
import torch
from cycler import cycler
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, pad
from torchvision.utils import make_grid

from vae.colours import COLOURS
from vae.model import VAE

DPI = 100
CAPTION_MARGIN = 30  # pixels below an image, which hold the caption
MAX_CAPTION_PART = 30  # digits' widths
MAX_GRID_SIDE = 3_000  # pixels of a grid of images, in height and in width
MIN_CELL_SIDE = 20  # pixels of an image in a grid, where one side is many times the other
MAX_FIGURE_PIXELS = 2**28  # 1 GB while it is drawn
MAX_ROWS = 40  # of a grid with a row for each class or latent variable
MAX_FILM_BYTES = 3_000_000
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


def cell_size(
    shape: Sequence[int], count: int, columns: int, at_least: int = 72, spacing: int = 2, at_most: int = MAX_GRID_SIDE
) -> tuple[int, int]:
    """Height and width that each of `count` images of shape [..., H, W] gets in a grid: the bound of all image grids.

    Images are enlarged by the smallest whole number that brings the shorter side to `at_least` pixels, or the largest
    that the grid has space for. Those for which it has none are reduced, and their shorter side kept visible.

    Args:
        count: how many images there are.
        columns: how many of them stand in a row.
        spacing: pixels between two images.
        at_most: pixels of each side of the grid.

    Raises:
        NotApplicable: so many images do not fit.
    """
    rows, columns = -(-count // columns), min(count, columns)
    sides, space = shape[-2:], [(at_most + spacing) // number - spacing for number in (rows, columns)]
    if min(space) < 1:
        raise NotApplicable(f"{rows:,} rows of {columns:,} images do not fit into {at_most:,} pixels: show fewer")
    largest = min(most / side for most, side in zip(space, sides, strict=True))
    scale = min(max(1, -(-at_least // min(sides))), int(largest)) if largest >= 1 else largest
    least = max(1, min(MIN_CELL_SIDE, at_least, *space))
    height, width = (max(least, int(scale * side + 1e-9)) for side in sides)
    return height, width


def to_cells(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images [N, C, H, W] in three channels and of that size: uint8 [N, 3, height, width].

    Pixels that are enlarged by whole numbers stay as they are, others are means.
    """
    return adaptive_avg_pool2d(images.cpu(), size).mul(255).round().byte().expand(-1, 3, -1, -1)


def make_cells(vae: VAE, make: Callable[[VAE, Tensor], Tensor], inputs: Tensor, size: tuple[int, int]) -> Tensor:
    """The images that a model makes of codes or images [N, ...], as cells: uint8 [N, 3, height, width].

    They are made in batches: at their own size all of them may not fit into the memory.
    """
    batches = vae.batches(inputs.to(vae.prior_loc.device))
    return torch.cat([to_cells(make(model, batch), size) for model, batch in batches])


def thumbnails(images: Tensor, at_most: int) -> Tensor:
    """Images [N, C, H, W] in squares of so many pixels a side or fewer, with white beside them: [N, 3, side, side]."""
    height, width = cell_size(images.shape, 1, 1, at_least=1, spacing=0, at_most=at_most)
    high, wide = (max(height, width) - side for side in (height, width))
    border = (wide // 2, wide - wide // 2, high // 2, high - high // 2)
    return pad(to_cells(images, (height, width)), border, value=255) / 255


def error_colours(errors: Tensor) -> Tensor:
    """Numbers from 0 to 1, [N, H, W], as colours: [N, 3, H, W]."""
    colours = colormaps["cividis"](errors.cpu().numpy())[..., :3]
    return torch.from_numpy(colours).float().permute(0, 3, 1, 2)


def image_grid(cells: Tensor, columns: int, spacing: int = 2) -> Tensor:
    """Images, uint8 [N, 3, H, W], row by row, with so many white pixels between them: uint8 [3, H, W]."""
    grid = make_grid(cells, nrow=columns, padding=spacing, pad_value=255)
    if len(cells) > 1:  # make_grid adds a border around several images
        grid = pad(grid, (-spacing,) * 4)
    return grid


def image_figure(
    image: Tensor, title: str, left: int = 20, right: int = 20, top: int = 50, bottom: int = CAPTION_MARGIN
) -> Figure:
    """A figure of one axes with the image, uint8 [3, H, W], pixel by pixel, under a title; margins in pixels."""
    _, high, wide = image.shape
    spare = max(0, max(640, 9 * len(title)) - left - wide - right) // 2  # room for title and caption
    width, height = left + wide + right + 2 * spare, top + high + bottom
    chart = Figure(figsize=(width / DPI, height / DPI))
    axes = chart.add_axes(((left + spare) / width, bottom / height, wide / width, high / height))
    axes.imshow(image.permute(1, 2, 0), interpolation="nearest", aspect="auto")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.grid(False)
    chart.suptitle(title, y=1 - 12 / height)
    return chart


def check_resolution(chart: Figure, dpi: int) -> None:
    """See that a figure of so many pixels per inch can be drawn.

    Raises:
        NotApplicable: it would have too many pixels.
    """
    width, height = (round(dpi * inches) for inches in chart.get_size_inches())
    if width * height > MAX_FIGURE_PIXELS:
        raise NotApplicable(f"a figure of {width:,} x {height:,} pixels does not fit into the memory: lower --dpi")


def label_cells(axes: Axes, rows: Sequence[str], columns: Sequence[str], bottom: bool = False) -> None:
    """Name the rows and columns of an image grid: on the left, and above or below it."""
    high, wide = axes.images[0].get_size()
    rows = shorten_apart(rows, 14)
    axes.set_xticks([(place + 0.5) * wide / len(columns) - 0.5 for place in range(len(columns))], columns)
    axes.set_yticks([(place + 0.5) * high / len(rows) - 0.5 for place in range(len(rows))], rows)
    axes.tick_params(length=0, bottom=bottom, labelbottom=bottom, labeltop=not bottom)
    if 8 * max(map(len, columns)) > wide / len(columns):  # pixels of a name, and of its column
        axes.tick_params("x", labelrotation=90, labelsize=9)


def shorten(text: str, length: int, kept: int = 0) -> str:
    """The text, cut to the width of that many digits before its last characters, of which so many are kept."""
    width = length * text_width("0")
    if text_width(text) <= width:
        return text
    start, end = text[: 3 * length], text[len(text) - kept :]
    while text_width(f"{start}…{end}") > width:
        start, end = (start[:-1], end) if start else (start, end[1:])
    return f"{start}…{end}"


def shorten_apart(texts: Sequence[str], length: int) -> list[str]:
    """The texts, cut to that width so that no two become one: at their ends, in their middles, or else numbered."""
    for kept in (0, length // 3):
        short = [shorten(text, length, kept) for text in texts]
        if len({*short}) == len({*texts}):
            return short
    numbers = {text: f" {number}" for number, text in enumerate(dict.fromkeys(texts), start=1)}
    return [shorten(text, length - len(numbers[text])) + numbers[text] for text in texts]


def text_width(text: str) -> float:
    """The width of a text in the style's font."""
    return text_to_path.get_text_width_height_descent(text, FontProperties(), ismath=False)[0]


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
