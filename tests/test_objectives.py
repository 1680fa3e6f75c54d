"""What training raises: each objective and its gradient against the terms by hand, and on a model that is known."""

import numpy as np
import pytest
import torch
from helpers import GREY, SHAPE, random_vae
from linear_gaussian import linear_gaussian
from scipy.special import logsumexp
from torch import nn
from torch.distributions import Normal

from vae.likelihoods import LIKELIHOODS
from vae.model import reparameterize
from vae.noise import StepNoise
from vae.objectives import OBJECTIVES, Options, sample_model


def noise_of(num_samples, num_images, latent_dim=2, step=0):
    return StepNoise((num_samples, num_images, latent_dim), (0, 0, 0), step, torch.device("cpu"))


def parts_of(vae):
    """The parameters of the encoder, and those of the decoder."""
    return [*vae.encoder.parameters(), *vae.posterior.parameters()], [
        *vae.decoder.parameters(),
        *vae.likelihood.parameters(),
    ]


def trainable_linear(**options):
    """The linear Gaussian VAE with the offset b of its decoder among the parameters."""
    vae, x, _ = linear_gaussian(2, **options)
    vae.likelihood.bias = nn.Parameter(vae.likelihood.bias)
    return vae.requires_grad_(True), x


def gradients(vae, x, objective, repeats):
    """Gradients of the summed objective for the weights of encoder and decoder, one row a draw."""
    rows = []
    for step in range(repeats):
        vae.zero_grad()
        OBJECTIVES[objective](vae, x, noise_of(8, len(x), step=step), Options())[0].sum().backward()
        rows.append([torch.cat([p.grad.flatten() for p in part]) for part in parts_of(vae)])
    return (torch.stack(part) for part in zip(*rows, strict=True))


@pytest.mark.slow
def test_the_doubly_reparameterised_gradient_has_the_same_mean_and_less_variance():
    vae, x = trainable_linear()
    encoder, decoder = gradients(vae, x, "iwae", 3_000)
    doubly_encoder, doubly_decoder = gradients(vae, x, "dreg", 3_000)
    for plain, doubly in ((encoder, doubly_encoder), (decoder, doubly_decoder)):
        error = ((plain.var(0) + doubly.var(0)) / 3_000).sqrt()
        assert ((plain.mean(0) - doubly.mean(0)).abs() < 4.5 * error + 1e-6).all()
    assert doubly_encoder.var(0).sum() < 0.7 * encoder.var(0).sum()


@pytest.mark.parametrize("name", ["iwae", "dreg"])
def test_the_importance_bound_is_the_logsumexp_of_the_weights(name):
    vae, x, noise = random_vae(), torch.rand(4, *SHAPE).round(), noise_of(30, 4)
    q_z = vae.encode(x)
    expected = logsumexp(vae.log_weights(x, q_z, reparameterize(q_z, noise.eps)).double(), axis=0) - np.log(30)
    raised, values = OBJECTIVES[name](vae, x, noise, Options())
    np.testing.assert_allclose(raised, expected, rtol=1e-5)
    assert [*values] == ["importance_bound"]
    np.testing.assert_allclose(vae.log_marginal(x, eps=noise.eps), expected, rtol=1e-5)


@pytest.mark.parametrize("mean", [-1_000.0, 0.0, 1_000.0])
@pytest.mark.parametrize("log_var", [-1_000.0, 1_000.0])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_extreme_posterior_has_finite_values_and_gradients(name, mean, log_var):
    vae, x = random_vae().requires_grad_(), torch.rand(3, *SHAPE)
    nn.init.constant_(vae.posterior.mean.bias, mean)
    nn.init.constant_(vae.posterior.log_var.bias, log_var)
    raised, _ = OBJECTIVES[name](vae, x, noise_of(4, 3), Options())
    raised.sum().backward()
    assert raised.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in vae.parameters())


def test_wake_sleep_has_the_gradients_of_its_two_terms():
    """By hand: of the biases of a Bernoulli and of a Gaussian, whose derivatives are known."""
    vae, x, noise = random_vae().requires_grad_(), torch.rand(5, *SHAPE).round(), noise_of(3, 5)
    raised, values = OBJECTIVES["wake_sleep"](vae, x, noise, Options())
    raised.mean().backward()
    found = {name: parameter.grad for name, parameter in vae.named_parameters()}
    with torch.no_grad():
        q_z = vae.encode(x)
        z = q_z.mean + q_z.stddev * noise.eps
        p_x = vae.decode(z).mean
        log_p = (x * p_x.log() + (1 - x) * (1 - p_x).log()).sum((2, 3, 4)) + Normal(0, 1).log_prob(z).sum(-1)
        torch.testing.assert_close(values["wake"], log_p.mean(0))
        torch.testing.assert_close(found["likelihood.logits.0.bias"], (x - p_x).mean((0, 1)).flatten())
        drawn_x, drawn_z = sample_model(vae, noise)
        q_z = vae.encode(drawn_x)
        u = (drawn_z - q_z.mean) / q_z.stddev
        torch.testing.assert_close(values["sleep"], Normal(q_z.mean, q_z.stddev).log_prob(drawn_z).sum(-1))
        torch.testing.assert_close(found["posterior.mean.bias"], (u / q_z.stddev).mean(0))
        torch.testing.assert_close(found["posterior.log_var.bias"], ((u**2 - 1) / 2).mean(0))


