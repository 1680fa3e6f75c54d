"""The pictures: one pure function each, model, tensors and histories in, figure out. Nothing is read or written here.

What stands before the `*` in a function's arguments is what it shows; what stands after it are its options, which
`visualizations.py` offers on the command line. A figure that makes no sense for a model raises `NotApplicable`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from inspect import signature
from io import BytesIO
from itertools import cycle
from typing import Any, Literal

import matplotlib.style
import numpy as np
import torch
from jsonargparse.typing import PositiveFloat, PositiveInt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from vae.metrics import active
from vae.model import VAE
from vae.registry import Registry

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
MOST_ROWS = 40
FIGURES = Registry("figure", {})
History = Mapping[str, Mapping[int, float]]  # of each quantity, its value after each epoch; epochs are counted from 1


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


@figure
def reconstruction(vae: VAE, images: Tensor) -> Figure:
    """Pictures beside their reconstructions at the posterior's mean: originals left, decoded right.

    Args:
        vae: the model.
        images: [N, C, H, W], values in [0, 1]; the first 40 are shown, five pairs in a row.
    """
    return framed(reconstruction_grid(vae, images[:40]), "Pictures (left of each pair) and reconstructions (right)")


@figure
def reconstruction_by_class(vae: VAE, images: Tensor, labels: Tensor | None, classes: Sequence[str] | None) -> Figure:
    """For each label its first three pictures, their reconstructions, and the error of each pixel.

    Args:
        vae: the model.
        images: [N, C, H, W], values in [0, 1].
        labels: [N], places in `classes`, or None.
        classes: the labels' names, or None.

    Raises:
        NotApplicable: the pictures have no labels.
    """
    if labels is None:
        raise NotApplicable("reconstruction_by_class needs labels; these pictures have none")
    cells, names = [], []
    for label in labels.unique().tolist():
        originals = images[labels == label][:3]
        decoded = vae.reconstruct(originals)
        error = in_colour((originals - decoded).abs().mean(1))
        triples = torch.stack([rgb(originals), rgb(decoded), error], dim=1).flatten(0, 1)
        cells.append(torch.cat([triples, torch.ones_like(triples[:1]).expand(9 - len(triples), -1, -1, -1)]))
        names.append(classes[label])
    chart = framed(
        mosaic(torch.cat(cells), 9), "Reconstruction by class, and the error of each pixel", left=110, right=110, top=80
    )
    (axes,) = chart.axes
    label_cells(axes, rows=names, columns=["original", "decoded", "error"] * 3)
    chart.colorbar(ScalarMappable(cmap="cividis"), cax=axes.inset_axes([1.03, 0, 0.025, 1]), label="absolute error")
    return chart


@figure
def samples(vae: VAE, *, num_samples: PositiveInt = 64, grid_width: PositiveInt = 8) -> Figure:
    """Pictures for draws from p(z), the same draws each time.

    Args:
        vae: the model.
        num_samples: How many samples there are.
        grid_width: How many of them stand in a row.
    """
    return framed(sample_grid(vae, num_samples, grid_width), f"{num_samples} samples: decoded draws from the prior")


@figure
def learned_manifold(
    vae: VAE,
    *,
    grid: Literal["quantiles", "linspace"] = "quantiles",
    extent: PositiveFloat = 3.0,
    grid_size: PositiveInt = 20,
) -> Figure:
    """The paper's Figure 4: a grid over the latent space, decoded. z_1 runs to the right, z_2 up.

    Args:
        vae: the model, of one or two latent variables.
        grid: The manifold's steps: quantiles of the prior, by its inverse CDF as in the paper; or linspace, even ones.
        extent: How far the even steps go to either side, in standard deviations of the prior.
        grid_size: The number of steps.

    Raises:
        NotApplicable: the latent space has more than two dimensions.
    """
    if vae.latent_dim > 2:
        raise NotApplicable(
            f"learned_manifold needs a latent space of 1 or 2 dimensions; this model has {vae.latent_dim}"
        )
    steps = latent_steps(grid, extent, grid_size)
    spacing = "at quantiles of the prior" if grid == "quantiles" else "in even steps"
    chart = framed(manifold_grid(vae, steps), f"Learned manifold, {spacing}", left=80, bottom=70)
    (axes,) = chart.axes
    shown = {round(place * (grid_size - 1) / 6) for place in range(7)}
    names = [f"{z:.2f}" if place in shown else "" for place, z in enumerate(steps)]
    label_cells(axes, rows=names[::-1] if vae.latent_dim == 2 else [""], columns=names, bottom=True)
    axes.set_xlabel(name_of(0))
    axes.set_ylabel(name_of(1) if vae.latent_dim == 2 else "")
    return chart


@figure
def latent_scatter(
    vae: VAE, images: Tensor, labels: Tensor | None, classes: Sequence[str] | None, *, tsne_points: PositiveInt = 2_000
) -> Figure:
    """The posterior's means, coloured by label: as they are up to two dimensions, above that by PCA and by t-SNE.

    Args:
        vae: the model.
        images: [N, C, H, W], values in [0, 1].
        labels: [N], places in `classes`, or None.
        classes: the labels' names, or None.
        tsne_points: How many pictures t-SNE arranges, the first ones; its time grows with them.

    Raises:
        NotApplicable: there are too few pictures to arrange.
    """
    z, _ = codes(vae, images)
    if vae.latent_dim > 2 and len(z[:tsne_points]) < 4:
        raise NotApplicable("latent_scatter needs at least four pictures where there are more than two dimensions")
    if vae.latent_dim == 1:
        aside = torch.rand(len(z), 1, generator=torch.Generator().manual_seed(0))
        maps = [
            (torch.cat([z, aside], 1), f"Posterior means of {len(z):,} pictures", name_of(0), "scattered at random")
        ]
    elif vae.latent_dim == 2:
        maps = [(z, f"Posterior means of {len(z):,} pictures", name_of(0), name_of(1))]
    else:
        from sklearn.decomposition import PCA  # here, since its import takes a second
        from sklearn.manifold import TSNE

        pca, some = PCA(2, svd_solver="full"), z[:tsne_points]
        tsne = TSNE(perplexity=min(30.0, (len(some) - 1) / 3), init="pca", random_state=0)
        by_pca, by_tsne = (torch.from_numpy(method.fit_transform(part)) for method, part in ((pca, z), (tsne, some)))
        axis_names = [
            f"component {i}: {share:.0%} of the variance" for i, share in enumerate(pca.explained_variance_ratio_, 1)
        ]
        maps = [
            (by_pca, f"PCA of {len(z):,} posterior means", *axis_names),
            (by_tsne, f"t-SNE of {len(some):,} posterior means", "t-SNE 1, no unit", "t-SNE 2, no unit"),
        ]
    chart = Figure(figsize=(7.5 * len(maps) + 0.5, 7), layout="constrained")
    for axes, (points, title, x_name, y_name) in zip(chart.subplots(1, len(maps), squeeze=False)[0], maps, strict=True):
        axes.set(title=title, xlabel=x_name, ylabel=y_name)
        if vae.latent_dim > 1:
            axes.set_aspect("equal", adjustable="datalim")
        scatter(axes, points, None if labels is None else labels[: len(points)], classes)
    if labels is not None:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), ncols=-(-len(labels.unique()) // 25))
    return chart


@figure
def traversals(vae: VAE, images: Tensor) -> Figure:
    """One row a latent variable, most active first: it goes from -3 to 3, the others stay at the first picture's code.

    Args:
        vae: the model.
        images: [N, C, H, W], values in [0, 1], over which the mean KL of a variable is taken.
    """
    z, kl = codes(vae, images)
    order = kl.argsort(descending=True)[:MOST_ROWS].tolist()
    steps = torch.linspace(-3, 3, 13)
    paths = z[0].repeat(len(order), len(steps), 1)  # row, column, Z
    for row, dimension in enumerate(order):
        paths[row, :, dimension] = steps
    title = "Traversals: one latent variable changes, the others stay"
    chart = framed(mosaic(decoded(vae, paths.flatten(0, 1)), len(steps)), title, left=150, top=80)
    names = [f"{name_of(dimension)}  {kl[dimension]:.2f} nats" for dimension in order]
    label_cells(chart.axes[0], rows=names, columns=[f"{value:g}" for value in steps])
    return chart


@figure
def interpolations(vae: VAE, images: Tensor) -> Figure:
    """Ways from one picture's code to another's, for five pairs: straight, and on a sphere (arXiv 1609.04468).

    Args:
        vae: the model.
        images: [N, C, H, W], values in [0, 1]; the first ten make the pairs.

    Raises:
        NotApplicable: there are fewer than two pictures.
    """
    pairs = min(5, len(images) // 2)
    if not pairs:
        raise NotApplicable("interpolations needs at least two pictures")
    z, steps = codes(vae, images[: 2 * pairs])[0], torch.linspace(0, 1, 11)
    ways = {"straight": torch.lerp, "spherical": slerp} if vae.latent_dim > 1 else {"straight": torch.lerp}
    rows = []
    for one in range(0, 2 * pairs, 2):
        for way in ways.values():
            path = torch.stack([way(z[one], z[one + 1], step) for step in steps])
            ends = rgb(images[one : one + 2])
            rows.append(torch.cat([ends[:1], decoded(vae, path), ends[1:]]))
    chart = framed(
        mosaic(torch.cat(rows), len(steps) + 2), "Interpolations between the codes of two pictures", left=90, top=80
    )
    columns = ["from", *(f"{step:.1f}" for step in steps), "to"]
    label_cells(chart.axes[0], rows=[*ways] * pairs, columns=columns)
    return chart


@figure
def learning_curve(history: History) -> Figure:
    """Bound, reconstruction and KL after each epoch of a run, in training and validation.

    Args:
        history: the run's curves.

    Raises:
        NotApplicable: there are none.
    """
    bounds = {
        "train/elbo": "training",
        "train/importance_bound": "training, importance-weighted",
        "val/elbo": "validation",
    }
    quantities = {
        "Bound": bounds,
        "Reconstruction": {"train/reconstruction": "training", "val/reconstruction": "validation"},
        "KL": {"train/kl": "training", "val/kl": "validation"},
    }
    if not history.keys() & bounds.keys():
        raise NotApplicable("learning_curve needs the curves that TensorBoard keeps; this run's folder has none")
    chart = Figure(figsize=(15, 5), layout="constrained")
    for axes, (quantity, tags) in zip(chart.subplots(1, 3), quantities.items(), strict=True):
        for tag, name in tags.items():
            if tag in history:
                style = "--" if name == "validation" else "-"
                axes.plot(*zip(*history[tag].items(), strict=True), style, marker=".", markevery=[-1], label=name)
        axes.set(title=quantity, xlabel="epoch", ylabel="nats per picture")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
    return chart


@figure
def learning_curves(histories: Mapping[str, History]) -> Figure:
    """The bound of several runs over the training pictures seen, as in the paper's Figure 2.

    Args:
        histories: the curves of each run, by its name.

    Raises:
        NotApplicable: there are none.
    """
    curves = {name: history for name, history in histories.items() if "pictures_seen" in history}
    if not curves:
        raise NotApplicable("learning_curves needs the curves that TensorBoard keeps; these runs' folders have none")
    chart = Figure(figsize=(10, 6.5), layout="constrained")
    axes = chart.subplots()
    for (name, history), colour in zip(curves.items(), cycle(matplotlib.color_sequences[COLOURS]), strict=False):
        for tag, style in (("train/elbo", "-"), ("train/importance_bound", "-"), ("val/elbo", "--")):
            if tag in history:
                seen = [history["pictures_seen"][epoch] for epoch in history[tag]]
                axes.plot(seen, history[tag].values(), style, color=colour, label=name if style == "-" else None)
    axes.plot([], [], "-", color="grey", label="training")
    axes.plot([], [], "--", color="grey", label="validation")
    axes.set(title="Learning curves", xscale="log", xlabel="training pictures seen", ylabel="bound, nats per picture")
    axes.legend()
    return chart


@figure
def latent_usage(vae: VAE, images: Tensor) -> Figure:
    """The mean KL of each latent variable, sorted, and which of them are active.

    Args:
        vae: the model.
        images: [N, C, H, W], values in [0, 1].
    """
    z, kl = codes(vae, images)
    order = kl.argsort(descending=True).tolist()
    used = active(z)[order]
    chart = Figure(figsize=(min(16, max(6, 2 + 0.4 * vae.latent_dim)), 5), layout="constrained")
    axes, places = chart.subplots(), torch.arange(vae.latent_dim)
    looks = {"active: the data moves it": (used, {}), "not active": (~used, {"fill": False, "hatch": "///"})}
    for name, (chosen, look) in looks.items():
        if chosen.any():
            axes.bar(places[chosen], kl[order][chosen], label=name, **look)
    if vae.latent_dim <= MOST_ROWS:
        axes.set_xticks(places, [name_of(dimension) for dimension in order])
    title = f"{used.sum()} of {vae.latent_dim} latent variables are active; {kl.sum():.1f} nats in all"
    axes.set(title=title, xlabel="latent variable, by KL", ylabel="mean KL, nats per picture", ymargin=0.2)
    axes.legend(loc="upper right")
    return chart


@figure
def training_film(frames: Mapping[int, Tensor]) -> list[Image.Image]:
    """What the model drew after each epoch, from the same codes throughout.

    Args:
        frames: by epoch, counted from 1, what `frame` made of the model, uint8 [3, H, W].

    Raises:
        NotApplicable: there are none.
    """
    if not frames:
        raise NotApplicable("training_film needs the frames that training keeps; this run's folder has none")
    film = []
    for epoch, picture in frames.items():
        sides = picture.shape[1:]
        still = framed(enlarged(picture, 480 * min(sides) // max(sides)), f"After epoch {epoch}")
        film.append(drawn(still))
    return film


def frame(vae: VAE) -> Tensor:
    """What a film shows of one epoch: the manifold where it can be drawn, else samples; uint8 [3, H, W]."""
    at_most = max(4, 800 // max(vae.image_shape[1:]))  # of large pictures there are fewer
    if vae.latent_dim <= 2:
        return manifold_grid(vae, latent_steps(grid_size=min(10, at_most)), at_least=1)
    return sample_grid(vae, min(8, at_most) ** 2, min(8, at_most), at_least=1)


@torch.no_grad()
def reconstruction_grid(vae: VAE, images: Tensor, at_least: int = 72) -> Tensor:
    """Pairs of original and reconstruction, five in a row: uint8 [3, H, W]."""
    pairs = torch.stack([rgb(images, at_least), rgb(vae.reconstruct(images), at_least)], dim=1)
    pairs = torch.stack([make_grid(pair, nrow=2, padding=2, pad_value=1) for pair in pairs])
    return mosaic(pairs, 5, padding=8)


@torch.no_grad()
def sample_grid(vae: VAE, num_samples: int = 64, grid_width: int = 8, at_least: int = 72) -> Tensor:
    """Decoded draws from p(z), the same each time: uint8 [3, H, W]."""
    z = torch.randn(num_samples, vae.latent_dim, generator=torch.Generator().manual_seed(0))
    return mosaic(decoded(vae, z, at_least), grid_width)


@torch.no_grad()
def manifold_grid(vae: VAE, steps: Tensor, at_least: int = 48) -> Tensor:
    """The latent plane, or line, decoded at these steps: uint8 [3, H, W]."""
    axes = [steps] if vae.latent_dim == 1 else [steps, steps.flip(0)]  # to the right, and up
    z = torch.stack(torch.meshgrid(*axes, indexing="xy"), dim=-1)  # row, column, Z
    return mosaic(decoded(vae, z.view(-1, vae.latent_dim), at_least), len(steps))


def latent_steps(grid: str = "quantiles", extent: float = 3.0, grid_size: int = 20) -> Tensor:
    """Steps along a latent variable, [grid_size]: at the middles of equal shares of the prior, or even ones."""
    if grid == "linspace":
        return torch.linspace(-extent, extent, grid_size)
    return torch.special.ndtri((torch.arange(grid_size) + 0.5) / grid_size)


def name_of(dimension: int) -> str:
    """A latent variable's name: z₁ is the first."""
    return "z" + str(dimension + 1).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def slerp(one: Tensor, other: Tensor, step: Tensor) -> Tensor:
    """From one code [Z] to another on the arc between them; straight where both lie on one line."""
    cosine = torch.nn.functional.cosine_similarity(one, other, dim=0).clamp(-1, 1)
    angle = cosine.acos()
    if angle.sin() < 1e-4:
        return torch.lerp(one, other, step)
    return (((1 - step) * angle).sin() * one + (step * angle).sin() * other) / angle.sin()


