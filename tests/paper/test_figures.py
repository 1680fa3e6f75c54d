"""The scripts of the figures on tiny data: their numbers, and that they go on where they were interrupted."""

import json
from functools import partial
from pathlib import Path

import experiments
import figure_2
import figure_3
import figure_4
import figure_5
import pytest
import torch
from PIL import Image

from datamodules import MNIST, FreyFace


class Interrupted(Exception):
    pass


@pytest.fixture
def tiny_paper(tiny_mnist, tiny_faces, monkeypatch):
    """The experiments on the tiny data sets: an evaluation after each 40 samples."""
    monkeypatch.setattr(experiments, "PILOT_SAMPLES", 40)
    monkeypatch.setattr(experiments, "STEP_SIZES", (0.01,))
    monkeypatch.setattr(experiments, "SAMPLES_BETWEEN_SAVES", 1)
    monkeypatch.setattr(experiments, "BLOCK", 40)
    monkeypatch.setattr(experiments, "HIDDEN", {"MNIST": 8, "FreyFace": 8})
    monkeypatch.setattr(experiments, "evaluation_points", lambda most: [*range(40, most + 1, 40)])
    for module in (experiments, figure_2, figure_3):
        monkeypatch.setattr(module, "DATASETS", {"MNIST": partial(MNIST, val_size=20), "FreyFace": FreyFace})


@pytest.mark.slow
def test_an_interrupted_figure_is_the_whole_one(tiny_paper, tmp_path, monkeypatch):
    monkeypatch.setattr(figure_2, "LATENT_DIMS", {"MNIST": (2,)})
    figure_2.figure_2(samples=120, seeds=1, output_dir="whole")
    calls = iter(range(6))  # those of the first model, the pilot of the second, and one in its training

    def interrupted(*args, **options):
        if next(calls, None) is None:
            raise Interrupted
        return experiments.mean_bounds(*args, **options)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(figure_2, "mean_bounds", interrupted)
        figure_2.figure_2(samples=120, seeds=1, output_dir="resumed")
    assert not (tmp_path / "resumed" / "figure_2.json").exists()
    assert (tmp_path / "resumed" / "trainings" / "MNIST_2_wake_sleep_0_0.01.ckpt").exists()
    figure_2.figure_2(samples=120, seeds=1, output_dir="resumed")
    whole, resumed = ((tmp_path / name / "figure_2.json").read_text() for name in ("whole", "resumed"))
    assert whole == resumed
    figure_2.figure_2(samples=80, seeds=1, output_dir="whole")
    shorter = json.loads((tmp_path / "whole" / "figure_2.json").read_text())["runs"]
    assert [[row["samples"] for row in run["curve"]] for run in shorter] == [[40, 80]] * 2
    found = json.loads(whole)
    assert [(run["dataset"], run["latent_dim"], run["objective"], run["seed"]) for run in found["runs"]] == [
        ("MNIST", 2, "elbo", 0),
        ("MNIST", 2, "wake_sleep", 0),
    ]
    for run in found["runs"]:
        assert [row["samples"] for row in run["curve"]] == sorted({row["samples"] for row in run["curve"]})
        assert run["curve"][-1]["samples"] >= 120
        assert run["curve"][-1]["train"] > run["curve"][0]["train"]
    with Image.open(tmp_path / "whole" / "figure_2.png") as image:
        assert image.width > image.height


def test_the_step_size_is_that_of_the_best_beginning(tiny_paper, monkeypatch):
    def train(name, make, data, samples, measure, folder, bar):
        step_size = make().hparams.learning_rate
        if step_size == 0.5:
            raise experiments.NotFinite(1, 1, False)
        return [{"samples": samples, "train": {0.1: -5.0, 0.2: -3.0, 0.3: -9.0}[step_size]}]

    monkeypatch.setattr(experiments, "train", train)
    monkeypatch.setattr(experiments, "STEP_SIZES", (0.1, 0.5, 0.2, 0.3))
    model = {"dataset": "FreyFace", "latent_dim": 2, "objective": "elbo", "seed": 0}
    data = FreyFace()
    weights = experiments.make_training(data, **model).vae.state_dict()
    torch.save(weights, "FreyFace_2_elbo_0_0.2.pt")
    run, vae = experiments.train_paper(model, data, 77, None, Path(), None)
    assert run == {**model, "step_size": 0.2, "curve": [{"samples": 77, "train": -3.0}]}
    assert all(torch.equal(value, weights[name]) for name, value in vae.state_dict().items())


@pytest.mark.slow
def test_figure_3_judges_the_estimator_of_appendix_d(tiny_paper, tmp_path, monkeypatch):
    """By an integral over one latent variable here, of the model that each algorithm has trained."""
    monkeypatch.setattr(figure_3, "OBJECTIVES", {20: ("mcem",), 40: ("elbo",)})
    monkeypatch.setattr(figure_3, "LATENT_DIM", 1)
    monkeypatch.setattr(figure_3, "HIDDEN", 8)
    fewer = partial(figure_3.marginal.reciprocal_importance_sampling, num_samples=20, num_tuning=20)
    monkeypatch.setattr(figure_3.marginal, "reciprocal_importance_sampling", fewer)
    figure_3.figure_3(samples=80, seeds=1, num_images=8, num_integrated=4, output_dir="found")
    runs = json.loads((tmp_path / "found" / "figure_3.json").read_text())["runs"]
    assert [(run["num_training"], run["objective"]) for run in runs] == [(20, "mcem"), (40, "elbo")]
    for run in runs:
        assert run["judged"]["appendix_d"] == pytest.approx(run["judged"]["quadrature"], abs=3)  # short chains
    assert (tmp_path / "found" / "figure_3.png").exists()


@pytest.mark.slow
def test_figures_4_and_5_show_trained_models(tiny_paper, tmp_path, monkeypatch):
    monkeypatch.setattr(figure_5, "LATENT_DIMS", (2, 3))
    figure_4.figure_4(samples=80, output_dir="found")
    figure_5.figure_5(samples=80, output_dir="found")
    for name, models in (("figure_4", [("FreyFace", 2), ("MNIST", 2)]), ("figure_5", [("MNIST", 2), ("MNIST", 3)])):
        runs = json.loads((tmp_path / "found" / f"{name}.json").read_text())["runs"]
        assert [(run["dataset"], run["latent_dim"]) for run in runs] == models
        assert (tmp_path / "found" / f"{name}.png").exists()
