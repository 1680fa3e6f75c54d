"""Figures of the latent space: the manifold, the codes, ways through it, and which of its dimensions are used."""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from jsonargparse.typing import PositiveFloat, PositiveInt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from vae.colours import label_colours
from vae.figures.drawing import (
    CAPTION_MARGIN,
    MAX_GRID_SIDE,
    MAX_ROWS,
    NotApplicable,
    cell_size,
    image_figure,
    image_grid,
    label_cells,
    latent_name,
    make_cells,
    shorten_apart,
    text_width,
    to_cells,
)
from vae.metrics import ACTIVE_THRESHOLD, is_active
from vae.model import VAE

MAX_NAMES = 25  # classes named in the plane and in one column of a legend
MAX_LEGEND = 4 * MAX_NAMES
COLLAPSED = 1e-6  # a standard deviation of posterior means that is rounding alone


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
    chart = image_figure(manifold_grid(vae, steps), f"Learned manifold, {spacing}", left=80, bottom=50 + CAPTION_MARGIN)
    (axes,) = chart.axes
    names = [f"{z:.2f}" for z in steps]
    label_cells(axes, rows=names[::-1] if vae.latent_dim == 2 else [""], columns=names, bottom=True)
    axes.tick_params(labelsize=9)
    axes.set_xlabel(latent_name(0))
    axes.set_ylabel(latent_name(1) if vae.latent_dim == 2 else "")
    return chart


def latent_scatter(
    vae: VAE,
    images: Annotated[Tensor, 10_000],
    labels: Annotated[Tensor | None, 10_000],
    classes: Sequence[str] | None,
    *,
    tsne_points: PositiveInt = 2_000,
) -> Figure:
    """The posterior's means, coloured by label: as they are up to two dimensions, above that arranged by t-SNE.

    Args:
        vae: the model.
        images: [N, C, H, W], values in [0, 1].
        labels: [N], indices into `classes`, or None.
        classes: the labels' names, or None.
        tsne_points: How many images t-SNE arranges, the first ones; its time grows with them.

    Raises:
        NotApplicable: above two dimensions there are too few images to arrange, or their means are all equal.
    """
    z, _ = encode_images(vae, images)
    if vae.latent_dim > 2 and len(z[:tsne_points]) < 4:
        raise NotApplicable("latent_scatter needs at least four images where there are more than two dimensions")
    if vae.latent_dim > 2 and z[:tsne_points].std(0).max() < COLLAPSED:  # t-SNE would crash the interpreter
        raise NotApplicable("latent_scatter needs posterior means that differ; this posterior has collapsed")
    if vae.latent_dim == 1:
        aside = torch.rand(len(z), 1, generator=torch.Generator().manual_seed(0))
        points, names = torch.cat([z, aside], 1), (latent_name(0), "scattered at random")
    elif vae.latent_dim == 2:
        points, names = z, (latent_name(0), latent_name(1))
    else:
        from sklearn.manifold import TSNE  # here, since its import takes a second

        some = z[:tsne_points]
        tsne = TSNE(perplexity=min(30.0, (len(some) - 1) / 3), init="pca", random_state=0)
        points, names = torch.from_numpy(tsne.fit_transform(some)), ("t-SNE 1, no unit", "t-SNE 2, no unit")
    chart = Figure(figsize=(8, 7), layout="constrained")
    axes = chart.subplots()
    title = f"{'t-SNE of the posterior' if vae.latent_dim > 2 else 'Posterior'} means of {len(points):,} images"
    axes.set(title=title, xlabel=names[0], ylabel=names[1])
    if vae.latent_dim > 1:
        axes.set_aspect("equal", adjustable="datalim")
    scatter(axes, points, None if labels is None else labels[: len(points)], classes)
    return chart


def traversals(vae: VAE, images: Annotated[Tensor, 2_000]) -> Figure:
    """One row a latent variable, most active first: it goes from -3 to 3, the others stay at the first image's code.

    Args:
        vae: the model.
        images: [N, C, H, W], values in [0, 1], over which the mean KL of a variable is taken.
    """
    z, kl = encode_images(vae, images)
    order = kl.argsort(descending=True)[:MAX_ROWS].tolist()
    steps = torch.linspace(-3, 3, 13)
    paths = z[0].repeat(len(order), len(steps), 1)  # row, column, Z
    for row, dimension in enumerate(order):
        paths[row, :, dimension] = steps
    title = "Traversals: one latent variable changes, the others stay at the code of the image at the top left"
    model = vae.given(None if vae.labels is None else vae.labels.flatten()[0])  # of that image's label
    size = cell_size(vae.image_shape, len(order) * len(steps), len(steps))
    grid = image_grid(make_cells(model, VAE.generate, paths.flatten(0, 1), size), len(steps))
    chart = image_figure(grid, title, left=150, top=100)
    (axes,) = chart.axes
    names = [f"{latent_name(dimension)}  {kl[dimension]:.2f} nats" for dimension in order]
    label_cells(axes, rows=names, columns=[f"{value:g}" for value in steps])
    _, high, wide = grid.shape
    corner = axes.inset_axes([-100 / wide, 1 + 8 / high, 72 / wide, 72 / high])
    corner.imshow(to_cells(images[:1], size)[0].permute(1, 2, 0), interpolation="nearest")
    corner.set_axis_off()
    return chart