def codes(vae: VAE, images: Tensor) -> tuple[Tensor, Tensor]:
    """The posterior's mean of every picture, [N, Z], and the mean KL of every latent variable, [Z], nats."""
    posteriors = [vae.encode(some) for some in images.split(1_000)]
    kl = torch.cat([vae.kl_per_dimension(q_z) for q_z in posteriors])
    return torch.cat([q_z.mean for q_z in posteriors]).cpu(), kl.mean(0).cpu()


def decoded(vae: VAE, z: Tensor, at_least: int = 72) -> Tensor:
    """The pictures of codes [N, Z], enlarged: [N, 3, H, W]."""
    return rgb(vae.picture(z.to(vae.origin.device)), at_least)


def rgb(pictures: Tensor, at_least: int = 72) -> Tensor:
    """Pictures [N, C, H, W] in three channels, each side enlarged to so many pixels at least: [N, 3, H, W]."""
    return enlarged(pictures.cpu(), at_least).expand(-1, 3, -1, -1)


def enlarged(pictures: Tensor, at_least: int) -> Tensor:
    """Pictures [..., H, W] enlarged by the smallest whole number that brings the shorter side to so many pixels."""
    factor = -(-at_least // min(pictures.shape[-2:]))
    return pictures.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)


def in_colour(errors: Tensor) -> Tensor:
    """Numbers from 0 to 1, [N, H, W], as colours, enlarged: [N, 3, H, W]."""
    colours = matplotlib.colormaps["cividis"](errors.cpu().numpy())[..., :3]
    return rgb(torch.from_numpy(colours).float().permute(0, 3, 1, 2))


