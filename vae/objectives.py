"""What training raises: one function each, of a VAE, images and the random numbers of a step.

Each returns what it raises, of each image, and the values that are logged of it by name: [B] each, nats. A value that
is a bound of log p(x) is named elbo or ends in _bound; figures show it beside the ELBO of validation.
"""

from collections.abc import Callable
from math import log
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from vae.choices import check_number, check_whole, choose, register
from vae.model import VAE, reparameterize
from vae.noise import StepNoise

MAX_SAMPLES = 1_000  # of an image in a step: memory grows with them


class Options(NamedTuple):
    """The hyper-parameters of objectives, at a step, and its labels; the number of samples is that of the noise.

    analytic_kl: whether the KL is taken in closed form.
    beta: its weight.
    labels: of the images, [B], or None; the networks of a conditional model get them without an objective's help.
    """

    analytic_kl: bool = True
    beta: float = 1.0
    labels: Tensor | None = None


Objective = Callable[[VAE, Tensor, StepNoise, Options], tuple[Tensor, dict[str, Tensor]]]


def elbo(vae: VAE, x: Tensor, noise: StepNoise, options: Options) -> tuple[Tensor, dict[str, Tensor]]:
    """The bound of equation 10 with L samples, the KL weighted; what is logged is not."""
    bound = vae.elbo(x, eps=noise.eps, analytic_kl=options.analytic_kl)
    return bound.weighted(options.beta), bound._asdict()


def iwae(vae: VAE, x: Tensor, noise: StepNoise, options: Options) -> tuple[Tensor, dict[str, Tensor]]:
    """The importance-weighted bound with K samples (arXiv 1509.00519, equation 8)."""
    q_z = vae.encode(x)
    log_w = vae.log_weights(x, q_z, reparameterize(q_z, noise.eps))
    bound = log_w.logsumexp(0) - log(len(log_w))
    return bound, {"importance_bound": bound}


def dreg(vae: VAE, x: Tensor, noise: StepNoise, options: Options) -> tuple[Tensor, dict[str, Tensor]]:
    """The value of iwae with the encoder's gradient of arXiv 1810.04152, equation 8.

    That is the square of each sample's weight times its path derivative: the same mean, less variance.
    """
    q_z = vae.encode(x)
    z = reparameterize(q_z, noise.eps)
    constant_q_z = Independent(Normal(q_z.mean.detach(), q_z.stddev.detach(), validate_args=False), 1)
    log_w = vae.log_weights(x, constant_q_z, z)
    weight = log_w.detach().softmax(0)
    if z.requires_grad:
        z.register_hook(lambda gradient: weight.unsqueeze(-1) * gradient)
    surrogate = (weight * log_w).sum(0)
    bound = (log_w.logsumexp(0) - log(len(log_w))).detach() + surrogate - surrogate.detach()
    return bound, {"importance_bound": bound}


def wake_sleep(vae: VAE, x: Tensor, noise: StepNoise, options: Options) -> tuple[Tensor, dict[str, Tensor]]:
    """The wake-sleep algorithm (Hinton et al., Science 268, 1995), to which the paper's Section 5 compares.

    Wake: log p(x, z) at z from q(z|x), which trains the decoder. Sleep: log q(z|x) at (z, x) drawn from the model,
    which trains the encoder. No gradient passes through a draw, so that each term has its own parameters. The sum of
    the two is no bound.
    """
    with torch.no_grad():
        z = reparameterize(vae.encode(x), noise.eps)
    wake = vae.log_joint(x, z).mean(0)
    drawn_x, drawn_z = sample_model(vae, noise)
    sleep = vae.encode(drawn_x).log_prob(drawn_z)
    return wake + sleep, {"wake": wake, "sleep": sleep}


OBJECTIVES: dict[str, Objective] = {"elbo": elbo, "iwae": iwae, "dreg": dreg, "wake_sleep": wake_sleep}
WITHOUT_KL = (iwae, dreg, wake_sleep)  # it is no term of theirs


@torch.compiler.disable  # a compiled program has generators of its own
@torch.no_grad()
def sample_model(vae: VAE, noise: StepNoise) -> tuple[Tensor, Tensor]:
    """Draws from p(x, z), as many as the step has images: x [B, C, H, W] and z [B, Z], without gradient.

    What a Gaussian p(x|z) draws outside of the images' range is clamped to it.
    """
    with noise.generators():
        z = vae.prior.sample(noise.eps.shape[1:2])
        x = vae.decode(z).sample()
    return x.clamp(*vae.likelihood.value_range), z


def is_bound(name: str) -> bool:
    """Whether a value of that name is a bound of log p(x)."""
    return name == "elbo" or name.endswith("_bound")


def choose_objective(
    name: str, num_samples: int, analytic_kl: bool, beta: float, beta_warmup_epochs: float
) -> Objective:
    """The objective of that name, for which these hyper-parameters are right.

    Raises:
        ValueError: there is none; or a hyper-parameter is out of range, or belongs to another objective.
    """
    objective = choose("objective", name, OBJECTIVES)
    check_whole("num_samples", num_samples)
    if num_samples > MAX_SAMPLES:
        raise ValueError(f"num_samples: expected at most {MAX_SAMPLES:,}, got {num_samples}")
    check_number("beta", beta, positive=False)
    check_number("beta_warmup_epochs", beta_warmup_epochs, positive=False)
    if objective in WITHOUT_KL and (beta != 1 or beta_warmup_epochs or not analytic_kl):
        raise ValueError(f"beta, beta_warmup_epochs and analytic_kl belong to the objective elbo, not to {name}")
    return objective


def check_values(name: str, found: Any, num_images: int) -> None:
    """See that the objective of that name has returned what it should.

    Raises:
        ValueError: it has not.
    """
    raised, values = found if isinstance(found, tuple) and len(found) == 2 else (None, None)
    parts = [raised, *values.values()] if isinstance(values, dict) and values else [None]
    if not all(isinstance(part, Tensor) and part.shape == (num_images,) for part in parts):
        raise ValueError(
            f"objective {name}: expected what it raises and a dict of what is logged, [B] each: see docs/own-parts.md"
        )


def register_objective(name: str, objective: Objective) -> None:
    """Make an objective available by name: in `LitVAE`, on the command line and in checkpoints.

    Args:
        objective: a function (vae, x, noise, options) of a VAE, images [B, C, H, W], a `StepNoise` and `Options`; it
            returns what is raised, and what is logged by name, [B] each, nats.

    Raises:
        ValueError: there is one of that name, or it is no function.
    """
    if not callable(objective):
        raise ValueError(f"objective {name!r}: expected a function of vae, x, noise and options, got {objective}")
    register("objective", name, objective, OBJECTIVES)
