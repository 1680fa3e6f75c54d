"""The three scripts from end to end, and the README's Python."""

import json
import re
import shlex

import pytest
from helpers import DIGITS
from PIL import Image
from processes import PROJECT

from vae.figures import FIGURES


def test_train_test_and_draw_from_end_to_end(process, tmp_path):
    trained = process("train.py", *DIGITS, "--trainer.max_epochs", "3", "--run_name", "mine")
    assert (trained.status, trained.err) == (0, "")
    report = trained.out.splitlines()
    best = re.fullmatch(r"Best +validation ELBO (-\d+\.\d\d) nats per image in epoch 3, of a cross-entropy", report[-4])
    assert "lightning_logs/mine" in report[-6]
    assert re.fullmatch(r"Trained +3 epochs in 0 min \d+ s", report[-5])
    commands = [line.removeprefix("Next").strip() for line in report[-3:]]
    scripts = [shlex.quote(str(PROJECT / name)) for name in ("test.py", "visualizations.py")]
    assert commands == [*(f"python3 {path}" for path in scripts), "tensorboard --logdir lightning_logs"]
    pattern = r"Epoch {} of 3: val/elbo -\d+\.\d\d, \d+\.\d s, [\d,]+ images/s{}"
    for epoch, line in enumerate(report[:-6], start=1):  # no bars and no tips: the output is no terminal
        assert re.fullmatch(pattern.format(epoch, r", \d:\d\d:\d\d left" if epoch < 3 else ""), line)
    assert len(report) == 3 + 6
    run = tmp_path / "lightning_logs" / "mine"
    names = sorted(path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file())
    projector = [f"00036/posterior_means/{name}" for name in ("metadata.tsv", "sprite.png", "tensors.tsv")]
    assert [name for name in names if "tfevents" not in name] == [
        ".lock",
        *projector,
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "config.yaml",
        *[f"frames/00000{epoch}.png" for epoch in (1, 2, 3)],
        "hparams.yaml",
        "projector_config.pbtxt",
    ]

    tested = process("test.py", "--split", "val", "--num_samples", 1)
    assert (tested.status, tested.err) == (0, "")
    assert "lightning_logs/mine/checkpoints/best.ckpt" in tested.out
    assert "nats per image" in tested.out
    metrics = json.loads((run / "test_metrics.best.val.json").read_text())
    assert metrics["split"] == "val"
    assert f"{metrics['elbo']:.2f}" == best[1]  # what training reported

    drawn = process("visualizations.py")
    assert drawn.status == 0
    assert re.fullmatch("Not drawn: latent_usage compares more than two latent variables; .*\n", drawn.err)
    kinds = dict.fromkeys(FIGURES, "png") | {"training_film": "gif", "explorer": "html"}
    del kinds["latent_usage"]
    names = [f"digits_{name}_latent_variables=2.{kind}" for name, kind in kinds.items()]
    names[[*kinds].index("learning_curves")] = "learning_curves.png"  # which may be of several runs
    assert sorted(path.name for path in (tmp_path / "visualization_imgs").iterdir()) == sorted(names)
    assert drawn.out.splitlines()[1:] == [f"visualization_imgs/{name}" for name in names]
    for name in (name for name in names if not name.endswith(".html")):
        with Image.open(tmp_path / "visualization_imgs" / name) as image:
            image.load()
            assert min(image.size) > 200