def interpolations(vae: VAE, images: Annotated[Tensor, 10]) -> Figure:
    """Ways from one image's code to another's, for five pairs: straight, and on a sphere (arXiv 1609.04468).

    Args:
        vae: the model.
        images: [N, C, H, W], values in [0, 1]; the first ten make the pairs.

    Raises:
        NotApplicable: there are fewer than two images.
    """
    pairs = min(5, len(images) // 2)
    if not pairs:
        raise NotApplicable("interpolations needs at least two images")
    z, steps = encode_images(vae, images[: 2 * pairs])[0], torch.linspace(0, 1, 11)
    ways = {"straight": torch.lerp, "spherical": slerp} if vae.latent_dim > 1 else {"straight": torch.lerp}
    columns = ["from", *(f"{step:.1f}" for step in steps), "to"]
    rows, size = [], cell_size(vae.image_shape, len(ways) * pairs * len(columns), len(columns))
    for one in range(0, 2 * pairs, 2):
        for way in ways.values():
            path = torch.stack([way(z[one], z[one + 1], step) for step in steps])
            ends = to_cells(images[one : one + 2], size)
            rows.append(torch.cat([ends[:1], make_cells(vae, VAE.generate, path, size), ends[1:]]))
    title = "Interpolations between the codes of two images"
    chart = image_figure(image_grid(torch.cat(rows), len(columns)), title, left=90, top=80)
    label_cells(chart.axes[0], rows=[*ways] * pairs, columns=columns)
    return chart


def latent_usage(vae: VAE, images: Annotated[Tensor, 10_000]) -> Figure:
    """The mean KL of each latent variable, sorted, and which of them are active.

    Args:
        vae: the model.
        images: [N, C, H, W], values in [0, 1].

    Raises:
        NotApplicable: there are only one or two latent variables, whose plane says more.
    """
    if vae.latent_dim <= 2:
        raise NotApplicable(
            f"latent_usage compares more than two latent variables; this model has {vae.latent_dim}: see latent_scatter"
        )
    z, kl = encode_images(vae, images)
    order = kl.argsort(descending=True).tolist()
    used = is_active(z)[order]
    chart = Figure(figsize=(min(16, max(7, 2 + 0.4 * vae.latent_dim)), 5), layout="constrained")
    axes, places = chart.subplots(), torch.arange(vae.latent_dim)
    active = f"active: variance of the posterior means above {ACTIVE_THRESHOLD}"
    looks = {active: (used, {}), "not active": (~used, {"fill": False, "hatch": "///"})}
    for name, (chosen, look) in looks.items():
        if chosen.any():
            axes.bar(places[chosen], kl[order][chosen], label=name, **look)
    if vae.latent_dim <= MAX_ROWS:
        axes.set_xticks(places, [latent_name(dimension) for dimension in order])
    title = f"{used.sum()} of {vae.latent_dim} latent variables are active; {kl.sum():.1f} nats in all"
    axes.set(title=title, xlabel="latent variable, by KL", ylabel="mean KL, nats per image", ymargin=0.2)
    axes.legend(loc="upper right")
    return chart


@torch.no_grad()
def manifold_grid(vae: VAE, steps: Tensor, at_least: int = 48, at_most: int = MAX_GRID_SIDE) -> Tensor:
    """The latent plane, or line, decoded at these steps, without space between the images: uint8 [3, H, W]."""
    size = cell_size(vae.image_shape, len(steps) ** vae.latent_dim, len(steps), at_least, spacing=0, at_most=at_most)
    axes = [steps] if vae.latent_dim == 1 else [steps, steps.flip(0)]  # to the right, and up
    z = torch.stack(torch.meshgrid(*axes, indexing="xy"), dim=-1)  # row, column, Z
    return image_grid(make_cells(vae, VAE.generate, z.view(-1, vae.latent_dim), size), len(steps), spacing=0)


def latent_steps(grid: str = "quantiles", extent: float = 3.0, grid_size: int = 20) -> Tensor:
    """Steps along a latent variable, [grid_size]: at the middles of equal shares of the prior, or even ones."""
    if grid == "linspace":
        return torch.linspace(-extent, extent, grid_size)
    return torch.special.ndtri((torch.arange(grid_size) + 0.5) / grid_size)


def slerp(one: Tensor, other: Tensor, step: Tensor) -> Tensor:
    """From one code [Z] to another at even angles, while the length goes evenly from the one's to the other's.

    Zero has the other code's direction. Between opposite codes, where no arc is the shortest, it is the one by way of
    the axis that is most across them.
    """
    radii = one.norm(), other.norm()
    start, end = normalize(one, dim=0), normalize(other, dim=0)
    start, end = (start if radii[0] else end), (end if radii[1] else start)
    across = end - (start @ end) * start
    angle = torch.atan2(across.norm(), start @ end)
    if across.norm() < 1e-6:
        axis = one_hot(start.abs().argmin(), len(start)).to(start)
        across = axis - (start @ axis) * start
    direction = (step * angle).cos() * start + (step * angle).sin() * normalize(across, dim=0)
    return torch.lerp(*radii, step) * direction


def encode_images(vae: VAE, images: Tensor) -> tuple[Tensor, Tensor]:
    """The posterior's mean of every image, [N, Z], and the mean KL of every latent variable, [Z], nats."""
    posteriors = [model.encode(batch) for model, batch in vae.batches(images)]
    kl = torch.cat([vae.kl_per_dimension(q_z) for q_z in posteriors])
    return torch.cat([q_z.mean for q_z in posteriors]).cpu(), kl.mean(0).cpu()


def scatter(axes: Axes, points: Tensor, labels: Tensor | None, classes: Sequence[str] | None) -> None:
    """Points [N, 2], in their order; where there are labels in their colours, each name near their middle."""
    look = {"s": min(30.0, max(3.0, 20_000 / len(points))), "alpha": 0.5, "linewidths": 0}
    if labels is None or classes is None:
        axes.scatter(*points.T, **look)
        return
    colours = label_colours(len(classes))
    axes.scatter(*points.T, c=[colours[label] for label in labels.tolist()], **look)
    found = labels.unique().tolist()
    shown = found[:MAX_LEGEND]
    names = shorten_apart([classes[label] for label in shown], 20)
    listed = [(colours[label], name) for label, name in zip(shown, names, strict=True)]
    if len(found) > MAX_LEGEND:
        listed.append(("none", f"and {len(found) - MAX_LEGEND} more"))
    for colour, name in listed:
        axes.scatter([], [], s=40, color=colour, label=f" {name}")
    columns = -(-len(listed) // MAX_NAMES)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), ncols=columns)
    inches = columns * (0.8 + max(text_width(name) for _, name in listed) / 72)
    axes.figure.set_figwidth(7.3 + inches)
    if len(found) > MAX_NAMES:
        return
    names = shorten_apart([classes[label] for label in found], 14)
    middles = torch.stack([points[labels == label].median(0).values for label in found])
    extent = points.amax(0) - points.amin(0)
    inches = torch.tensor([[text_width(name) / 72 + 0.12, 0.28] for name in names])  # of a name in its box
    if axes.get_aspect() != "auto":
        extent = extent.max()
    for name, place in zip(names, spread(middles, inches * extent / 6), strict=True):  # the axes are 6 inches wide
        box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "alpha": 0.8, "linewidth": 0}
        axes.annotate(name, place.tolist(), ha="center", va="center", bbox=box)


def spread(centres: Tensor, sizes: Tensor) -> Tensor:
    """The centres [N, 2] of boxes of these sizes [N, 2], moved apart until no two boxes overlap."""
    order = torch.arange(len(centres))
    tie = (order[:, None] - order).sign()[..., None]  # which of two boxes at one place moves which way
    for _ in range(1_000):
        offset = centres[:, None] - centres  # box, other box, axis
        overlap = (sizes[:, None] + sizes) / 2 - offset.abs()
        collide = (overlap > 0).all(-1) & (tie[..., 0] != 0)
        if not collide.any():
            break
        shorter = one_hot(overlap.argmin(-1), 2)  # they move along the axis where it is least
        direction = torch.where(offset == 0, tie, offset.sign())
        centres = centres + 0.51 * (direction * overlap * shorter * collide[..., None]).sum(1)
    return centres
