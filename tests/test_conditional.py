"""A conditional model: the example from end to end, and that each image meets its own label in every batch."""

import runpy
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers import QUIET, evaluate, fit
from PIL import Image
from processes import PROJECT
from pytorch_lightning import Trainer
from torch.utils.data import DataLoader, TensorDataset

import vae.model
import vae.objectives
from datamodules import DataError, Digits, ImageFolder
from vae import LitVAE
from vae.evaluation import evaluation_noise
from vae.marginal import importance_sampling
from vae.model import LabelsNeeded
from vae.objectives import elbo

EXAMPLE = PROJECT / "examples" / "conditional.py"
OPTIONS = {"network": "conditional", "num_classes": 10, "num_samples": 2}


@pytest.fixture
def conditional(monkeypatch):
    """The network `conditional`, for one test."""
    monkeypatch.setattr(vae.model, "NETWORKS", dict(vae.model.NETWORKS))
    runpy.run_path(str(EXAMPLE))


def test_the_networks_get_the_labels(conditional):
    model = vae.VAE((1, 8, 8), hidden_dims=8, network="conditional", num_classes=3)
    x, z, labels = torch.rand(4, 1, 8, 8), torch.randn(5, 4, 2), torch.tensor([2, 0, 1, 1])
    given = model.given(labels.to(torch.uint8))
    torch.testing.assert_close(given.encode(x).mean, model.posterior(model.encoder(x, labels)).mean)
    for sample, logits in zip(z, given.decode(z).base_dist.logits, strict=True):
        torch.testing.assert_close(logits, model.likelihood(model.decoder(sample, labels)).base_dist.logits)
    one = model.given(labels[2])
    torch.testing.assert_close(one.decode(z).mean[:, 2], given.decode(z).mean[:, 2])
    assert not torch.equal(one.generate(z), model.given(labels[0]).generate(z))
    parts = [part.generate(some) for part, some in given.batches(z[0])]
    torch.testing.assert_close(torch.cat(parts), given.generate(z[0]))


def test_a_conditional_model_asks_for_labels(conditional):
    model = vae.VAE((1, 8, 8), hidden_dims=8, network="conditional", num_classes=3)
    with pytest.raises(LabelsNeeded, match=r"needs vae.given\(labels\), labels \[2\], got none"):
        model.generate(torch.zeros(2, 2))
    with pytest.raises(LabelsNeeded, match=r"labels \[2\], got \[3\]"):
        model.given(torch.zeros(3)).generate(torch.zeros(2, 2))
    with pytest.raises(LabelsNeeded, match="needs the label of each image, got none"):
        LitVAE(image_shape=(1, 8, 8), **OPTIONS)(torch.zeros(2, 1, 8, 8))
    with pytest.raises(ValueError, match="num_classes: the network mlp takes no labels"):
        vae.VAE((1, 8, 8), num_classes=3)
    plain = vae.VAE((1, 8, 8))
    assert plain.given(torch.zeros(2)) is plain.given(None) is plain


def plain_loop(lit, steps):
    """The weights after a plain PyTorch loop over images and labels, with the noise of the first epoch."""
    optimizer = torch.optim.Adam(lit.parameters(), lr=1e-3)
    for step, (x, labels) in enumerate(steps):
        eps = lit.training_noise(len(x), step).eps
        q_z = lit.vae.posterior(lit.vae.encoder(x, labels))
        z = q_z.mean + q_z.stddev * eps
        p_x = [lit.vae.likelihood(lit.vae.decoder(sample, labels)) for sample in z]
        reconstruction = torch.stack([each.log_prob(x) for each in p_x]).mean(0)
        optimizer.zero_grad()
        (lit.vae.kl_per_dimension(q_z).sum(-1) - reconstruction).mean().backward()
        optimizer.step()
    return lit.state_dict()