@pytest.mark.slow
def test_own_images_from_end_to_end(script, tmp_path):
    (tmp_path / "album").mkdir()
    for i in range(20):
        Image.new("RGB", (9, 7), (10 * i, 0, 0)).save(tmp_path / "album" / f"{i}.png")
    options = ["--data", "ImageFolder", "--data.data_dir", "album", "--data.size", "[7,9]", "--trainer.max_epochs", 1]
    assert script("train.py", *options, "--model.latent_dim", 4, "--model.hidden_dims", 8).status == 0
    (tmp_path / "album").rename(tmp_path / "moved")
    assert script("test.py", "--data_dir", "moved", "--num_samples", 1).status == 0
    shown = [name for name in FIGURES if "learning" not in name]
    drawn = script("visualizations.py", "--data_dir", "moved", "--split", "all", "--figures", *shown)
    assert drawn.status == 0
    assert drawn.err.splitlines() == [
        "Not drawn: reconstruction_by_class needs labels; these images have none",
        "Not drawn: learned_manifold needs a latent space of 1 or 2 dimensions; this model has 4",
        "Not drawn: posterior needs a latent space of 2 dimensions; this model has 4",
    ]
    assert {path.name.split("_latent_variables=4.")[0] for path in (tmp_path / "visualization_imgs").iterdir()} == {
        f"moved_{name}" for name in shown if name not in ("reconstruction_by_class", "learned_manifold", "posterior")
    }


def test_exact_punks_from_end_to_end(script, tiny_punks, tmp_path):
    """A categorical likelihood, whose palette the data module tells."""
    options = ["--model.likelihood", "categorical", "--model.network", "conv", "--model.channels", "[4,8]"]
    options += ["--model.learning_rate", 0.01, "--trainer.max_epochs", 3]
    assert script("train.py", "--data", "CryptoPunks", *options).status == 0
    tested = script("test.py", "--estimator", "importance", "--num_samples", "1,10")
    assert tested.status == 0
    assert "log-likelihood" in tested.out
    metrics = json.loads((tmp_path / "lightning_logs" / "version_0" / "test_metrics.json").read_text())
    assert metrics["bits_per_dim"] == pytest.approx(-metrics["bounds"]["10"] / 1728 / 0.6931472, rel=1e-5)
    assert metrics["bounds"]["1"] <= metrics["bounds"]["10"] + 2.3026  # log 10: all weights are positive
    assert metrics["bounds"]["10"] == metrics["log_marginal"]
    assert script("visualizations.py", "--figures", "reconstruction", "samples").status == 0
    with Image.open("visualization_imgs/punks_samples_latent_variables=2.png") as image:
        grid = image.convert("RGB").crop((0, 50, image.width, image.height - 30))  # between title and caption
        shown = {colour for _, colour in grid.getcolors()} - {(255, 255, 255)}
    assert shown <= {(10 * i, i, 0) for i in range(12)} | {(0x63, 0x85, 0x96), (0x31, 0x42, 0x4B)}


@pytest.mark.parametrize("objective", ["iwae", "dreg"])
def test_the_importance_weighted_bound_from_end_to_end(script, objective):
    options = ["--model.objective", objective, "--model.num_samples", 5, "--trainer.max_epochs", 2]
    assert script("train.py", *DIGITS, *options).status == 0
    assert script("test.py", "--split", "val", "--num_samples", 2).status == 0


@pytest.mark.parametrize("name", ["train.py", "test.py", "visualizations.py"])
def test_help_names_the_options(script, name):
    shown = script(name, "--help")
    assert shown.status == 0
    expected = {
        "train.py": ["--model.latent_dim", "number of latent variables", "--run_name", "--ckpt_path", "--trainer.help"],
        "test.py": ["--num_samples", "Samples of the estimator importance", "--split", "--data_dir", "--devices"],
        "visualizations.py": [
            *["--figures", "learned_manifold", "--output_dir", "--split", "--runs", "--grid_size", "--tsne_points"],
            "How many samples there are",
        ],
    }
    assert [text for text in expected[name] if text not in shown.out] == []
    if name == "train.py":
        assert "--trainer.max_epochs" in script(name, "--trainer.help").out


def test_the_readmes_python_works(tmp_path, monkeypatch):
    """The README's ten lines, run as they stand."""
    monkeypatch.syspath_prepend(PROJECT)
    (code,) = re.findall(r"```python\n(.*?)```", (PROJECT / "README.md").read_text(), re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
