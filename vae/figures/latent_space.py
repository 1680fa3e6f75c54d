"""Figures of the latent space: the manifold, the codes, ways through it, and which of its dimensions are used."""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from jsonargparse.typing import PositiveFloat, PositiveInt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from vae.figures.drawing import (
    CAPTION_MARGIN,
    COLOURS,
    NotApplicable,
    decode_images,
    image_figure,
    image_grid,
    label_cells,
    latent_name,
    shorten,
    to_rgb,
)
from vae.metrics import ACTIVE_THRESHOLD, is_active
from vae.model import VAE

MAX_ROWS = 40
MAX_NAMES = 25  # classes named in the plane and in one column of a legend
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
    """The posterior's means, coloured by label: as they are up to two dimensions, above that by PCA and by t-SNE.

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
        maps = [
            (torch.cat([z, aside], 1), f"Posterior means of {len(z):,} images", latent_name(0), "scattered at random")
        ]
    elif vae.latent_dim == 2:
        maps = [(z, f"Posterior means of {len(z):,} images", latent_name(0), latent_name(1))]
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
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), ncols=-(-len(labels.unique()) // MAX_NAMES))
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
    grid = image_grid(decode_images(vae, paths.flatten(0, 1)), len(steps))
    chart = image_figure(grid, title, left=150, top=100)
    (axes,) = chart.axes
    names = [f"{latent_name(dimension)}  {kl[dimension]:.2f} nats" for dimension in order]
    label_cells(axes, rows=names, columns=[f"{value:g}" for value in steps])
    _, high, wide = grid.shape
    corner = axes.inset_axes([-100 / wide, 1 + 8 / high, 72 / wide, 72 / high])
    corner.imshow(to_rgb(images[:1])[0].permute(1, 2, 0), interpolation="nearest")
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
    rows = []
    for one in range(0, 2 * pairs, 2):
        for way in ways.values():
            path = torch.stack([way(z[one], z[one + 1], step) for step in steps])
            ends = to_rgb(images[one : one + 2])
            rows.append(torch.cat([ends[:1], decode_images(vae, path), ends[1:]]))
    chart = image_figure(
        image_grid(torch.cat(rows), len(steps) + 2), "Interpolations between the codes of two images", left=90, top=80
    )
    columns = ["from", *(f"{step:.1f}" for step in steps), "to"]
    label_cells(chart.axes[0], rows=[*ways] * pairs, columns=columns)
    return chart


def latent_usage(vae: VAE, images: Annotated[Tensor, 10_000]) -> Figure:
    """The mean KL of each latent variable, sorted, and which of them are active.

    Args:
        vae: the model.
        images: [N, C, H, W], values in [0, 1].
    """
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
def manifold_grid(vae: VAE, steps: Tensor, at_least: int = 48) -> Tensor:
    """The latent plane, or line, decoded at these steps, without space between the images: uint8 [3, H, W]."""
    axes = [steps] if vae.latent_dim == 1 else [steps, steps.flip(0)]  # to the right, and up
    z = torch.stack(torch.meshgrid(*axes, indexing="xy"), dim=-1)  # row, column, Z
    return image_grid(decode_images(vae, z.view(-1, vae.latent_dim), at_least), len(steps), spacing=0)


def latent_steps(grid: str = "quantiles", extent: float = 3.0, grid_size: int = 20) -> Tensor:
    """Steps along a latent variable, [grid_size]: at the middles of equal shares of the prior, or even ones."""
    if grid == "linspace":
        return torch.linspace(-extent, extent, grid_size)
    return torch.special.ndtri((torch.arange(grid_size) + 0.5) / grid_size)


def slerp(one: Tensor, other: Tensor, step: Tensor) -> Tensor:
    """From one code [Z] to another on the arc between them; straight where both lie on one line."""
    cosine = torch.nn.functional.cosine_similarity(one, other, dim=0).clamp(-1, 1)
    angle = cosine.acos()
    if angle.sin() < 1e-4:
        return torch.lerp(one, other, step)
    return (((1 - step) * angle).sin() * one + (step * angle).sin() * other) / angle.sin()


def encode_images(vae: VAE, images: Tensor) -> tuple[Tensor, Tensor]:
    """The posterior's mean of every image, [N, Z], and the mean KL of every latent variable, [Z], nats."""
    posteriors = [vae.encode(some) for some in images.split(1_000)]
    kl = torch.cat([vae.kl_per_dimension(q_z) for q_z in posteriors])
    return torch.cat([q_z.mean for q_z in posteriors]).cpu(), kl.mean(0).cpu()


def scatter(axes: Axes, points: Tensor, labels: Tensor | None, classes: Sequence[str] | None) -> None:
    """Points [N, 2], in their order; where there are labels in their colours, each name near their middle."""
    look = {"s": min(30.0, max(3.0, 20_000 / len(points))), "alpha": 0.5, "linewidths": 0}
    if labels is None or classes is None:
        axes.scatter(*points.T, **look)
        return
    colours = COLOURS if len(classes) <= len(COLOURS) else colormaps["turbo"](torch.linspace(0, 1, len(classes)))
    axes.scatter(*points.T, c=[colours[label] for label in labels.tolist()], **look)
    found = labels.unique().tolist()
    for label in found:
        axes.scatter([], [], s=40, color=colours[label], label=f" {classes[label]}")
    if len(found) > MAX_NAMES:
        return
    names = [shorten(classes[label], 14) for label in found]
    middles = torch.stack([points[labels == label].median(0).values for label in found])
    extent = points.amax(0) - points.amin(0)
    inches = torch.tensor([[0.1 * len(name) + 0.12, 0.28] for name in names])  # of a name in its box
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
        shorter = torch.nn.functional.one_hot(overlap.argmin(-1), 2)  # they move along the axis where it is least
        direction = torch.where(offset == 0, tie, offset.sign())
        centres = centres + 0.51 * (direction * overlap * shorter * collide[..., None]).sum(1)
    return centres
