"""Hamiltonian Monte Carlo against densities whose moments are known."""

import pytest
import torch
from scipy import stats

from vae import hmc


def sample(log_density, z, step_size, num_moves, num_steps=5):
    """Where chains that start at z end, and the share of accepted moves."""
    start, accepted = hmc.point(log_density, z), []
    for _ in range(num_moves):
        momentum, uniform = torch.randn_like(z), torch.rand_like(z[..., 0])
        start, acceptance = hmc.transition(
            lambda z: hmc.point(log_density, z), start, step_size, momentum, uniform, num_steps
        )
        accepted.append(acceptance.mean())
    return start.z, torch.stack(accepted).mean()


def test_a_gaussian_has_its_moments():
    torch.manual_seed(0)
    loc, covariance = torch.tensor([1.0, -2.0]), torch.tensor([[1.0, 0.6], [0.6, 0.5]])
    target = torch.distributions.MultivariateNormal(loc, covariance)
    z, acceptance = sample(target.log_prob, torch.zeros(20_000, 2), torch.tensor(0.45), 20, num_steps=3)
    assert 0.5 < acceptance < 0.9  # without rejections the moments would be others
    torch.testing.assert_close(z.mean(0), loc, atol=0.03, rtol=0)
    torch.testing.assert_close(z.T.cov(), covariance, atol=0.03, rtol=0)


def test_a_density_of_two_modes_stays_what_it_is():
    torch.manual_seed(0)
    modes = torch.distributions.Normal(torch.tensor([-1.5, 1.5]), torch.tensor([0.4, 0.8]))
    target = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(torch.tensor([0.3, 0.7])), modes)
    z, acceptance = sample(lambda z: target.log_prob(z[..., 0]), target.sample((5_000, 1)), torch.tensor(0.9), 15)
    assert acceptance < 0.9
    assert stats.kstest(z[:, 0], lambda value: target.cdf(torch.tensor(value)).numpy()).pvalue > 1e-3


def test_each_chain_has_a_step_size_that_reaches_its_acceptance():
    torch.manual_seed(0)
    scale = torch.tensor([0.01, 1.0, 30.0])
    log_density = torch.distributions.Normal(torch.zeros(3, 1), scale.unsqueeze(1))
    start = hmc.point(lambda z: log_density.log_prob(z)[..., 0], torch.zeros(100, 3, 1))
    step_size, found = torch.full((3,), 0.3), []
    for move in range(120):
        noise = torch.randn(100, 3, 1), torch.rand(100, 3)
        start, acceptance = hmc.transition(
            lambda z: hmc.point(lambda z: log_density.log_prob(z)[..., 0], z), start, step_size, *noise, 5
        )
        step_size = hmc.adapted(step_size, acceptance.mean(0), 0.65)
        found += [acceptance.mean(0)] if move >= 60 else []
    torch.testing.assert_close(torch.stack(found).mean(0), torch.full((3,), 0.65), atol=0.05, rtol=0)
    assert step_size[0] < 0.1 < step_size[1] < 10 < step_size[2]


def test_a_trajectory_that_diverges_is_rejected():
    start = hmc.point(lambda z: -(z**4).sum(-1), torch.ones(4, 1))
    end, acceptance = hmc.transition(
        lambda z: hmc.point(lambda z: -(z**4).sum(-1), z), start, torch.tensor(1e6), torch.ones(4, 1), torch.rand(4), 10
    )
    assert torch.equal(end.z, start.z)
    assert acceptance.tolist() == [0] * 4


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_are_taken_in_any_mode(mode):
    with mode():
        value, gradient = hmc.value_and_gradient(lambda z: -0.5 * z.square().sum(-1), torch.ones(2, 3) * 2)
    assert value.tolist() == [-6, -6]
    assert gradient.tolist() == [[-2.0] * 3] * 2
