"""The options of test.py and visualizations.py."""

import json
import os
import re
import shutil
import sys
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import DIGITS
from PIL import Image
from sklearn.linear_model import LogisticRegression

from datamodules import CryptoPunks, DataWarning, Digits
from vae import LitVAE
from vae.figures import CAN_SHOW_SAMPLES, FIGURES
from vae.marginal import temperatures


def test_the_options_of_figures_reach_them(script, run_folder, tmp_path):
    def sizes(*options):
        assert script("visualizations.py", "--figures", "samples", "learned_manifold", *options).status == 0
        images = (
            tmp_path / "visualization_imgs" / f"digits_{name}_latent_variables=2.png"
            for name in ("samples", "learned_manifold")
        )
        return [Image.open(path).size for path in images]

    (_, height), manifold = sizes()
    options = ["--num_samples", 32, "--grid_width", 16, "--grid_size", 12, "--grid", "linspace", "--extent", 2]
    fewer = 8 * 48
    assert sizes(*options) == [(16 * 74 - 2 + 40, height - 6 * 74), (manifold[0] - fewer, manifold[1] - fewer)]


@pytest.mark.parametrize(("suffix", "begins"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_figures_in_another_format_keep_their_names(script, run_folder, suffix, begins):
    drawn = script("visualizations.py", "--figures", "reconstruction", "explorer", "--format", suffix)
    assert (drawn.status, drawn.err) == (0, "")
    path = Path(f"visualization_imgs/digits_reconstruction_latent_variables=2.{suffix}")
    _, first, second = drawn.out.splitlines()
    assert (first, second.endswith("explorer_latent_variables=2.html")) == (str(path), True)
    before = path.read_bytes()
    assert before.startswith(begins)
    assert suffix == "pdf" or b"bernoulli" in before  # the source, which a PDF holds encoded
    script("visualizations.py", "--figures", "reconstruction", "--format", suffix)
    assert path.read_bytes() == before


EXPECTED_DPI = "error: --dpi: expected a whole number of at least 10 and of at most 1,000, got 0"


def test_dpi_scales_a_figure(script, run_folder):
    path = "visualization_imgs/digits_reconstruction_latent_variables=2.png"
    sizes = []
    for options in ([], ["--dpi", 50]):
        assert script("visualizations.py", "--figures", "reconstruction", *options).status == 0
        with Image.open(path) as image:
            sizes.append(image.size)
    assert sizes[1] == tuple(length // 2 for length in sizes[0])
    wrong = script("visualizations.py", "--dpi", 0)
    assert (wrong.status, wrong.err.splitlines()[0]) == (2, EXPECTED_DPI)


def test_the_figures_show_the_split_that_is_asked_for(script, run_folder, monkeypatch):
    asked, images, splits = [], Digits.images, ["train", "val", "test", "all"]
    monkeypatch.setattr(Digits, "images", lambda data, split, n=None: asked.append(split) or images(data, split, n))
    for split in splits:
        assert script("visualizations.py", "--figures", "reconstruction", "--split", split).status == 0
    assert asked == splits


def test_runs_are_compared_without_their_data(script, tiny_punks):
    for name in ("one", "two"):
        script(
            "train.py", "--data", "CryptoPunks", "--model.hidden_dims", 8, "--trainer.max_epochs", 2, "--run_name", name
        )
    (tiny_punks / "punks.png").unlink()
    drawn = script(
        "visualizations.py", "--figures", "learning_curves", "training_film", "samples", "--runs", "one", "two"
    )
    assert (drawn.status, drawn.err) == (0, "")
    assert drawn.out.splitlines() == [
        "Drawing from lightning_logs/one/checkpoints/best.ckpt",
        "visualization_imgs/learning_curves.png",
        "visualization_imgs/punks_training_film_latent_variables=2.gif",
        "visualization_imgs/punks_samples_latent_variables=2.png",
    ]
    lost = script("visualizations.py", "--figures", "learning_curves", "--runs", "one", "three")
    assert lost.status == 1
    assert lost.err.startswith("error: There is no checkpoint in lightning_logs/three: name one that exists")


def test_nothing_drawn_is_an_error(script):
    script("train.py", *DIGITS, "--trainer.max_epochs", 1, "--model.latent_dim", 3)
    drawn = script("visualizations.py", "--figures", "learned_manifold")
    assert drawn.status == 1
    assert "error: none of the figures could be drawn" in drawn.err


def test_a_split_without_images(script, tiny_mnist, monkeypatch):
    monkeypatch.setattr("vae.explorer.page.MAX_IMAGES", 100)
    script("train.py", "--data", "MNIST", "--data.val_size", 0, "--model.hidden_dims", 8, "--trainer.max_epochs", 1)
    reason = "MNIST has no val images, as it was split for this model."
    outcome = script("test.py", "--split", "val")
    assert (outcome.status, outcome.err) == (1, f"error: {reason}\n")
    need_images = [name for name, figure in FIGURES.items() if "images" in signature(figure).parameters]
    cannot = [name for name in need_images if name not in CAN_SHOW_SAMPLES]
    drawn = script("visualizations.py", "--split", "val", "--figures", *need_images, "samples")
    stand_in = [
        f"{name}: samples from the prior stand in for the images, which are missing" for name in CAN_SHOW_SAMPLES
    ]
    assert (drawn.status, drawn.err.splitlines()) == (0, [*stand_in, f"Not drawn: {', '.join(cannot)}: {reason}"])
    assert len([*Path("visualization_imgs").iterdir()]) == len(CAN_SHOW_SAMPLES) + 1


def test_a_missing_data_set_costs_only_the_figures_that_show_it(script, tiny_punks, monkeypatch):
    script("train.py", "--data", "CryptoPunks", "--model.hidden_dims", 8, "--trainer.max_epochs", 1)
    (tiny_punks / "punks.png").unlink()
    fetches, fetch = [], CryptoPunks.fetch
    monkeypatch.setattr(CryptoPunks, "fetch", lambda data: fetches.append(data) or fetch(data))
    drawn = script("visualizations.py", "--figures", "reconstruction", "samples", "latent_usage", "learning_curve")
    assert drawn.status == 0
    assert drawn.err.startswith("Not drawn: reconstruction, latent_usage: punks.png could not be downloaded")
    assert len(fetches) == 1  # a server that does not answer is waited for once
    assert [line.partition("_latent")[0] for line in drawn.out.splitlines()[1:]] == [
        "visualization_imgs/punks_samples",
        "visualization_imgs/punks_learning_curve",
    ]
    alone = script("visualizations.py", "--figures", "reconstruction")
    assert alone.status == 1
    assert alone.err.startswith("error: punks.png could not be downloaded")


def test_some_figures_show_samples_from_the_prior_where_the_data_is_missing(script, tiny_punks, monkeypatch):
    monkeypatch.setattr("vae.explorer.page.MAX_IMAGES", 100)
    script("train.py", "--data", "CryptoPunks", "--model.hidden_dims", 8, "--trainer.max_epochs", 1)
    (tiny_punks / "punks.png").unlink()
    drawn = script("visualizations.py", "--figures", "traversals", "explorer")
    assert (drawn.status, drawn.err.count("samples from the prior stand in for the images")) == (0, 2)
    (page,) = Path("visualization_imgs").glob("*.html")
    assert "codes of the samples from the prior" in page.read_text()
    with Image.open(*Path("visualization_imgs").glob("*traversals*")) as image:
        assert image.info["Images"] == "samples from the prior"


@pytest.mark.parametrize("script_name", ["test.py", "visualizations.py"])
def test_a_run_or_a_checkpoint_is_named_in_one_way(script, run_folder, script_name):
    shutil.copytree(run_folder, run_folder.with_name("newer"))
    options = ["--info"] if script_name == "test.py" else ["--figures", "samples"]
    best, last = (run_folder.relative_to(Path.cwd()) / "checkpoints" / name for name in ("best.ckpt", "last.ckpt"))
    for name, expected in {
        f"--ckpt_path {best}": best,
        "--ckpt_path lightning_logs/version_0": best,
        "--ckpt_path version_0": best,
        "--run_name version_0": best,
        "--run_name version_0 --ckpt_path last": last,
    }.items():
        outcome = script(script_name, *name.split(), *options)
        assert outcome.status == 0, outcome.err
        assert outcome.out.splitlines()[0].endswith(f" {expected}")


@pytest.mark.parametrize("script_name", ["test.py", "visualizations.py"])
def test_an_error_of_the_data_names_the_option_of_this_script(script, tmp_path, script_name):
    (tmp_path / "album").mkdir()
    for i in range(20):
        Image.new("L", (8, 8), i).save(tmp_path / "album" / f"{i}.png")
    script("train.py", "--data", "ImageFolder", "--data.data_dir", "album", "--trainer.max_epochs", 1)
    options = ["--figures", "reconstruction"] if script_name == "visualizations.py" else []
    outcome = script(script_name, "--data_dir", "nowhere", *options)
    assert outcome.status == 1
    assert outcome.err.startswith("error: data_dir: there is no folder ")
    assert "--data.data_dir" not in outcome.err


def test_a_file_that_is_replaced_is_named(script, run_folder, tmp_path):
    path = "visualization_imgs/digits_samples_latent_variables=2.png"
    assert script("visualizations.py", "--figures", "samples").out.splitlines()[-1:] == [path]
    again = script("visualizations.py", "--figures", "samples").out.splitlines()[-1:]
    assert again == [f"{path}  (replaced; --output_dir keeps another run's figures apart)"]
    apart = script("visualizations.py", "--figures", "samples", "--output_dir", "apart").out.splitlines()[-1:]
    assert apart == ["apart/digits_samples_latent_variables=2.png"]


def test_a_figure_names_its_run_and_runs_that_do_not_compare_have_charts_of_their_own(script, run_folder, tmp_path):
    options = ["--model.likelihood", "gaussian_fixed", "--run_name", "other"]
    assert script("train.py", *DIGITS, "--trainer.max_epochs", 1, *options).status == 0
    titles = []
    figure = FIGURES["learning_curves"]

    def draw(histories):
        titles.extend((measured, [*runs]) for measured, runs in histories.items())
        return figure(histories)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FIGURES, "learning_curves", draw)
        script("visualizations.py", "--figures", "learning_curves", "reconstruction", "--runs", "version_0", "other")
    assert titles == [
        ("digits, bernoulli (cross-entropy)", ["version_0"]),
        ("digits, gaussian_fixed (log-density)", ["other"]),
    ]
    with Image.open("visualization_imgs/digits_reconstruction_latent_variables=2.png") as image:
        found = {part: text for part, text in image.text.items() if part != "Software"}
    source = {"Run": "version_0", "Data": "digits", "Split": "test", "Likelihood": "bernoulli"}
    assert found.pop("Epoch") in "12"
    assert found == {"Title": "reconstruction"} | source


def test_a_figure_takes_from_the_data_only_the_images_that_it_shows(script, run_folder, monkeypatch):
    asked, images = [], Digits.images
    monkeypatch.setattr(Digits, "images", lambda data, split, n=None: asked.append(n) or images(data, split, n))
    script("visualizations.py", "--figures", "reconstruction", "interpolations", "samples", "--split", "all")
    assert asked == [40, 10]
    monkeypatch.setattr("vae.runs.results.MAX_VALUES", 64 * 25)
    script("visualizations.py", "--figures", "reconstruction", "latent_scatter")
    assert asked[2:] == [25, 25]


@pytest.mark.parametrize("name", ["test.py", "visualizations.py"])
def test_an_accelerator_that_is_not_there(script, run_folder, name):
    outcome = script(name, "--accelerator", "abacus")
    assert outcome.status == 1
    assert outcome.err.startswith("error: --accelerator abacus: ")


def test_codes_are_saved_with_what_the_model_gives_for_each_image(script, run_folder):
    outcome = script("test.py", "--save", "codes.npz", "--num_samples", 10)
    assert outcome.status == 0, outcome.err
    assert outcome.out.splitlines()[-1] == "Written to codes.npz"
    with np.load("codes.npz", allow_pickle=False) as file:
        saved = dict(file)
    assert set(saved) == {"index", "elbo", "log_marginal", "means", "scales", "labels"}
    data, lit = Digits(), LitVAE.load_from_checkpoint(run_folder / "checkpoints/best.ckpt", weights_only=True)
    with torch.no_grad():
        q_z = lit.vae.encode(data.images("test"))
    assert saved["index"].tolist() == list(range(300))
    assert np.allclose(saved["means"], q_z.mean, atol=1e-5)
    assert np.allclose(saved["scales"], q_z.stddev, atol=1e-5)
    assert saved["labels"].tolist() == data.labels("test").tolist()
    metrics = json.loads((run_folder / "test_metrics.json").read_text())
    for name in ("elbo", "log_marginal"):
        assert saved[name].mean() == pytest.approx(metrics[name], rel=1e-6)
    assert not {name for name in metrics if name.startswith("probe")}


def test_codes_without_labels(script, tiny_punks):
    script("train.py", "--data", "CryptoPunks", "--model.hidden_dims", 8, "--trainer.max_epochs", 1)
    assert script("test.py", "--save", "codes.npz", "--num_samples", 1).status == 0
    with np.load("codes.npz", allow_pickle=False) as file:
        assert set(file) == {"index", "elbo", "log_marginal", "means", "scales"}
    probed = script("test.py", "--probe")
    expected = "error: --probe needs labels of two classes at least, which punks does not have.\n"
    assert (probed.status, probed.out, probed.err) == (1, "", expected)


@pytest.mark.parametrize("path", ["nowhere/a.npz", "folder.npz", "best.ckpt"])
def test_codes_that_have_no_place(script, run_folder, path):
    Path("folder.npz").mkdir()
    outcome = script("test.py", "--save", path)
    expected = f"error: {path}: expected a file that ends in .npz, in a folder that can be written to\n"
    assert (outcome.status, outcome.out, outcome.err) == (1, "", expected)


def test_the_estimator_of_log_p_x_is_chosen(script, run_folder, monkeypatch):
    """Quadrature with two latent variables; the others stay below it, in expectation, or agree within their errors."""
    monkeypatch.setattr("vae.marginal.temperatures", lambda num: temperatures(num // 4))  # to save time
    monkeypatch.setattr("vae.cli.evaluation.SIMULATED_IMAGES", 20)
    found = {}
    for estimator in ("auto", "ais", "importance"):
        outcome = script("test.py", "--estimator", estimator, "--num_images", 40)
        assert outcome.status == 0, outcome.err
        found[estimator] = json.loads((run_folder / "test_metrics.json").read_text())
        assert found[estimator]["num_images"] == 40
        assert ("null" in outcome.err, "lower bound" in outcome.out) == (False, False)
        assert ("its bounds on 20 images of the model" in outcome.err) == (estimator == "ais")  # which takes minutes
    assert (found["auto"]["estimator"], found["auto"]["num_samples"]) == ("quadrature", None)
    assert found["auto"]["log_marginal_error"] < 0.01
    assert found["ais"]["log_marginal_error"] < 0.5
    assert abs(found["ais"]["log_marginal"] - found["auto"]["log_marginal"]) < 0.3
    assert found["importance"]["log_marginal"] < found["auto"]["log_marginal"] + 0.1
    assert len({metrics["elbo"] for metrics in found.values()}) == 1  # of the same images


def test_importance_sampling_gives_an_honest_verdict(script, run_folder):
    path = run_folder / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["vae.posterior.log_var.bias"] -= 5  # far too narrow
    torch.save(checkpoint, path)
    outcome = script("test.py", "--estimator", "importance")
    assert re.match(r"log p\(x\) is too low by an unknown amount: for \d\d% of the images a few samples", outcome.err)
    assert json.loads((run_folder / "test_metrics.json").read_text())["log_marginal_error"] is None
    assert re.search(r"error of its estimate +│ unknown +│ log p\(x\) is at least that, in expectation │", outcome.out)
    assert script("test.py", "--estimator", "importance", "--num_samples", 1).err == ""


def test_a_number_of_samples_chooses_the_estimator_that_samples(script, run_folder):
    assert script("test.py", "--num_samples", 5, "--num_images", 40).status == 0
    found = json.loads((run_folder / "test_metrics.json").read_text())
    assert (found["estimator"], found["num_samples"]) == ("importance", 5)
    refused = script("test.py", "--num_samples", 5, "--estimator", "quadrature")
    expected = "error: --num_samples is an option of --estimator importance, not of quadrature\n"
    assert (refused.status, refused.out, refused.err) == (1, "", expected)


def test_quadrature_of_many_latent_variables_is_refused(script, trained_once, tmp_path):
    trained_once(tmp_path, *DIGITS, "--model.latent_dim", 4, "--trainer.max_epochs", 1)
    outcome = script("test.py", "--estimator", "quadrature")
    expected = "error: --estimator quadrature: expected at most 3 latent variables, got 4; take ais\n"
    assert (outcome.status, outcome.out, outcome.err) == (1, "", expected)


def test_a_probe_of_the_codes(script, run_folder):
    """Of a part of the split: by all distances, and by scikit-learn on codes standardised by hand."""
    outcome = script("test.py", "--probe", "--num_images", 100, "--save", "codes.npz")
    assert outcome.status == 0, outcome.err
    metrics = json.loads((run_folder / "test_metrics.json").read_text())
    data, lit = Digits(), LitVAE.load_from_checkpoint(run_folder / "checkpoints/best.ckpt", weights_only=True)
    with torch.no_grad():
        train, tested = (lit.vae.encode(data.images(split)).mean for split in ("train", "test"))
    with np.load("codes.npz", allow_pickle=False) as file:
        index, labels = file["index"], file["labels"]
    assert labels.tolist() == data.labels("test")[index].tolist()
    tested = tested[index]
    nearest = data.labels("train")[torch.cdist(tested.double(), train.double()).argmin(1)]
    found = (nearest.numpy() == labels).mean()
    assert metrics["probe_nearest_neighbour"] == pytest.approx(found, abs=1e-9)
    train, tested = ((codes - train.mean(0)) / train.std(0, correction=0) for codes in (train, tested))
    linear = LogisticRegression(max_iter=1_000).fit(train, data.labels("train"))
    assert metrics["probe_linear"] == pytest.approx(linear.score(tested, labels), abs=0.02)
    assert f"{metrics['probe_linear']:.3f}" in outcome.out


def test_a_folder_with_names_that_are_no_utf8_which_changes_after_training(script, tmp_path):
    folder = tmp_path / os.fsdecode(b"\xe9tudes") / os.fsdecode(b"caf\xe9")
    folder.mkdir(parents=True)
    (folder / "notes.txt").touch()
    for shade in range(40):
        Image.new("L", (8, 8), shade).save(folder / f"{shade}.png")
    (tmp_path / "link").symlink_to(folder.parent)
    options = ("--data", "ImageFolder", "--data.data_dir", "link", "--data.size", "[8,8]", "--data.channels", "1")
    with pytest.warns(DataWarning, match="skipped 1 files, not images by their suffix"):
        trained = script("train.py", *options, *DIGITS[2:], "--trainer.max_epochs", "1")
    assert trained.status == 0, trained.err
    for shade in range(40, 90):
        Image.new("L", (8, 8), shade).save(folder / f"{shade}.png")
    for command, *rest in (("test.py", "--num_samples", "1"), ("visualizations.py", "--figures", "latent_scatter")):
        with pytest.warns(DataWarning, match="link has changed since training: images: 0 gone, 50 new"):
            done = script(command, *rest)
        assert done.status == 0, done.err
    resumed = script("train.py", "--ckpt_path", "last", "--trainer.max_epochs", "2")
    assert resumed.status == 1
    assert resumed.err.endswith("Resume it with the data it began with, or begin a new run.\n")


def test_a_run_that_is_read_only_is_tested(script, run_folder, monkeypatch):
    def read_only(path, content):
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr("vae.runs.results.write_atomically", read_only)
    before = sorted(run_folder.iterdir())
    outcome = script("test.py", "--num_samples", 1)
    path = "lightning_logs/version_0/test_metrics.json"
    assert (outcome.status, "log p(x)" in outcome.out) == (0, True)
    assert outcome.err == f"warning: {path} could not be written: Read-only file system. The table is all.\n"
    assert sorted(run_folder.iterdir()) == before


def test_a_metric_that_is_not_finite_is_null(script, run_folder):
    path = run_folder / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    for weights in checkpoint["state_dict"].values():
        weights.fill_(torch.nan)
    torch.save(checkpoint, path)
    outcome = script("test.py", "--probe", "--estimator", "importance", "--num_samples", "1,10")
    assert outcome.status == 0, outcome.err
    assert "warning: not finite, and so null in the file: bound_1, bound_10," in outcome.err
    metrics = json.loads((run_folder / "test_metrics.json").read_text(), parse_constant=pytest.fail)
    assert (metrics["elbo"], metrics["bounds"], metrics["probe_linear"]) == (None, {"1": None, "10": None}, None)
    assert (metrics["kl_per_dimension"], metrics["num_images"]) == ([None, None], 300)


def test_a_long_test_that_is_piped_says_how_far_it_is(script, run_folder, monkeypatch):
    monkeypatch.setattr(sys.modules["vae.callbacks.progress"], "SECONDS_BETWEEN_LINES", 0)
    outcome = script("test.py", "--estimator", "importance", "--num_samples", 1)
    assert outcome.err.splitlines() == [f"Tested {place} of 3 batches" for place in (1, 2)]
