"""Hamiltonian Monte Carlo (Duane et al. 1987; Neal, arXiv 1206.1901) for many chains at once.

Pure functions of a log density and of the noise that they are given. The mass is one: whoever knows the scale of the
density passes positions in units of it.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor


class Point(NamedTuple):
    """Where chains stand.

    z: positions, [..., Z].
    log_density: there, up to a constant, [...].
    gradient: of the log density, [..., Z].
    """

    z: Tensor
    log_density: Tensor
    gradient: Tensor


P = TypeVar("P", bound=tuple)  # a Point, or a tuple that begins as one


def value_and_gradient(log_density: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """The log density, [...], and its gradient, [..., Z], at positions [..., Z]; also in inference mode."""
    with torch.inference_mode(False), torch.enable_grad():
        z = z.detach().clone().requires_grad_()  # a clone of an inference tensor is a normal one
        value = log_density(z)
        (gradient,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), gradient


def point(log_density: Callable[[Tensor], Tensor], z: Tensor) -> Point:
    """The chains' standing at z."""
    return Point(z, *value_and_gradient(log_density, z))


def transition(
    evaluate: Callable[[Tensor], P],
    start: P,
    step_size: Tensor,
    momentum: Tensor,
    uniform: Tensor,
    num_steps: int,
) -> tuple[P, Tensor]:
    """One move of every chain that leaves the density invariant: leapfrog steps, then Metropolis' acceptance.

    Args:
        evaluate: positions [..., Z] -> the point there: `point`, for a log density.
        start: where the chains stand.
        step_size: of the leapfrog steps, broadcastable to [...].
        momentum: draws from N(0, I), [..., Z].
        uniform: draws from U(0, 1), [...].
        num_steps: leapfrog steps, of `num_steps` evaluations.

    Returns:
        The points after the move, and the probability with which each was accepted, [...].
    """
    step = step_size.unsqueeze(-1)
    end, p = start, momentum + 0.5 * step * start[2]
    for remaining in reversed(range(num_steps)):
        end = evaluate(end[0] + step * p)
        p = p + (step if remaining else 0.5 * step) * end[2]
    kinetic = 0.5 * (momentum.square().sum(-1) - p.square().sum(-1))
    log_ratio = (end[1] - start[1] + kinetic).nan_to_num(-torch.inf, torch.inf, -torch.inf)  # NaN: diverged
    accepted = uniform.log() < log_ratio
    moved = type(start)(
        *(torch.where(accepted.view(accepted.shape + (1,) * (new.ndim - accepted.ndim)), new, old)
          for new, old in zip(end, start, strict=True))
    )  # fmt: skip
    return moved, log_ratio.clamp(max=0).exp()


def adapted(step_size: Tensor, acceptance: Tensor, target: float, rate: float = 0.3) -> Tensor:
    """The step size moved so that the mean acceptance comes nearer to its target (Robbins & Monro, on the log scale).

    Chains whose step size still moves are no longer exact: tune first, then sample with what was found.
    """
    return step_size * ((acceptance - target) * rate / target).exp()
