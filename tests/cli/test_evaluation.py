"""The options of test.py and visualizations.py."""

import pytest
from helpers import DIGITS
from PIL import Image


def test_the_options_of_figures_reach_them(script, run_folder, tmp_path):
    def sizes(*options):
        assert script("visualizations.py", "--figures", "samples", "learned_manifold", *options).status == 0
        images = (
            tmp_path / "visualization_imgs" / f"digits_{name}_latent_variables=2.png"
            for name in ("samples", "learned_manifold")
        )
        return [Image.open(path).size for path in images]

    (width, height), manifold = sizes()
    assert sizes("--num_samples", 32) == [(width, height - 4 * 74), manifold]
    assert sizes("--num_samples", 32, "--grid_width", 16)[0] == (16 * 74 + 2 + 40, height - 6 * 74)
    assert sizes("--grid_size", 12, "--grid", "linspace", "--extent", 2)[1] == (manifold[0] - 400, manifold[1] - 400)


def test_the_figures_show_the_split_that_is_asked_for(script, run_folder, tmp_path):
    seen = {}
    for split in ("train", "val", "test", "all"):
        assert script("visualizations.py", "--figures", "latent_scatter", "--split", split).status == 0
        seen[split] = (tmp_path / "visualization_imgs/digits_latent_scatter_latent_variables=2.png").read_bytes()
    assert len(set(seen.values())) == 4


def test_runs_are_compared_without_their_data(script, tiny_punks):
    for name in ("one", "two"):
        script(
            "train.py", "--data", "CryptoPunks", "--model.hidden_dims", 8, "--trainer.max_epochs", 2, "--run_name", name
        )
    (tiny_punks / "punks.png").unlink()
    rasterize = script(
        "visualizations.py", "--figures", "learning_curves", "training_film", "samples", "--runs", "one", "two"
    )
    assert (rasterize.status, rasterize.err) == (0, "")
    assert rasterize.out.splitlines() == [
        "Drawing from lightning_logs/one/checkpoints/best.ckpt",
        "visualization_imgs/punks_learning_curves_latent_variables=2.png",
        "visualization_imgs/punks_training_film_latent_variables=2.gif",
        "visualization_imgs/punks_samples_latent_variables=2.png",
    ]
    lost = script("visualizations.py", "--figures", "learning_curves", "--runs", "one", "three")
    assert (lost.status, lost.err.splitlines()[0]) == (1, "error: There is no checkpoint in lightning_logs/three.")


def test_nothing_drawn_is_an_error(script):
    script("train.py", *DIGITS, "--trainer.max_epochs", 1, "--model.latent_dim", 3)
    rasterize = script("visualizations.py", "--figures", "learned_manifold")
    assert rasterize.status == 1
    assert "error: none of the figures applies to this model" in rasterize.err


def test_a_split_without_pictures(script, tiny_mnist):
    script("train.py", "--data", "MNIST", "--data.val_size", 0, "--trainer.max_epochs", 1)
    for name in ("test.py", "visualizations.py"):
        outcome = script(name, "--split", "val")
        assert outcome.status == 1
        assert outcome.err == "error: MNIST has no val images, as it was split for this model.\n"


@pytest.mark.parametrize("name", ["test.py", "visualizations.py"])
def test_an_accelerator_that_is_not_there(script, run_folder, name):
    outcome = script(name, "--accelerator", "abacus")
    assert outcome.status == 1
    assert outcome.err.startswith("error: --accelerator abacus: ")
