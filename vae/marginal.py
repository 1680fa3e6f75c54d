"""log p(x), the integral of p(x, z) over z, of each image: by quadrature, by annealing, by importance sampling.

The three have one signature: a VAE, images [B, C, H, W], and the number of each image in its split, [B], of which
alone the noise is a function. Each returns an `Estimate`, without gradients, in nats.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from math import inf, log, sqrt
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal
from torch.nn.functional import interpolate

from vae import hmc
from vae.choices import check_number, check_whole
from vae.model import NOISE_CHUNK, VAE, reparameterize
from vae.noise import counter_normal, derive_seed, seeded_generators

IMPORTANCE, TRIAL, FORWARD, REVERSE, SIMULATION, POSTERIOR = range(10, 16)  # streams of noise
MAX_PARETO_SHAPE = 0.7  # above it weights are not to be trusted (arXiv 1507.02646, Section 3.2.1)
MIN_TAIL = 5  # the largest weights, of which the shape of their tail can be told
TARGET_ACCEPTANCE = 0.65  # near the optimum of HMC (Neal, arXiv 1206.1901, Section 4.4)

MAX_QUADRATURE_DIM = 3
TILE = {1: 128, 2: 16, 3: 8}  # grid points on each side of a tile, by the number of latent variables
TILE_WIDTH = {1: 6.0, 2: 3.0, 3: 2.0}  # of the first grid's tiles
HALF_WIDTH = 6.0  # of the box: the prior's mass beyond it is 1e-9
MAX_HALF_WIDTH = {1: 96.0, 2: 48.0, 3: 12.0}
NARROWEST = 0.01  # the standard deviation of a posterior that lies between the points of a coarse grid and is not lost
NEGLIGIBLE = 15.0  # nats below the highest density
MAX_HALVINGS = 8


class Estimate(NamedTuple):
    """log p(x) of each image, [B] each, in nats, in double precision.

    log_marginal: the estimate.
    stderr: its standard error from sampling; of a quadrature 0.
    bias: how far it lies below log p(x) in expectation; of a quadrature how far off it may be to either side; infinite
        where this cannot be told.
    details: what else the estimator knows of itself, by name.
    """

    log_marginal: Tensor
    stderr: Tensor
    bias: Tensor
    details: dict[str, Tensor]


def widest_dtype(device: torch.device) -> torch.dtype:
    """Double precision, where there is one."""
    return torch.float32 if device.type == "mps" else torch.float64


# Importance sampling


@torch.no_grad()
def importance_sampling(vae: VAE, x: Tensor, index: Tensor, num_samples: int | Sequence[int] = 100) -> Estimate:
    """Samples from q(z|x) with the weights w = p(x, z) / q(z|x) (arXiv 1509.00519, equation 8).

    Args:
        num_samples: K; or several K, rising. The details have the bound of each, `bound_K`; the estimate is the last.

    Raises:
        ValueError: one of them is no whole number of at least 1, or they do not rise; or as `VAE.elbo`.
    """
    counts = [*num_samples] if isinstance(num_samples, Sequence) else [num_samples]
    for count in counts:
        check_whole("num_samples", count)
    if sorted({*counts}) != counts:
        raise ValueError(f"num_samples: expected rising numbers, got {counts}")
    vae.check_images(x, values=True)
    q_z = vae.encode(x)
    samples = torch.arange(counts[-1], device=x.device).split(NOISE_CHUNK)
    noise = (counter_normal(derive_seed(IMPORTANCE), index, some, vae.latent_dim) for some in samples)
    log_w = torch.cat([vae.log_weights(x, q_z, reparameterize(q_z, eps)) for eps in noise])
    log_w = log_w.to(widest_dtype(log_w.device))
    bounds = {f"bound_{count}": log_w[:count].logsumexp(0) - log(count) for count in counts}
    estimate = from_log_weights(log_w)
    return estimate._replace(details=estimate.details | bounds)


def from_log_weights(log_w: Tensor) -> Estimate:
    """log (1/K) sum w, where E[w] = p(x): a lower bound of log p(x) in expectation. log_w: [K, B].

    The standard error is the delta method's, sd(w) / (sqrt(K) mean(w)), the bias the jackknife's. Both know only of the
    weights that were drawn: where the tail of these is too heavy, or they are too few to tell, the bias is infinite.
    """
    log_w = log_w.to(widest_dtype(log_w.device))
    k = len(log_w)
    log_sum = log_w.logsumexp(0)
    shares = (log_w - log_sum).exp()
    size = 1 / shares.square().sum(0)
    variance = ((1 / size - 1 / k) * (k / (k - 1) if k > 1 else inf)).clamp(min=0)
    without_one = torch.log1p(-shares.clamp(max=1 - 1e-15)).mean(0) + log(k / max(1, k - 1))  # minus the estimate
    shape = pareto_shape(log_w)
    is_known = (shape <= MAX_PARETO_SHAPE) & (k > 1)
    return Estimate(
        log_sum - log(k),
        variance.nan_to_num(inf).sqrt(),
        torch.where(is_known, ((1 - k) * without_one).clamp(min=0), inf),
        {"effective_sample_size": size, "pareto_shape": shape},
    )


def pareto_shape(log_w: Tensor) -> Tensor:
    """k-hat, the shape of a generalised Pareto distribution fitted to the largest weights: [K, B] -> [B].

    Zhang & Stephens (2009) with the prior of Vehtari et al., arXiv 1507.02646, Appendix C. Weights that are all equal
    have -infinity, fewer than MIN_TAIL of them +infinity.
    """
    num_tail = int(min(0.2 * len(log_w), 3 * sqrt(len(log_w))))
    if num_tail < MIN_TAIL:
        return torch.where((log_w == log_w[:1]).all(0) & (len(log_w) > 1), -inf, inf)
    ordered = log_w.sort(0).values
    weights = (ordered - ordered[-1]).exp()[-num_tail - 1 :]
    tail = weights[1:] - weights[:1]  # [M, B], rising
    grid = 30 + int(sqrt(num_tail))
    steps = 1 - (grid / (torch.arange(1, grid + 1, dtype=log_w.dtype, device=log_w.device) - 0.5)).sqrt()
    quartile = tail[int(num_tail / 4 + 0.5) - 1].clamp(min=1e-300)
    theta = steps.unsqueeze(1) / (3 * quartile) + 1 / tail[-1]  # [grid, B]
    shapes = torch.log1p(-theta.unsqueeze(1) * tail).mean(1)
    likelihood = num_tail * ((-theta / shapes).log() - shapes - 1)
    theta = (theta * likelihood.nan_to_num(-inf).softmax(0)).sum(0)
    shape = torch.log1p(-theta * tail).mean(0)
    shape = (num_tail * shape + 10 * 0.5) / (num_tail + 10)
    return torch.where(tail[-1] > 0, shape, -inf)


# Annealed importance sampling


class Annealed(NamedTuple):
    """A `hmc.Point` on the way from q(z|x) to p(z|x), whose position is in units of q: u = (z - mu) / sigma.

    u: [K, B, Z].
    log_density: of q w^beta, that is q^(1 - beta) p(x, z)^beta, up to a constant: [K, B].
    gradient: of it, [K, B, Z].
    log_w: log p(x, z) - log q(z|x), [K, B].
    log_w_gradient: [K, B, Z].
    """

    u: Tensor
    log_density: Tensor
    gradient: Tensor
    log_w: Tensor
    log_w_gradient: Tensor

    def at(self, beta: float) -> "Annealed":
        """The same position at another temperature; in u, q is N(0, I)."""
        log_density = beta * self.log_w - 0.5 * self.u.square().sum(-1)
        return self._replace(log_density=log_density, gradient=beta * self.log_w_gradient - self.u)


class Chains:
    """Chains between q(z|x) and p(z|x): K for each of B images, whose noise is a function of the image's number."""

    def __init__(self, vae: VAE, x: Tensor, index: Tensor, num_chains: int, num_leapfrog_steps: int):
        check_whole("num_chains", num_chains)
        check_whole("num_leapfrog_steps", num_leapfrog_steps)
        self.vae, self.x, self.index, self.num_leapfrog_steps = vae, x, index, num_leapfrog_steps
        self.chains = torch.arange(num_chains, device=x.device)
        self.q_z = vae.encode(x)

    def noise(self, stream: int, step: int, dim: int) -> Tensor:
        """[K, B, dim], from N(0, 1)."""
        return counter_normal(derive_seed(stream, step), self.index, self.chains, dim)

    def point(self, u: Tensor, beta: float) -> Annealed:
        """The chains' standing at u."""
        log_w, gradient = hmc.value_and_gradient(
            lambda u: self.vae.log_weights(self.x, self.q_z, reparameterize(self.q_z, u)), u
        )
        return Annealed(u, log_w, gradient, log_w, gradient).at(beta)

    def move(self, start: Annealed, beta: float, step_size: Tensor, noise: Tensor) -> tuple[Annealed, Tensor]:
        """A transition that leaves the density of that temperature invariant, with noise [K, B, Z + 1]."""
        momentum, uniform = noise[..., :-1], torch.special.ndtr(noise[..., -1])
        return hmc.transition(
            lambda u: self.point(u, beta), start.at(beta), step_size, momentum, uniform, self.num_leapfrog_steps
        )

    def tune(self, betas: list[float]) -> Tensor:
        """A step size for each temperature and image, [T + 1, B], from a trial run of a quarter of the temperatures.

        The weights have the mean p(x) only with step sizes that do not depend on the chains which they move.
        """
        trial = betas[:: max(1, len(betas) // 25)]
        point = self.point(self.noise(TRIAL, 0, self.vae.latent_dim), 0.0)
        sizes = [torch.full_like(point.log_w[0], 0.5)]
        for step, beta in enumerate(trial):
            noise = self.noise(TRIAL, step + 1, self.vae.latent_dim + 1)
            point, acceptance = self.move(point, beta, sizes[-1], noise)
            sizes.append(hmc.adapted(sizes[-1], acceptance.mean(0), TARGET_ACCEPTANCE))
        log_sizes = torch.stack(sizes[1:]).log().T.unsqueeze(1)  # [B, 1, T']
        return interpolate(log_sizes, len(betas), mode="linear", align_corners=True)[:, 0].T.exp()

    def anneal(self, u: Tensor, betas: list[float], step_sizes: Tensor, stream: int) -> tuple[Tensor, Tensor]:
        """log w of chains that start at u, [K, B], and the share of moves accepted, [B].

        From q to p: sum_t (beta_t - beta_(t - 1)) log w(z_(t - 1)), where z_t moves at beta_t. From p to q the same
        sum, its terms from last to first.
        """
        point, acceptances = self.point(u, betas[0]), []
        log_w = torch.zeros_like(point.log_w, dtype=widest_dtype(u.device))
        for step, (beta, following) in enumerate(pairwise(betas)):
            log_w += abs(following - beta) * point.log_w
            if step + 2 < len(betas):
                noise = self.noise(stream, step + 1, self.vae.latent_dim + 1)
                point, acceptance = self.move(point, following, step_sizes[step + 1], noise)
                acceptances.append(acceptance.mean(0))
        return log_w, torch.stack(acceptances or [torch.ones_like(log_w[0])]).mean(0)


def temperatures(num: int) -> list[float]:
    """From 0 to 1 in that many steps, short ones at both ends: a sigmoid from -4 to 4 (arXiv 1611.04273)."""
    check_whole("num_temperatures", num)
    betas = torch.linspace(-4, 4, num + 1, dtype=torch.float64).sigmoid()
    return ((betas - betas[0]) / (betas[-1] - betas[0])).tolist()


@torch.inference_mode(False)
@torch.no_grad()
def annealed_importance_sampling(
    vae: VAE,
    x: Tensor,
    index: Tensor,
    num_temperatures: int = 100,
    num_chains: int = 16,
    num_leapfrog_steps: int = 5,
) -> Estimate:
    """Chains from q(z|x) to p(z|x) by HMC (Neal, physics/9803008; Wu et al., arXiv 1611.04273).

    Raises:
        ValueError: a number that is no whole one of at least 1; or as `VAE.elbo`.
    """
    vae.check_images(x, values=True)
    chains = Chains(vae, x.clone(), index.clone(), num_chains, num_leapfrog_steps)  # clones of inference tensors
    betas = temperatures(num_temperatures)
    u = chains.noise(FORWARD, 0, vae.latent_dim)
    log_w, acceptance = chains.anneal(u, betas, chains.tune(betas), FORWARD)
    estimate = from_log_weights(log_w)
    return estimate._replace(details=estimate.details | {"acceptance": acceptance})


@torch.inference_mode(False)
@torch.no_grad()
def bidirectional_bounds(
    vae: VAE, index: Tensor, num_temperatures: int = 100, num_chains: int = 16, num_leapfrog_steps: int = 5
) -> tuple[Tensor, Tensor]:
    """Bounds of log p(x) of images that the model generates, below and above in expectation, [B] each, nats.

    The z of a generated x is a sample of p(z|x): chains from there back to q(z|x) have weights with the mean 1 / p(x)
    (bidirectional Monte Carlo, Grosse et al., arXiv 1511.02543). The bounds' distance says how far chains of this
    length are to be trusted on this model.

    Args:
        index: the number of each generated image, [B], of which it is a function.
    """
    z = counter_normal(derive_seed(SIMULATION), index, torch.zeros_like(index[:1]), vae.latent_dim)[0]
    with seeded_generators(derive_seed(SIMULATION, 1), z.device):
        x = vae.decode(z).sample()
    chains = Chains(vae, x, index, num_chains, num_leapfrog_steps)
    betas = temperatures(num_temperatures)
    sizes = chains.tune(betas)
    below, _ = chains.anneal(chains.noise(FORWARD, 0, vae.latent_dim), betas, sizes, FORWARD)
    q_z = chains.q_z.base_dist
    u = ((z - q_z.loc) / q_z.scale).expand(num_chains, -1, -1)
    above, _ = chains.anneal(u, betas[::-1], sizes.flip(0), REVERSE)
    return below.logsumexp(0) - log(num_chains), log(num_chains) - (-above).logsumexp(0)


# Samples of the posterior


@torch.inference_mode(False)
@torch.no_grad()
def reciprocal_importance_sampling(
    vae: VAE,
    x: Tensor,
    index: Tensor,
    num_samples: int = 50,
    num_tuning: int = 100,
    num_leapfrog_steps: int = 4,
    num_starts: int = 1_000,
) -> Estimate:
    """The estimator of the paper's Appendix D: 1 / p(x) is the posterior's mean of q(z) / p(x, z), for any density q.

    A chain of Hamiltonian Monte Carlo for each image starts at the likeliest of some draws from the prior and tunes its
    step size. Then it moves L times for the samples to which q is fitted, here a Gaussian, and L times for those of the
    mean. It knows nothing of what the chain did not find, so that its bias, to either side, is unknown.

    Args:
        num_samples: L.
        num_tuning: the moves before the first sample.
        num_starts: the draws from the prior.
    """
    x, index = x.clone(), index.clone()  # clones of inference tensors are normal ones
    chain = torch.zeros_like(index[:1])

    def noise(step: int) -> Tensor:
        return counter_normal(derive_seed(POSTERIOR, step), index, chain, vae.latent_dim + 1)[0]

    def point(z: Tensor) -> hmc.Point:
        return hmc.point(lambda z: vae.log_joint(x, z.unsqueeze(0))[0], z)

    def moved(now: hmc.Point, step_size: Tensor, move: int) -> tuple[hmc.Point, Tensor]:
        momentum, uniform = noise(move)[:, :-1], torch.special.ndtr(noise(move)[:, -1])
        return hmc.transition(point, now, step_size, momentum, uniform, num_leapfrog_steps)

    draws = counter_normal(derive_seed(POSTERIOR), chain, torch.arange(num_starts, device=x.device), vae.latent_dim)[
        :, 0
    ]
    now, sizes = point(draws[log_joint_of_all(vae, x, draws).argmax(0)]), [torch.full_like(x[:, 0, 0, 0], 0.1)]
    for move in range(num_tuning):
        now, acceptance = moved(now, sizes[-1], 1 + move)
        sizes.append(hmc.adapted(sizes[-1], acceptance, TARGET_ACCEPTANCE))
    step_size = torch.stack(sizes[num_tuning // 2 :]).log().mean(0).exp()  # one chain's last size is a matter of chance
    found, acceptances = [], []
    for move in range(2 * num_samples):
        now, acceptance = moved(now, step_size, 1 + num_tuning + move)
        found.append(now)
        acceptances.append(acceptance)
    dtype = widest_dtype(x.device)
    fitted, used = torch.stack([each.z for each in found]).to(dtype).split(num_samples)  # [L, B, Z]
    deviation = fitted - fitted.mean(0)
    covariance = torch.einsum("lbi,lbj->bij", deviation, deviation) / (num_samples - 1)
    floor = 1e-12 + 1e-6 * covariance.diagonal(dim1=1, dim2=2).mean(1)  # of a chain that stood still
    covariance += floor.view(-1, 1, 1) * torch.eye(vae.latent_dim, dtype=dtype, device=x.device)
    q = MultivariateNormal(fitted.mean(0), covariance, validate_args=False)
    log_joint = torch.stack([each.log_density for each in found[num_samples:]]).to(dtype)
    reciprocal = from_log_weights(q.log_prob(used) - log_joint)
    unknown = torch.full_like(reciprocal.log_marginal, inf)
    details = {"acceptance": torch.stack(acceptances).mean(0)}
    return Estimate(-reciprocal.log_marginal, reciprocal.stderr, unknown, details)


# Quadrature


class Tile(NamedTuple):
    """A cube of a grid: its centre, [Z], and the places of the images whose densities are wanted there, [N]."""

    centre: Tensor
    images: Tensor


class Grid:
    """The densities p(x, z) of images [B, C, H, W] at the middles of cells, by tiles of one width."""

    def __init__(self, vae: VAE, x: Tensor, width: float):
        self.vae, self.x, self.width = vae, x, width
        side = TILE[vae.latent_dim]
        self.log_volume = vae.latent_dim * log(width / side)  # of a cell
        self.slack = NEGLIGIBLE + 0.5 * vae.latent_dim * (width / side / 2 / NARROWEST) ** 2
        self.halves = width * midpoints(2, vae.latent_dim).to(x.device)  # the middles of a tile's 2^Z parts
        points = width / 2 * midpoints(side // 2, vae.latent_dim).to(x.device)  # of a part
        self.offsets = (self.halves.unsqueeze(1) + points).flatten(0, 1)
        self.dtype = widest_dtype(x.device)
        self.log_sum = torch.full((len(x),), -inf, dtype=self.dtype, device=x.device)  # of the densities, [B]
        self.highest = torch.full_like(self.log_sum, -inf)  # of them, [B]
        self.parts: list[tuple[Tile, Tensor]] = []  # with the highest densities in each part, [2^Z, N]

    def add(self, tiles: Iterable[Tile]) -> "Grid":
        """Take in the densities on these tiles."""
        for tile in tiles:
            log_p = log_joint_of_all(self.vae, self.x[tile.images], tile.centre + self.offsets)  # [side^Z, N]
            self.log_sum[tile.images] = torch.logaddexp(self.log_sum[tile.images], log_p.logsumexp(0).to(self.dtype))
            highest = log_p.unflatten(0, (len(self.halves), -1)).amax(1).to(self.dtype)
            self.highest[tile.images] = torch.maximum(self.highest[tile.images], highest.amax(0))
            self.parts.append((tile, highest))
        return self

    def widen(self) -> Tensor:
        """Take in the tiles of a box that holds the mass of each image; where none is wide enough: bool [B]."""
        dim, inner, outer = self.vae.latent_dim, 0.0, HALF_WIDTH
        images = torch.arange(len(self.x), device=self.x.device)
        while len(images) and outer <= MAX_HALF_WIDTH[dim]:
            centres = 2 * outer * midpoints(round(2 * outer / self.width), dim).to(self.x.device)
            distance = centres.abs().amax(1)
            first = len(self.parts)
            self.add(Tile(centre, images) for centre in centres[distance > inner])
            outermost = [
                highest[(tile.centre + self.halves).abs().amax(1) > outer - self.width / 2]
                for tile, highest in self.parts[first:]
            ]
            border = torch.cat(outermost).amax(0)
            images = images[border > self.highest[images] - NEGLIGIBLE]
            inner, outer = outer, 2 * outer
        return torch.zeros_like(self.highest, dtype=torch.bool).index_fill_(0, images, True)

    def divided(self, wanted: Tensor) -> Iterator[Tile]:
        """The parts in which images, of those that are wanted, bool [B], may have a density that counts."""
        for tile, highest in self.parts:
            counts = wanted[tile.images] & (highest > self.highest[tile.images] - self.slack)  # [2^Z, N]
            for half, some in zip(self.halves, counts, strict=True):
                if some.any():
                    yield Tile(tile.centre + half, tile.images[some])

    def boxes(self, depth: float) -> tuple[Tensor, Tensor]:
        """The box of an image's parts whose density is at most so many nats below its highest: its corners, [B, Z]."""
        low = torch.full((len(self.x), self.vae.latent_dim), inf, device=self.x.device)
        high = -low
        for tile, highest in self.parts:
            counts = highest > self.highest[tile.images] - depth  # [2^Z, N]
            for half, some in zip(self.halves, counts, strict=True):
                images, middle = tile.images[some], tile.centre + half
                low[images] = torch.minimum(low[images], middle - self.width / 4)
                high[images] = torch.maximum(high[images], middle + self.width / 4)
        return low, high


def midpoints(n: int, dim: int) -> Tensor:
    """The middles of the n^dim cells of the unit cube around 0: [n^dim, dim]."""
    line = (torch.arange(n) + 0.5) / n - 0.5
    return torch.cartesian_prod(*[line] * dim).view(-1, dim)


def log_joint_of_all(vae: VAE, x: Tensor, z: Tensor) -> Tensor:
    """log p(x, z) of all images [B, C, H, W] at all latents [G, Z]: [G, B]."""
    log_p_x = vae.likelihood.log_prob_of_all(vae.decode(z.unsqueeze(1)), x)
    return log_p_x + vae.prior.log_prob(z).unsqueeze(1)


@torch.no_grad()
def quadrature(vae: VAE, x: Tensor, index: Tensor | None = None, tolerance: float = 0.01) -> Estimate:
    """The integral by the midpoint rule, for up to three latent variables.

    Each halving of the step keeps, for each image by itself, the parts of the grid in which its density may count. It
    ends for an image when it changes the value by no more than the tolerance. That a change is small by chance is not
    believed after one that is more than ten times as large.

    Args:
        index: without effect, since nothing is drawn.
        tolerance: nats.

    Raises:
        ValueError: the model has more latent variables; or as `VAE.elbo`.
    """
    dim = vae.latent_dim
    if dim > MAX_QUADRATURE_DIM:
        raise ValueError(f"quadrature: expected at most {MAX_QUADRATURE_DIM} latent variables, got {dim}")
    check_number("tolerance", tolerance)
    vae.check_images(x, values=True)
    grid = Grid(vae, x, TILE_WIDTH[dim])
    is_cut_off = grid.widen()
    value, change = torch.full_like(grid.log_sum, -inf), torch.full_like(grid.log_sum, inf)
    bias, unfinished = change, torch.ones_like(is_cut_off)
    for halvings in range(MAX_HALVINGS):
        if halvings:
            grid = Grid(vae, x, grid.width / 2).add(grid.divided(unfinished))
        new = grid.log_sum + grid.log_volume
        change, before = (new - value).abs(), change
        value = torch.where(unfinished, new, value)
        bias = torch.where(unfinished, torch.maximum(change, before / 10), bias)
        unfinished &= ~(bias <= tolerance)
    return Estimate(value, torch.zeros_like(value), bias.masked_fill(is_cut_off, inf), {})
