"""The paper's mathematics, against the appendix's formulas, scipy and a model whose log p(x) is known."""

from math import inf

import numpy as np
import pytest
import torch
from helpers import SHAPE, random_vae
from scipy import stats
from scipy.special import expit, logsumexp
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence

from vae import VAE, model
from vae.likelihoods import LIKELIHOODS, DiagonalGaussian, Likelihood
from vae.networks import NETWORKS


class LinearGaussian(Likelihood):
    """p(x|z) = N(x; W z + b, scale^2 I)."""

    num_parameters, value_range = 6, (-inf, inf)

    def __init__(self, weight, bias, scale):
        super().__init__()
        self.weight, self.bias, self.scale = weight, bias, scale

    def forward(self, z):
        return Independent(Normal((z @ self.weight.T + self.bias).unflatten(-1, SHAPE), self.scale), 3)


@pytest.fixture
def linear():
    """A VAE with p(x) = N(b, W W^T + s^2 I), a posterior that is not exact, and images drawn from it."""
    weight, bias, scale = torch.randn(6, 2), torch.randn(6), 0.8
    vae = VAE(SHAPE, latent_dim=2)
    vae.encoder, vae.decoder = nn.Flatten(), nn.Identity()
    vae.likelihood = LinearGaussian(weight, bias, scale)
    covariance = torch.linalg.inv(torch.eye(2) + weight.T @ weight / scale**2)
    gain = covariance @ weight.T / scale**2
    vae.posterior = DiagonalGaussian(6, 2)
    vae.posterior.mean.load_state_dict({"weight": gain, "bias": 0.15 - gain @ bias})  # off by 0.15
    vae.posterior.log_var.load_state_dict({"weight": torch.zeros(2, 6), "bias": (1.4 * covariance.diagonal()).log()})
    x = vae.decode(torch.randn(8, 2)).sample()
    exact = stats.multivariate_normal(bias, weight @ weight.T + scale**2 * torch.eye(6)).logpdf(x.flatten(1))
    return vae.requires_grad_(False), x, exact


def test_kl_is_that_of_torch():
    torch.manual_seed(0)
    vae, x = VAE(image_shape=SHAPE, latent_dim=3), torch.rand(4, *SHAPE)
    q_z = vae.encode(x)
    torch.testing.assert_close(vae.elbo(x).kl, kl_divergence(q_z, vae.prior))
    torch.testing.assert_close(vae.kl_per_dimension(q_z), kl_divergence(q_z.base_dist, vae.prior.base_dist))


def test_elbo_is_equation_10():
    vae, x, eps = random_vae(), torch.rand(5, *SHAPE).round(), torch.randn(3, 5, 2)
    q_z = vae.encode(x)
    reconstruction = np.zeros(5)
    for noise in eps:
        logits = vae.likelihood.logits(vae.decoder(q_z.mean + q_z.stddev * noise)).flatten(1)
        reconstruction += stats.bernoulli.logpmf(x.flatten(1).numpy(), expit(logits.double().numpy())).sum(1) / 3
    bound = vae.elbo(x, eps=eps)
    np.testing.assert_allclose(bound.reconstruction, reconstruction, rtol=1e-5)
    torch.testing.assert_close(bound.elbo, bound.reconstruction - bound.kl)


def test_elbo_draws_num_samples():
    vae, x = random_vae(), torch.rand(200, *SHAPE)
    spread = {
        n: torch.stack([vae.elbo(x, num_samples=n).reconstruction for _ in range(50)]).var(0).mean() for n in (1, 8)
    }
    assert spread[1] / spread[8] == pytest.approx(8, rel=0.2)


def test_log_weights_are_the_three_log_densities():
    vae, x, eps = random_vae(), torch.rand(5, *SHAPE).round(), torch.randn(4, 5, 2)
    q_z = vae.encode(x)
    z = q_z.mean + q_z.stddev * eps
    prior = stats.norm.logpdf(z).sum(-1)
    posterior = stats.norm(q_z.mean, q_z.stddev).logpdf(z).sum(-1)
    expected = vae.decode(z).log_prob(x).numpy() + prior - posterior
    np.testing.assert_allclose(vae.log_weights(x, q_z, z), expected, rtol=1e-4)


def test_log_marginal_meets_the_closed_form(linear):
    vae, x, exact = linear
    estimate = torch.stack([vae.log_marginal(x, num_samples=4_000) for _ in range(10)])
    stderr = estimate.std(0).numpy() / 10**0.5
    assert stderr.max() < 0.02
    assert np.all(np.abs(estimate.mean(0).numpy() - exact) < 5 * stderr + 1e-3)