@pytest.mark.parametrize(("term", "place"), [("wake", 1), ("sleep", 0)])
def test_the_terms_of_wake_sleep_have_disjoint_parameters(term, place):
    vae, x = random_vae().requires_grad_(), torch.rand(5, *SHAPE).round()
    _, values = OBJECTIVES["wake_sleep"](vae, x, noise_of(3, 5), Options())
    values[term].sum().backward()
    assert all(parameter.grad is not None for parameter in parts_of(vae)[place])
    assert all(parameter.grad is None for parameter in parts_of(vae)[1 - place])


def test_sleep_ends_at_the_true_posterior():
    """Of the linear Gaussian model: its mean, and the scale of each latent variable given x alone.

    The ELBO would end at another scale, that of each latent variable given x and the others.
    """
    vae, x = trainable_linear(width=1.7, offset=0.5)
    weight, bias, scale = vae.likelihood.weight, vae.likelihood.bias.detach(), vae.likelihood.scale
    covariance = torch.linalg.inv(torch.eye(2) + weight.T @ weight / scale**2)
    means = (x.flatten(1) - bias) @ weight @ covariance / scale**2
    assert (vae.encode(x).mean - means).abs().min() > 0.4
    head = (*vae.posterior.mean.parameters(), vae.posterior.log_var.bias)
    optimizer = torch.optim.LBFGS(head, max_iter=40, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        _, values = OBJECTIVES["wake_sleep"](vae, x.repeat(1_000, 1, 1, 1), noise_of(1, 8_000), Options())
        loss = -values["sleep"].mean()
        loss.backward()
        return loss

    optimizer.step(loss)
    q_z = vae.encode(x)
    marginal, conditional = covariance.diagonal().sqrt(), torch.linalg.inv(covariance).diagonal().rsqrt()
    assert (q_z.mean - means).abs().max() < 0.2 * marginal.min()
    assert (q_z.stddev / marginal - 1).abs().max() < 0.03
    assert (conditional / marginal - 1).abs().max() > 0.04


def test_wake_trains_the_decoder_at_samples_of_q():
    """The gradient for b of log N(x; W z + b, s^2 I) is (x - W z - b) / s^2."""
    vae, x = trainable_linear()
    noise = noise_of(7, len(x))
    OBJECTIVES["wake_sleep"](vae, x, noise, Options())[0].mean().backward()
    q_z, p = vae.encode(x), vae.likelihood
    z = q_z.mean + q_z.stddev * noise.eps
    expected = (x.flatten(1) - z @ p.weight.T - p.bias) / p.scale**2
    torch.testing.assert_close(p.bias.grad, expected.mean((0, 1)))


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_the_model_is_sampled_within_the_range_of_images(likelihood):
    """Also where a Gaussian leaves it; the noise alone decides, and torch's own generators stay as they were."""
    vae = random_vae(likelihood=likelihood, palette=GREY, scale=1.0).requires_grad_()
    state, noise = torch.get_rng_state(), noise_of(2, 500)
    x, z = sample_model(vae, noise)
    assert torch.equal(torch.get_rng_state(), state)
    assert (x.shape, z.shape) == ((500, *SHAPE), (500, 2))
    vae.check_images(x, values=True)
    assert not (x.requires_grad or z.requires_grad)
    torch.rand(3)
    assert torch.equal(sample_model(vae, noise)[0], x)
    assert not torch.equal(sample_model(vae, noise_of(2, 500, step=1))[0], x)
    raised, _ = OBJECTIVES["wake_sleep"](vae, x, noise, Options())
    raised.mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in vae.parameters())


def test_draws_of_the_model_are_of_its_distribution_and_unrelated_to_the_noise_of_q():
    vae, _ = trainable_linear()
    noise = noise_of(1, 20_000)
    x, z = sample_model(vae, noise)
    expected = torch.eye(2), vae.likelihood.weight @ vae.likelihood.weight.T + vae.likelihood.scale**2 * torch.eye(24)
    for draws, covariance in zip((z, x.flatten(1)), expected, strict=True):
        error = ((covariance**2 + torch.outer(covariance.diagonal(), covariance.diagonal())) / 20_000).sqrt()
        assert ((draws.T.cov() - covariance).abs() < 4.5 * error).all()
    related = torch.corrcoef(torch.cat([noise.eps[0], z, x.flatten(1)], 1).T)[:2, 2:]
    assert related.abs().max() < 4.5 / 20_000**0.5