def mosaic(pictures: Tensor, columns: int, padding: int = 2) -> Tensor:
    """Pictures [N, 3, H, W] row by row on white: uint8 [3, H, W]."""
    return make_grid(pictures, nrow=columns, padding=padding, pad_value=1).mul(255).round().to(torch.uint8)


def framed(picture: Tensor, title: str, left: int = 20, right: int = 20, top: int = 50, bottom: int = 20) -> Figure:
    """A figure of one axes with the picture, uint8 [3, H, W], pixel by pixel, under a title; margins in pixels."""
    _, high, wide = picture.shape
    spare = max(0, 640 - left - wide - right) // 2  # room for the title
    width, height = left + wide + right + 2 * spare, top + high + bottom
    chart = Figure(figsize=(width / DPI, height / DPI))
    axes = chart.add_axes(((left + spare) / width, bottom / height, wide / width, high / height))
    axes.imshow(picture.permute(1, 2, 0), interpolation="nearest", aspect="auto")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.grid(False)
    chart.suptitle(title, y=1 - 12 / height)
    return chart


def label_cells(axes: Axes, rows: Sequence[str], columns: Sequence[str], bottom: bool = False) -> None:
    """Name the rows and columns of a mosaic: on the left, and above or below it."""
    high, wide = axes.images[0].get_size()
    rows = [name if len(name) <= 14 else f"{name[:13]}…" for name in rows]
    axes.set_xticks([(place + 0.5) * wide / len(columns) - 0.5 for place in range(len(columns))], columns)
    axes.set_yticks([(place + 0.5) * high / len(rows) - 0.5 for place in range(len(rows))], rows)
    axes.tick_params(length=0, bottom=bottom, labelbottom=bottom, labeltop=not bottom)