def test_the_closed_form_tells_an_analytic_kl_in_the_logsumexp_apart(linear):
    vae, x, exact = linear
    q_z = vae.encode(x)
    z = model.reparameterize(q_z, torch.randn(40_000, 8, 2))
    wrong = logsumexp(vae.decode(z).log_prob(x) - vae.elbo(x).kl, axis=0) - np.log(40_000)
    assert np.abs(wrong - exact).min() > 0.05


def test_estimator_a_has_the_mean_of_estimator_b():
    """Equations 6 and 7: log w with the sampled and the analytic KL."""
    vae, x = random_vae(), torch.rand(4, *SHAPE).round()
    eps = torch.randn(50_000, 4, 2)
    q_z = vae.encode(x)
    a = vae.log_weights(x, q_z, model.reparameterize(q_z, eps))
    b = vae.elbo(x, eps=eps).elbo
    stderr = a.std(0) / len(a) ** 0.5
    assert torch.all((a.mean(0) - b).abs() < 5 * stderr)


def test_the_bound_rises_with_the_number_of_samples(linear):
    vae, x, exact = linear
    bounds = [vae.elbo(x, num_samples=2_000).elbo]
    bounds += [torch.stack([vae.log_marginal(x, k) for _ in range(2_000 // k)]).mean(0) for k in (4, 40)]
    gaps = [exact.mean() - bound.mean().item() for bound in bounds]
    assert gaps[0] > 1.5 * gaps[1] > 2 * gaps[2] > -0.01


@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_chunks_do_not_change_the_estimate(monkeypatch, at_once):
    vae, x, eps = random_vae(), torch.rand(5, *SHAPE), torch.randn(50, 5, 2)
    q_z = vae.encode(x)
    log_w = vae.log_weights(x, q_z, model.reparameterize(q_z, eps)).double().numpy()
    bound = vae.elbo(x, eps=eps).elbo
    monkeypatch.setattr(model, "DECODER_CHUNK", at_once * 5 * 6)
    torch.testing.assert_close(vae.elbo(x, eps=eps).elbo, bound)
    np.testing.assert_allclose(vae.log_marginal(x, eps=eps), logsumexp(log_w, axis=0) - np.log(50), rtol=1e-5)
    np.testing.assert_allclose(vae.log_marginal(x, eps=iter(eps.split(9))), vae.log_marginal(x, eps=eps), rtol=1e-5)


@pytest.mark.parametrize("name", ["elbo", "log_marginal"])
def test_memory_does_not_grow_with_the_number_of_samples(monkeypatch, name):
    vae, held = random_vae(), []
    decode = vae.decode
    monkeypatch.setattr(vae, "decode", lambda z: held.append(len(z)) or decode(z))
    monkeypatch.setattr(model, "DECODER_CHUNK", 7 * 5 * 6)
    getattr(vae, name)(torch.rand(5, *SHAPE), num_samples=100)
    assert sum(held) == 100
    assert max(held) == 7


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("image_shape", [(1, 8, 8), (3, 9, 14)])
def test_shapes(likelihood, network, image_shape):
    palette = ((0,) * image_shape[0], (255,) * image_shape[0])
    options = {"likelihood": likelihood, "network": network, "palette": palette}
    vae = VAE(image_shape, latent_dim=3, hidden_dims=(16, 8), activation="tanh", **options)
    x = torch.rand(4, *image_shape)
    assert (vae.encode(x).batch_shape, vae.encode(x).event_shape) == ((4,), (3,))
    p_x = vae.decode(torch.randn(2, 4, 3))
    assert (p_x.batch_shape, p_x.event_shape) == ((2, 4), image_shape)
    assert vae.prior.event_shape == (3,)
    assert all(term.shape == (4,) for term in vae.elbo(x, num_samples=2))
    for images in (vae.sample(4), vae.reconstruct(x)):
        assert images.shape == x.shape
        assert 0 <= images.min() <= images.max() <= 1


class Reconstruction(nn.Module):
    """Encoder, decoder and bounds as one module."""

    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, x):
        q_z = self.vae.encode(x)
        return self.vae.reconstruct(x), q_z.mean, q_z.stddev, *self.vae.elbo(x, eps=q_z.mean.expand(2, -1, -1))


@pytest.mark.parametrize("likelihood", ["gaussian", "categorical"])
def test_a_model_can_be_exported(likelihood):
    module = Reconstruction(random_vae(likelihood=likelihood, palette=((0,), (255,))))
    batch = {0: torch.export.Dim("batch")}
    exported = torch.export.export(module, (torch.rand(3, *SHAPE),), dynamic_shapes=(batch,)).module()
    x = torch.rand(5, *SHAPE).round()
    torch.testing.assert_close(exported(x), module(x))


@pytest.mark.parametrize("name", ["elbo", "log_marginal"])
def test_where_values_cannot_be_looked_at_they_are_not(name):
    """On the meta device, and under vmap, also over gradients of each image."""
    vae, x = random_vae(), torch.rand(4, *SHAPE).round()
    found = getattr(vae.to("meta"), name)(x.to("meta"))
    assert (found.elbo if name == "elbo" else found).shape == (4,)
    vae = random_vae().requires_grad_()

    def of(x, eps=None):
        found = getattr(vae, name)(x, eps=eps)
        return found.elbo if name == "elbo" else found

    torch.manual_seed(0)
    each = torch.func.vmap(lambda x: of(x[None])[0], randomness="same")(x)
    torch.manual_seed(0)
    eps = torch.randn(1 if name == "elbo" else 100, 1, 2).expand(-1, 4, -1)
    torch.testing.assert_close(each, of(x, eps))
    if name == "elbo":
        torch.manual_seed(0)
        slopes = torch.func.vmap(torch.func.grad(lambda x: of(x[None])[0]), randomness="same")(x)
        torch.manual_seed(0)
        x.requires_grad_()
        (expected,) = torch.autograd.grad(of(x, torch.randn(1, 1, 2).expand(-1, 4, -1)).sum(), x)
        torch.testing.assert_close(slopes, expected)


@pytest.mark.parametrize("n", [-1, 0, 2.5, "3", True])
def test_a_number_of_samples_is_a_whole_one(n):
    vae, x = random_vae(), torch.zeros(2, *SHAPE)
    for name, ask in (
        ("n", vae.sample),
        ("num_samples", lambda n: vae.elbo(x, n)),
        ("num_samples", lambda n: vae.log_marginal(x, n)),
    ):
        with pytest.raises(ValueError, match=f"^{name}: expected a whole number of at least 1, got {n!r}"):
            ask(n)
    with pytest.raises(ValueError, match=r"eps: expected noise \[K, B, Z\], here \[K, 2, 2\], got \[0, 2, 2\]"):
        vae.elbo(x, eps=torch.zeros(0, 2, 2))


def widths(trunk):
    return [layer.out_features for layer in trunk.modules() if isinstance(layer, nn.Linear)]


def test_the_decoder_mirrors_the_encoder_or_is_given():
    vae = VAE(SHAPE, latent_dim=3, hidden_dims=(16, 8))
    assert (widths(vae.encoder), widths(vae.decoder)) == ([16, 8], [8, 16])
    vae = VAE(SHAPE, latent_dim=3, hidden_dims=(16, 8), decoder_hidden_dims=5)
    assert (widths(vae.encoder), widths(vae.decoder)) == ([16, 8], [5])


def test_init_std_is_the_spread_of_all_weights():
    vae = VAE((1, 28, 28), init_std=0.01)
    for parameter in vae.parameters():
        if parameter.numel() > 400:
            assert parameter.std().item() == pytest.approx(0.01, rel=0.1)


def test_estimator_a_of_the_bound_has_no_analytic_kl():
    vae, x, eps = random_vae(), torch.rand(4, *SHAPE).round(), torch.randn(30, 4, 2)
    q_z = vae.encode(x)
    bound = vae.elbo(x, eps=eps, analytic_kl=False)
    torch.testing.assert_close(bound.elbo, vae.log_weights(x, q_z, model.reparameterize(q_z, eps)).mean(0))
    torch.testing.assert_close(bound.elbo, bound.reconstruction - bound.kl)


def test_beta_weighs_the_kl():
    bound = random_vae().elbo(torch.rand(4, *SHAPE))
    torch.testing.assert_close(bound.weighted(0.3), bound.reconstruction - 0.3 * bound.kl)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent_dim": 0}, "latent_dim: expected a whole number of at least 1, got 0"),
        ({"latent_dim": "2"}, "latent_dim: expected a whole number of at least 1, got '2'"),
        ({"latent_dim": True}, "latent_dim: expected a whole number of at least 1, got True"),
        ({"hidden_dims": (True,)}, r"hidden_dims: expected one or more whole numbers of at least 1, got \[True\]"),
        ({"scale": True}, "scale: expected a number above 0, got True"),
        ({"latent_dim": 2.0}, r"latent_dim: expected a whole number of at least 1, got 2\.0"),
        ({"image_shape": (8, 8)}, r"image_shape: expected \(channels, height, width\), got \(8, 8\)"),
        ({"image_shape": (1, 8.0, 8)}, r"image_shape: expected .* whole numbers of at least 1, got \[1, 8\.0, 8\]"),
        ({"hidden_dims": (5.0,)}, r"hidden_dims: expected one or more whole numbers of at least 1, got \[5\.0\]"),
        ({"hidden_dims": "500"}, r"hidden_dims: expected one or more whole numbers of at least 1, got \['500'\]"),
        ({"hidden_dims": ()}, r"hidden_dims: expected one or more whole numbers of at least 1, got \[\]"),
        ({"hidden_dims": (5, 0)}, r"hidden_dims: expected one or more whole numbers of at least 1, got \[5, 0\]"),
        (
            {"decoder_hidden_dims": (0,)},
            r"decoder_hidden_dims: expected one or more whole numbers of at least 1, got \[0\]",
        ),
        ({"network": "conv", "channels": ()}, r"channels: expected one or more whole numbers of at least 1, got \[\]"),
        ({"scale": 0.0}, r"scale: expected a number above 0, got 0\.0"),
        ({"min_scale": "0.1"}, "min_scale: expected a number above 0, got '0.1'"),
        (
            {"likelihood": "gaussian_fixed", "learn_scale": True, "scale": 0.1, "min_scale": 0.1},
            "scale: expected more than min_scale, 0.1, as it is learned, got 0.1",
        ),
        ({"init_std": -1.0}, r"init_std: expected a number above 0, got -1\.0"),
        ({"likelihood": "categorical"}, "categorical: expected a palette of colours of 1 values, got None"),
        (
            {"likelihood": "poisson"},
            "unknown likelihood 'poisson': choose one of bernoulli, categorical, continuous_bernoulli, ",
        ),
        ({"activation": "gelu"}, "unknown activation 'gelu': choose one of relu, tanh"),
        ({"network": "unet"}, "unknown network 'unet': choose one of conv, mlp"),
    ],
)
def test_a_wrong_option_is_answered_with_the_right_ones(options, message):
    with pytest.raises(ValueError, match=message):
        VAE(**{"image_shape": SHAPE} | options)


@pytest.mark.parametrize("name", ["elbo", "log_marginal"])
def test_no_samples_and_no_images_are_refused(name):
    bound = getattr(random_vae(), name)
    with pytest.raises(ValueError, match="num_samples: expected .*whole numbers? of at least 1, got"):
        bound(torch.rand(2, *SHAPE), num_samples=0)
    with pytest.raises(ValueError, match=r"num_samples: expected .*whole numbers? of at least 1, got \[?1\.5"):
        bound(torch.rand(2, *SHAPE), num_samples=1.5)
    with pytest.raises(ValueError, match="images: expected one or more, got none"):
        bound(torch.rand(0, *SHAPE))
    with pytest.raises(ValueError, match="float32 or float64, got torch.bfloat16; half precision does not hold"):
        bound(torch.rand(2, *SHAPE).bfloat16())


def test_the_model_works_without_lightning():
    vae = VAE((1, 8, 8))
    assert vae.log_marginal(torch.rand(2, 1, 8, 8), num_samples=3).shape == (2,)


def test_no_nat_is_lost_among_large_weights(monkeypatch):
    vae, x = random_vae(), torch.rand(3, *SHAPE)
    log_w = torch.randn(50_000, 3) - 20_000
    chunks = iter(log_w.split(32))
    monkeypatch.setattr(vae, "log_weights", lambda x, q_z, z: next(chunks))
    found = vae.log_marginal(x, eps=torch.zeros(50_000, 3, 2).split(32))
    expected = logsumexp(log_w.double().numpy(), axis=0) - np.log(50_000)
    np.testing.assert_allclose(found, expected, atol=1.1e-3)  # half a float32 at 20,000


def test_an_estimate_keeps_no_graph_and_a_training_bound_does():
    vae, x, eps = random_vae().requires_grad_(True), torch.rand(3, *SHAPE), torch.randn(4, 3, 2)
    found = (vae.log_marginal(x, eps=eps), vae.sample(2), vae.reconstruct(x), vae.generate(eps))
    assert not any(value.requires_grad for value in found)
    assert vae.elbo(x, eps=eps).elbo.requires_grad


@pytest.mark.parametrize("name", ["elbo", "log_marginal"])
@pytest.mark.parametrize("shape", [(5, 2), (4, 2, 5), (1, 4, 5, 2), (3, 1, 2)])
def test_noise_of_another_shape_is_refused(name, shape):
    message = r"eps: expected noise \[K, B, Z\], here \[K, 5, 2\], got \[" + ", ".join(map(str, shape)) + r"\]"
    with pytest.raises(ValueError, match=message):
        getattr(random_vae(), name)(torch.rand(5, *SHAPE), eps=torch.randn(shape))


@pytest.mark.parametrize("name", ["encode", "elbo", "log_marginal", "reconstruct"])
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.rand(5, 2, 3), r"images: expected a tensor \[B, C, H, W\], here \[B, 1, 2, 3\], got \[5, 2, 3\]"),
        (torch.rand(5, 1, 3, 2), r"here \[B, 1, 2, 3\], got \[5, 1, 3, 2\]"),
        (torch.rand(5, 6), r"here \[B, 1, 2, 3\], got \[5, 6\]"),
        (
            torch.ones(5, *SHAPE, dtype=torch.uint8),
            "images: expected float32 or float64, got torch.uint8; divide",
        ),
        (torch.rand(5, *SHAPE).bfloat16(), "images: expected float32 or float64, got torch.bfloat16"),
        (np.zeros((5, *SHAPE)), "images: expected a tensor .*, got ndarray"),
    ],
)
def test_images_of_another_shape_or_type_are_refused(name, x, message):
    with pytest.raises(ValueError, match=message):
        getattr(random_vae(), name)(x)


