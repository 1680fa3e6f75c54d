"""The page's network equals the model: images, posteriors and bounds."""

import base64

import numpy as np
import pytest
import torch
from explorer_models import NETWORKS, SHAPES, all_likelihoods, equation_1, make_images, make_model

from vae.explorer import explorer_page, page
from vae.likelihoods import CategoricalLikelihood

pytestmark = pytest.mark.browser

DECODE = """zs => {
  let text = "";
  for (const z of zs) for (const byte of explorer.decode(z)) text += String.fromCharCode(byte);
  return btoa(text);
}"""
ENCODE = """([text, eps]) => {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)), size = bytes.length / eps.length;
  return eps.map((noise, i) => {
    const pixels = bytes.subarray(i * size, (i + 1) * size);
    return { ...explorer.encode(pixels), ...explorer.elbo(pixels, noise) };
  });
}"""


def rgba(images):
    """Images [N, C, H, W] as the page has them: uint8 [N, H, W, 4]."""
    colours = images.mul(255).round().byte().movedim(1, -1).expand(-1, -1, -1, 3)
    return torch.cat([colours, torch.full_like(colours[..., :1], 255)], dim=-1)


def latents(latent_dim, n=200):
    """Draws from the prior, a quarter of them brought to |z| = 4."""
    z = torch.randn(n, latent_dim)
    z[: n // 4] *= 4 / z[: n // 4].norm(dim=1, keepdim=True)
    return z


def clear_winner(vae, z, gap):
    """Where no second colour is as probable as the mode's, [N, H, W]."""
    best = vae.decode(z).logits.topk(2, dim=-1).values
    return (best[..., 0] - best[..., 1]) > gap


@torch.no_grad()
def check(opened, vae, images, latent_dim, gap=1e-4, rtol=0.0):
    z = latents(latent_dim)
    found = base64.b64decode(opened.evaluate(DECODE, z.tolist()))
    found = np.frombuffer(found, np.uint8).reshape(len(z), *vae.image_shape[1:], 4).astype(int)
    difference = np.abs(found - rgba(vae.generate(z)).numpy().astype(int)).max(-1)
    if isinstance(vae.likelihood, CategoricalLikelihood):
        clear = clear_winner(vae, z, gap).numpy()
        assert clear.mean() > 0.98
        assert difference[clear].max() == 0
    else:
        assert difference.max() <= 1

    eps = torch.randn(1, len(images), latent_dim)
    pixels = base64.b64encode(rgba(images).numpy().tobytes()).decode()
    found = opened.evaluate(ENCODE, [pixels, eps[0].tolist()])
    q_z, bound = vae.encode(images), vae.elbo(images, eps=eps)
    for name, expected in (("mean", q_z.mean), ("std", q_z.stddev)):
        np.testing.assert_allclose([one[name] for one in found], expected, rtol=0, atol=1e-3)
    for name, expected in bound._asdict().items():
        atol = 0.05 + rtol * expected.abs().max()
        np.testing.assert_allclose([one[name] for one in found], expected, rtol=0, atol=atol)


@pytest.mark.parametrize("likelihood", all_likelihoods())
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kind", SHAPES)
def test_page_equals_the_model(open_page, kind, network, likelihood):
    images = make_images(kind, 200)
    latent_dim = 5 if network == "conv" else 2
    vae = make_model(kind, network, likelihood, images, latent_dim)
    opened = open_page(explorer_page(vae, images))
    assert opened.evaluate("explorer.latentDim") == latent_dim
    assert opened.evaluate("explorer.size") == {"width": SHAPES[kind][2], "height": SHAPES[kind][1]}
    check(opened, vae, images[:50], latent_dim)


@pytest.mark.parametrize(
    "options", [{"activation": "tanh"}, {"hidden_dims": (40, 20)}, {"channels": (5, 7, 9)}], ids=str
)
@pytest.mark.parametrize("network", NETWORKS)
def test_page_equals_a_model_of_other_layers(open_page, network, options):
    images = make_images("folder", 60)
    vae = make_model("folder", network, "gaussian", images, 3, **options)
    check(open_page(explorer_page(vae, images)), vae, images[:50], 3)


@pytest.mark.parametrize("likelihood", ["gaussian", "categorical"])
def test_weights_in_16_bits_keep_the_promise(open_page, monkeypatch, likelihood):
    images = make_images("punks", 200)
    vae = make_model("punks", "mlp", likelihood, images, 8, hidden_dims=(100,))
    whole = len(explorer_page(vae, images))
    monkeypatch.setattr(page, "MAX_PAGE_SIZE", int(0.8 * whole))
    small = explorer_page(vae, images)
    assert len(small) < 0.7 * whole
    check(open_page(small), vae, images[:50], 8, gap=1e-3, rtol=1e-4)  # a density's terms cancel


def test_learned_scale_and_floor(open_page):
    images = make_images("digits", 60)
    vae = make_model("digits", "mlp", "gaussian_fixed", images, learn_scale=True, scale=0.3, min_scale=0.05)
    check(open_page(explorer_page(vae, images)), vae, images[:50], 2)


def test_colours_that_training_never_saw(open_page):
    images = make_images("punks", 60)
    vae = make_model("punks", "mlp", "categorical", images)
    strange = images.clone()
    strange[:, :, :4] = 1 / 255
    check(open_page(explorer_page(vae, images)), vae, strange[:50], 2)


def test_scales_beyond_their_bounds(open_page):
    """Standard deviations so small or large that the model bounds them."""
    images = make_images("digits", 60)
    for likelihood, head in (("gaussian", "log_var"), ("discretized_logistic", "log_scale")):
        for bias in (-60.0, 60.0):
            vae = make_model("digits", "mlp", likelihood, images)
            getattr(vae.likelihood, head)[0].bias.data += bias
            vae.posterior.log_var.bias.data -= bias
            opened = open_page(explorer_page(vae, images))
            pixels = base64.b64encode(rgba(images[:5]).numpy().tobytes()).decode()
            found = opened.evaluate(ENCODE, [pixels, [[0.0, 0.0]] * 5])
            q_z, bound = vae.encode(images[:5]), vae.elbo(images[:5], eps=torch.zeros(1, 5, 2))
            np.testing.assert_allclose([one["std"] for one in found], q_z.stddev, rtol=1e-4)
            for name, expected in bound._asdict().items():
                np.testing.assert_allclose([one[name] for one in found], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "network", "likelihood"),
    [
        ("mnist", "mlp", "bernoulli"),
        ("digits", "conv", "bernoulli"),
        ("digits", "mlp", "continuous_bernoulli"),
        ("punks", "mlp", "bernoulli"),
    ],
)
def test_equation_1_is_that_of_a_plain_grid(open_page, kind, network, likelihood):
    torch.manual_seed(0)
    images = make_images(kind, 120)
    vae = make_model(kind, network, likelihood, images, steps=80)
    page = open_page(explorer_page(vae, images))
    black, wide = torch.zeros(SHAPES[kind]), likelihood == "continuous_bernoulli"
    for image in (images[40],) if wide else (images[3], images[40], black):
        found = page.evaluate("pixels => explorer.gap(pixels)", rgba(image.unsqueeze(0))[0].flatten().tolist())
        expected, error, _ = equation_1(vae, image)
        assert found["state"] == "right"
        np.testing.assert_allclose(found["logMarginal"], expected[0], rtol=0, atol=0.03)
        np.testing.assert_allclose(
            [found[term] for term in ("logMarginal", "elbo", "gap")], expected, rtol=0, atol=0.04 + error
        )
        assert found["gap"] > -0.01
    if wide:  # its posterior of a black image leaves the plane
        found = page.evaluate("pixels => explorer.gap(pixels)", rgba(black.unsqueeze(0))[0].flatten().tolist())
        assert found["state"] == "unknown"


