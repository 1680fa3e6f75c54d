"""The page as a file: what it holds, and which models it refuses. No browser is needed."""

import json
import re

import pytest
import torch
from explorer_models import SHAPES, make_images
from helpers import DIGITS
from torch import nn

from vae import VAE
from vae.colours import label_colours
from vae.explorer import MAX_PAGE_SIZE, NotExplorable, explorer_page, page
from vae.figures import FIGURES, NotApplicable
from vae.likelihoods import LIKELIHOODS


def description_of(html):
    return json.loads(re.search(r'<script id="description"[^>]*>(.*?)</script>', html, re.DOTALL)[1])


def test_the_page_asks_nothing_of_the_network():
    html = explorer_page(VAE((1, 8, 8)), make_images("digits", 5))
    assert not re.search(
        r"""(src|href|url)\s*[=(]\s*["']?(https?:)?//""", re.sub(r'<a [^>]*href="https://arxiv', "", html)
    )
    assert "default-src 'none'" in html
    assert "{{" not in html


def sizes(part):
    """The lengths of all weights and biases in a description."""
    if isinstance(part, dict) and part.keys() >= {"type", "start", "length"}:
        return [part["length"]]
    parts = part.values() if isinstance(part, dict) else part if isinstance(part, list) else []
    return [size for each in parts for size in sizes(each)]


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_the_page_holds_every_parameter_of_the_model(network):
    vae = VAE((1, 8, 8), network=network, hidden_dims=(9,), channels=(3, 4))
    model = description_of(explorer_page(vae, make_images("digits", 5)))
    held = [model[part] for part in ("encoder", "posterior", "decoder")] + [model["likelihood"]["heads"]]
    assert sum(sizes(held)) == sum(parameter.numel() for parameter in vae.parameters())


def test_names_are_text_not_markup():
    classes = ["</script><b>", "b"]
    html = explorer_page(
        VAE((1, 8, 8)), make_images("digits", 4), torch.tensor([0, 1, 0, 1]), classes, "<my> {{images}}"
    )
    assert "&lt;my&gt;" in html
    assert html.count("</script>") == 4
    assert description_of(html)["classes"] == classes


def test_two_pages_of_one_model_are_equal():
    vae, images = VAE((1, 8, 8)), make_images("digits", 5)
    assert explorer_page(vae, images) == explorer_page(vae, images)


@pytest.mark.parametrize(
    ("kind", "binary", "colours"), [("mnist", True, 0), ("digits", False, 0), ("punks", False, 24)]
)
def test_what_one_paints_with_comes_from_the_images(kind, binary, colours):
    description = description_of(explorer_page(VAE(SHAPES[kind]), make_images(kind, 300)))
    assert description["binary"] is binary
    assert len(description["palette"] or ()) == colours


def test_colours_of_photographs_are_no_palette(monkeypatch):
    monkeypatch.setattr(page, "MAX_COLOURS", 100)
    assert description_of(explorer_page(VAE(SHAPES["folder"]), make_images("folder", 50)))["palette"] is None


def test_the_plane_of_a_large_space_is_that_of_the_first_two_principal_components():
    codes = torch.randn(500, 6) @ torch.diag(torch.tensor([0.1, 3.0, 0.2, 0.1, 2.0, 0.1])) + 1
    plane = page.describe_map(codes)
    axes = torch.tensor(plane["axes"]).abs()
    assert axes.argmax(1).tolist() == [1, 4]
    torch.testing.assert_close(torch.tensor(plane["centre"]), codes.mean(0))
    assert 0.9 < sum(plane["shares"]) < 1


def test_labels_have_the_colours_of_the_figures():
    for count in (3, 12):
        classes, labels = [f"class {i}" for i in range(count)], torch.arange(12) % count
        description = description_of(explorer_page(VAE((1, 8, 8)), make_images("digits", 12), labels, classes))
        assert description["colours"] == label_colours(count)


def test_the_page_knows_the_mean_bound_of_its_images():
    vae, images = VAE((1, 8, 8)), make_images("digits", 200)
    found = description_of(explorer_page(vae, images))["meanBound"]
    with torch.no_grad():
        expected = vae.elbo(images, num_samples=100)
    for term, spread in (("elbo", 0.1), ("reconstruction", 0.1), ("kl", 1e-4)):
        assert found[term] == pytest.approx(getattr(expected, term).mean().item(), abs=spread)


def test_a_collapsed_posterior_has_a_plane_too():
    plane = page.describe_map(torch.zeros(20, 4))
    assert torch.tensor(plane["axes"]).isfinite().all()


@pytest.mark.slow
def test_a_model_that_is_too_large_is_refused_with_its_size_and_the_limit():
    vae = VAE((1, 28, 28), hidden_dims=(6_000,))
    with pytest.raises(NotExplorable, match=r"9,4\d\d,\d\d\d parameters the page has 2\d\.\d MB, the limit is 16 MB"):
        explorer_page(vae, make_images("mnist", 5))
    with pytest.raises(NotApplicable, match="limit is 16 MB"):
        FIGURES["explorer"](vae, make_images("mnist", 5), None, None, "MNIST", "images")


def test_where_space_is_short_there_are_fewer_images(monkeypatch):
    vae, images = VAE((3, 24, 24), hidden_dims=(20,)), torch.rand(200, 3, 24, 24)
    whole = explorer_page(vae, images)
    monkeypatch.setattr(page, "MAX_PAGE_SIZE", len(whole) - 1)
    html = explorer_page(vae, images)
    assert description_of(html)["count"] == 100
    assert len(html) < len(whole) <= MAX_PAGE_SIZE


def test_a_layer_that_the_page_lacks_is_named():
    vae = VAE((1, 8, 8))
    vae.encoder.append(nn.Softsign())
    with pytest.raises(NotExplorable, match="the page has no layer Softsign"):
        explorer_page(vae, make_images("digits", 5))


def test_a_likelihood_that_the_page_lacks_is_named(monkeypatch):
    monkeypatch.setitem(LIKELIHOODS, "own", LIKELIHOODS["bernoulli"])
    monkeypatch.delitem(LIKELIHOODS, "bernoulli")
    with pytest.raises(NotExplorable, match="the page has no likelihood own"):
        explorer_page(VAE((1, 8, 8), likelihood="own"), make_images("digits", 5))


def test_the_command_writes_the_page(script, tmp_path):
    assert script("train.py", *DIGITS, "--trainer.max_epochs", 1).status == 0
    done = script("visualizations.py", "--figures", "explorer", "--output_dir", "pages")
    assert done.status == 0
    path = tmp_path / "pages" / "digits_explorer_latent_variables=2.html"
    assert str(path.relative_to(tmp_path)) in done.out
    assert description_of(path.read_text())["classes"] == [*"0123456789"]
