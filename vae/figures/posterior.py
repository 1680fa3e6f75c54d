"""Equation 1, log p(x) = ELBO + KL(q(z|x) || p(z|x)), for two latent variables, where each of its terms is known."""

from typing import Annotated

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from torch import Tensor

from vae import marginal
from vae.figures.drawing import NotApplicable, latent_name, to_cells
from vae.likelihoods import LogitLikelihood
from vae.model import DECODER_CHUNK, VAE, reparameterize

NUM_IMAGES = 6
COLUMNS = 3
TOLERANCE = 0.002  # nats of log p(x): two decimals are right
MAX_HALVINGS = 6  # of the step at which the place of p(z|x) is looked for
RESOLVED = 2.0  # tiles in the box around its mass
DEPTH = 6.0  # nats below the highest density, to which it is shown: of a Gaussian 99.8 % of the mass
MAX_STEPS, MIN_STEPS = 120, 50  # of the density along each axis
MAX_PARAMETERS = 2**25  # of p(x|z), in the picture of one density
REACH = 6  # standard deviations of q(z|x) to either side, over which expectations are taken


def posterior(vae: VAE, images: Annotated[Tensor, NUM_IMAGES]) -> Figure:
    """The true posterior p(z|x) as a density, one and two sigma of q(z|x), and equation 1 in numbers, for six images.

    log p(x) and the ELBO are integrals, each on a grid of its own, and the KL divergence is their difference. Where the
    log-density is not linear in the image, which takes a minute, there are three images.

    Args:
        vae: the model, of two latent variables.
        images: [N, C, H, W], values in [0, 1]; the first ones are shown.

    Raises:
        NotApplicable: the latent space does not have two dimensions.
    """
    if vae.latent_dim != 2:
        raise NotApplicable(f"posterior needs a latent space of 2 dimensions; this model has {vae.latent_dim}")
    x = images[: NUM_IMAGES if isinstance(vae.likelihood, LogitLikelihood) else COLUMNS]
    q_z, found = vae.encode(x), marginal.quadrature(vae, x, tolerance=TOLERANCE)
    bounds, corners = expected_log_weight(vae, x), views(vae, x)
    columns = min(COLUMNS, len(x))
    rows = -(-len(x) // columns)
    chart = Figure(figsize=(max(9.0, 4.2 * columns), 4.4 * rows + 0.6), layout="constrained")
    panels = chart.subplots(rows, columns, squeeze=False).flatten()
    for k, axes in enumerate(panels[: len(x)]):
        true, guess = densities(vae, x[k : k + 1], corners[k])
        extent = corners[k].T.flatten().tolist()
        axes.imshow(true, origin="lower", extent=extent, cmap="Blues", interpolation="bilinear")
        draw_ellipses(axes, q_z.mean[k].cpu(), q_z.stddev[k].cpu())
        draw_image(axes, x[k], true + guess)
        equation = equation_1(found.log_marginal[k].item(), bounds[k].item(), found.bias[k].item())
        axes.set(title=equation, xlabel=latent_name(0), ylabel=latent_name(1))
    for axes in panels[len(x) :]:
        axes.set_axis_off()
    chart.suptitle("log p(x) = ELBO + KL(q(z|x) ‖ p(z|x)) in nats; blue: the true posterior, red: one and two σ of q")
    return chart


def equation_1(log_marginal: float, bound: float, error: float) -> str:
    """The equation in numbers of two decimals that add up, and its error where these do not hold it."""
    log_marginal, bound = round(log_marginal, 2), round(bound, 2)
    doubt = f"  (± {error:.2g})" if error > 0.01 else ""
    return f"{log_marginal:.2f} = {bound:.2f} + {log_marginal - bound:.2f}{doubt}"


def expected_log_weight(vae: VAE, x: Tensor) -> Tensor:
    """The ELBO, E[log p(x, z) - log q(z|x)] over q(z|x), by the midpoint rule in units of q's scale: [B], nats."""
    u = 2 * REACH * marginal.midpoints(8 * REACH, 2).to(x.device)
    weights = (-0.5 * u.square().sum(-1)).softmax(0)
    q_z = vae.encode(x)
    return weights @ vae.log_weights(x, q_z, reparameterize(q_z, u.unsqueeze(1).expand(-1, len(x), -1)))


def views(vae: VAE, x: Tensor) -> Tensor:
    """The square around the mass of p(z|x) and of q(z|x), by its lowest and highest corner: [B, 2, Z]."""
    q_z, wanted = vae.encode(x), torch.ones(len(x), dtype=torch.bool, device=x.device)
    grid = marginal.Grid(vae, x, marginal.TILE_WIDTH[2])
    grid.widen()
    low, high = grid.boxes(DEPTH)
    for _ in range(MAX_HALVINGS):
        wanted &= (high - low).amax(1) < RESOLVED * grid.width
        if not wanted.any():
            break
        grid = marginal.Grid(vae, x, grid.width / 2).add(grid.divided(wanted))
        low, high = (
            torch.where(wanted.unsqueeze(1), new, old) for new, old in zip(grid.boxes(DEPTH), (low, high), strict=True)
        )
    low = torch.minimum(low, q_z.mean - 2.5 * q_z.stddev)
    high = torch.maximum(high, q_z.mean + 2.5 * q_z.stddev)
    middle, half = (low + high) / 2, (high - low).amax(1, keepdim=True) / 2
    return torch.stack([middle - half, middle + half], dim=1)


def densities(vae: VAE, x: Tensor, corners: Tensor) -> tuple[Tensor, Tensor]:
    """p(z|x) and q(z|x) of an image [1, C, H, W] in a view [2, Z], by their highest values: [S, S], with z_2 by rows.

    The more p(x|z) costs, the fewer steps there are.
    """
    steps = max(MIN_STEPS, min(MAX_STEPS, round((MAX_PARAMETERS / vae.likelihood.num_parameters) ** 0.5)))
    z = corners.mean(0) + (corners[1] - corners[0]) * marginal.midpoints(steps, 2).to(corners)
    parts = z.split(max(1, DECODER_CHUNK // vae.likelihood.num_parameters))
    log_p = torch.cat([marginal.log_joint_of_all(vae, x, some) for some in parts])[:, 0]
    true, guess = ((each - each.max()).exp().view(steps, steps).T.cpu() for each in (log_p, vae.encode(x).log_prob(z)))
    return true, guess


def draw_ellipses(axes: Axes, mean: Tensor, scale: Tensor) -> None:
    """One and two standard deviations of q(z|x), [Z] each."""
    for times in (1, 2):
        width, height = (2 * times * scale).tolist()
        axes.add_patch(Ellipse(mean.tolist(), width, height, fill=False, ec="#dc2626", lw=1.5))


def draw_image(axes: Axes, image: Tensor, occupied: Tensor) -> None:
    """The image [C, H, W] in that corner of the axes where a density, [z_2, z_1], is least."""
    share, near = 0.26, round(0.3 * len(occupied))
    ends = {0: slice(None, near), 1: slice(-near, None)}
    left, low = min(((i, j) for i in ends for j in ends), key=lambda end: occupied[ends[end[1]], ends[end[0]]].max())
    corner = axes.inset_axes((0.02 + left * (0.96 - share), 0.02 + low * (0.96 - share), share, share))
    corner.imshow(to_cells(image.unsqueeze(0), image.shape[1:])[0].permute(1, 2, 0), interpolation="nearest")
    corner.set(xticks=[], yticks=[])