def scatter(axes: Axes, points: Tensor, labels: Tensor | None, classes: Sequence[str] | None) -> None:
    """Points [N, 2], in their order; where there are labels in their colours, each name in their midst."""
    look = {"s": min(30.0, max(6.0, 40_000 / len(points))), "alpha": 0.7, "linewidths": 0}
    if labels is None:
        axes.scatter(*points.T, **look)
        return
    labels, palette = labels.tolist(), matplotlib.color_sequences[COLOURS]
    axes.scatter(*points.T, c=[palette[label % len(palette)] for label in labels], **look)
    for label in sorted(set(labels)):
        axes.scatter([], [], s=40, color=palette[label % len(palette)], label=f" {classes[label]}")
        midst = points[torch.tensor(labels) == label].median(0).values.tolist()
        box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "alpha": 0.8, "linewidth": 0}
        axes.annotate(classes[label], midst, ha="center", va="center", bbox=box)


def render(name: str, material: Mapping[str, Callable[[], Any]]) -> tuple[str, bytes]:
    """The figure of that name, as the end of a file's name and its content: a PNG, or of a film a GIF.

    Args:
        name: one of FIGURES.
        material: what gets each argument that a figure may have.

    Raises:
        NotApplicable: from the figure.
    """
    shown = FIGURES[name](**{part: material[part]() for part in signature(FIGURES[name]).parameters})
    content = BytesIO()
    if isinstance(shown, Figure):
        drawn(shown).save(content, "png")
        return "png", content.getvalue()
    milliseconds = [120] * (len(shown) - 1) + [2_000]
    shown[0].save(content, "gif", save_all=True, append_images=shown[1:], duration=milliseconds, loop=0)
    return "gif", content.getvalue()


def drawn(chart: Figure) -> Image.Image:
    """A figure as pixels."""
    canvas = FigureCanvasAgg(chart)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