@pytest.mark.parametrize("loader", ["blocks", "DataLoader"])
def test_training_is_a_plain_loop_over_images_and_their_labels(conditional, loader):
    data = Digits(batch_size=100, steps_per_block=5)
    if loader == "blocks":
        lit, _ = fit(data, **OPTIONS)
        batches = [batch for block in data.train_dataloader() for batch in zip(*cut(block), strict=True)]
    else:
        images, labels = data.images("train", 350), data.labels("train", 350)
        torch.manual_seed(0)
        lit = LitVAE(image_shape=(1, 8, 8), hidden_dims=16, **OPTIONS)
        batches = DataLoader(TensorDataset(images, labels), 100)
        Trainer(max_epochs=1, logger=False, enable_checkpointing=False, **QUIET).fit(lit, batches)
    torch.manual_seed(0)
    plain = LitVAE(image_shape=(1, 8, 8), hidden_dims=16, **OPTIONS)
    plain._trainer = type("First", (), {"current_epoch": 0, "global_rank": 0})()
    expected = plain_loop(plain, [(x, labels.long()) for x, labels in batches])
    for name, weights in lit.state_dict().items():
        torch.testing.assert_close(weights, expected[name])


def cut(block):
    return (block.images / 255).split(block.sizes), block.labels.split(block.sizes)


def test_an_objective_gets_the_labels_of_its_step(monkeypatch):
    """Also where the model is not conditional."""
    seen = []

    def own(vae, x, noise, options):
        seen.append(options.labels)
        return elbo(vae, x, noise, options)

    monkeypatch.setattr(vae.objectives, "OBJECTIVES", vae.objectives.OBJECTIVES | {"own": own})
    data = Digits(batch_size=100, steps_per_block=5)
    fit(data, objective="own")
    expected = [labels for block in data.train_dataloader() for labels in cut(block)[1]]
    assert len(seen) == 12
    assert all(map(torch.equal, seen, expected))


def test_a_test_is_that_of_the_model_of_each_label(conditional):
    data, n = Digits(batch_size=70), 300
    lit, _ = fit(data, **OPTIONS)
    lit.estimator = estimator = partial(importance_sampling, num_samples=20)
    found = evaluate(lit, data)
    x, labels, index = data.images("test"), data.labels("test"), torch.arange(n)
    (eps,) = evaluation_noise(index, 2, 2)
    with torch.no_grad():
        bound = lit.vae.given(labels).elbo(x, eps=eps).elbo
        marginal = torch.empty(n, dtype=torch.float64)
        for label in labels.unique().tolist():
            some = labels == label
            marginal[some] = estimator(lit.vae.given(torch.tensor(label)), x[some], index[some]).log_marginal
    torch.testing.assert_close(lit.test_columns["elbo"], bound.double(), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(lit.test_columns["log_marginal"], marginal, atol=1e-4, rtol=1e-5)
    assert found["test/elbo"] == pytest.approx(bound.mean().item(), rel=1e-5)


@pytest.mark.slow
def test_the_example_from_end_to_end(fork):
    options = ("--import", EXAMPLE, "--data", "Digits", "--model.network", "conditional", "--model.hidden_dims", 16)
    for name, epochs in (("whole", 2), ("parts", 1)):
        trained = fork("train.py", *options, "--trainer.max_epochs", epochs, "--run_name", name)
        assert trained.status == 0, trained.err
    resumed = fork("train.py", "--import", EXAMPLE, "--ckpt_path", "parts", "--trainer.max_epochs", 2)
    assert resumed.status == 0, resumed.err
    whole, parts = (
        torch.load(f"lightning_logs/{name}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "parts")
    )
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    tested = fork("test.py", "--import", EXAMPLE, "--run_name", "parts", "--num_images", 10)
    assert tested.status == 0
    assert "quadrature" in tested.out
    names = ("reconstruction", "samples", "traversals")
    figures = ("--figures", "learned_manifold", *names)
    drawn = fork("visualizations.py", "--import", EXAMPLE, "--run_name", "parts", *figures)
    assert drawn.status == 0
    files = {path.name for path in Path("visualization_imgs").iterdir()}
    assert files == {f"digits_{name}_latent_variables=2.png" for name in names}
    assert "Not drawn: learned_manifold does not show conditional models" in drawn.err
    without = fork("test.py", "--run_name", "parts")
    assert "unknown network 'conditional': choose one of conv, mlp" in without.err
    assert without.err.endswith("name the module that registers it: --import MODULE\n")


def test_images_without_labels_are_refused(tmp_path):
    for place in range(3):
        Image.new("L", (4, 4), 50 * place).save(tmp_path / f"{place}.png")
    data = ImageFolder(data_dir=str(tmp_path))
    with pytest.raises(DataError, match="has no labels, which a conditional model needs"):
        data.num_classes()
    assert Digits().num_classes() == 10