@pytest.mark.parametrize("name", ["elbo", "log_marginal", "reconstruct"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_values_outside_of_the_range_are_refused(name, likelihood):
    vae = random_vae(likelihood=likelihood, palette=((0,), (255,)))
    x = torch.tensor([0.0, 17, 255]).repeat(5, 1, 2, 1)
    for wrong, found in (
        (x, "0 to 255"),
        (-x, "-255 to -?0"),
        (2 * x / 255 - 1, "-1 to 1; scale them"),
        (x / 255 * torch.nan, "nan to nan"),
    ):
        with pytest.raises(ValueError, match=rf"images: expected values in \[0, 1\], got {found}"):
            getattr(vae, name)(wrong)
    getattr(vae, name)(x / 255)
    if "gaussian" in likelihood:  # its samples leave [0, 1]: to evaluate them, say so
        vae.likelihood.value_range = (-inf, 10)
        vae.log_marginal(vae.decode(torch.zeros(5, 2)).sample())
        with pytest.raises(ValueError, match=r"images: expected values in \[-inf, 10\], got 0 to 255"):
            getattr(vae, name)(x)


def test_latents_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"latents: expected a tensor \[..., 2\], got \[2, 3\]"):
        random_vae().generate(torch.zeros(2, 3))
    for z in ([0.0, 0.0], np.zeros((3, 2))):
        with pytest.raises(ValueError, match=rf"latents: expected a tensor .*, got {type(z).__name__}"):
            random_vae().generate(z)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_half_precision_stays_inside_the_networks(likelihood):
    vae = random_vae(likelihood=likelihood, palette=((0,), (17,), (255,)), scale=0.3).bfloat16()
    x = torch.tensor([0.0, 17, 255]).repeat(5, 1, 2, 1) / 255
    q_z, p_x = vae.encode(x), vae.decode(torch.randn(5, 2))
    bounds = (*vae.elbo(x), vae.log_marginal(x, 4))
    values = (q_z.mean, q_z.stddev, vae.prior.sample(), p_x.log_prob(x), vae.sample(2), p_x.sample(), *bounds)
    assert {value.dtype for value in values} == {torch.float32}
    if likelihood == "gaussian_fixed":
        assert p_x.base_dist.stddev.unique().item() == torch.tensor(0.3).item()
    if likelihood == "categorical":
        assert torch.isin(vae.sample(20), x).all()  # exact 8-bit values


def test_as_many_samples_are_decoded_together_as_suit_the_device(monkeypatch):
    sizes = {}
    for device in ("cpu", "meta"):  # any other than the CPU
        vae, held = random_vae().to(device), []
        decode = vae.decode
        monkeypatch.setattr(vae, "decode", lambda z, decode=decode, held=held: held.append(len(z)) or decode(z))
        x, z = torch.empty(100, *SHAPE, device=device), torch.empty(2_000, 100, 2, device=device)
        vae.log_weights(x, vae.encode(x), z)
        sizes[device] = held
    assert sizes == {"cpu": [873, 873, 254], "meta": [2_000]}