@pytest.mark.parametrize(("likelihood", "latent_dim"), [("bernoulli", 3), ("bernoulli", 1), ("gaussian", 2)])
def test_where_the_true_posterior_is_not_known_nothing_is_said_of_it(open_page, likelihood, latent_dim):
    images = make_images("digits", 60)
    page = open_page(explorer_page(make_model("digits", "mlp", likelihood, images, latent_dim), images))
    assert not page.locator("#gap").is_visible()
    assert page.evaluate("explorer.gap(Array(256).fill(255))") is None


def test_mass_beyond_the_cells_or_between_too_many_is_not_claimed(open_page):
    images = make_images("digits", 60)
    page = open_page(explorer_page(make_model("digits", "mlp", "bernoulli", images), images))
    state = "(half, most) => Object.assign(new TruePosterior(vae, half, 64), most).solve(pad.image, bound.q).state"
    assert page.evaluate(f"({state})(6, {{}})") == "right"
    assert page.evaluate(f"({state})(0.3, {{}})") == "unknown"
    assert page.evaluate(f"({state})(6, {{ maxCells: 1 }})") == "unknown"
    shown = """(state) => {
        showTruth(Object.assign(truth.evaluate(pad.image, bound.q), { state }));
        return $("gap-gap").textContent;
    }"""
    page.wait_for_function("truth.isReady && !truth.waiting.length", timeout=60_000)
    assert page.evaluate(shown, "unknown") == "?"
    assert page.evaluate(shown, "rough").startswith("≈ ")
