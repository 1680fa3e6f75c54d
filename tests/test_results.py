"""RESULTS.md, the recipes behind it, and the ready-made models."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from datamodules import DATASETS
from vae import runs

PROJECT = Path(__file__).parents[1]
SECTIONS = yaml.safe_load((PROJECT / "results" / "rows.yaml").read_text())
ROWS = [row for section in SECTIONS for row in section["rows"]]
MODELS = sorted((PROJECT / "pretrained").glob("*.ckpt"))


def test_results_md_is_what_the_committed_metrics_make():
    made = subprocess.run(
        [sys.executable, PROJECT / "results" / "table.py"], capture_output=True, text=True, check=True
    )
    assert made.stdout == (PROJECT / "RESULTS.md").read_text()


RUN = [row for row in ROWS if (PROJECT / "results" / f"{row['recipe']}.json").exists()]  # the page says which are not


@pytest.mark.parametrize("row", RUN, ids=lambda row: row["recipe"])
def test_a_row_has_the_runs_that_its_recipe_says(row):
    found = json.loads((PROJECT / "results" / f"{row['recipe']}.json").read_text())
    assert found["recipe"] == yaml.safe_load((PROJECT / "configs" / f"{row['recipe']}.yaml").read_text())
    seeds = [run["seed"] for run in found["runs"]]
    assert seeds == row.get("seeds", [0])[: len(seeds)]


def test_no_recipe_and_no_metrics_without_a_row():
    recipes = {row["recipe"] for row in ROWS}
    assert {path.stem for path in (PROJECT / "configs").glob("*.yaml")} == recipes
    assert {path.stem for path in (PROJECT / "results").glob("*.json")} <= recipes


@pytest.mark.parametrize("path", sorted((PROJECT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_is_one_that_train_py_takes(path, script, tiny_mnist, tiny_punks):
    done = script("train.py", "--config", path, "--print_config")
    assert done.status == 0, done.err
    settings = yaml.safe_load(done.out)
    for name, value in yaml.safe_load(path.read_text())["model"].items():
        assert settings["model"][name] == value or settings["model"][name] == [value]


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_a_ready_made_model_is_weights_and_hyper_parameters_that_work(path, tmp_path):
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint.keys() == {
        *("state_dict", "hyper_parameters", "datamodule_hyper_parameters", "epoch", "versions"),
    }
    assert checkpoint["datamodule_hyper_parameters"]["data_dir"] is None
    lit, data = runs.load_run(path, DATASETS)
    assert lit.vae.sample(2).shape == (2, *data.image_shape)


def test_the_ready_made_models_have_a_card_each_and_are_small():
    cards = (PROJECT / "pretrained" / "README.md").read_text()
    assert all(f"## {path.stem}" in cards for path in MODELS)
    assert len(MODELS) == 4
    assert sum(path.stat().st_size for path in MODELS) < 16_000_000


def test_ready_made_figures_need_no_data(script, tmp_path, monkeypatch):
    path = PROJECT / "pretrained" / "mnist_2d.ckpt"
    monkeypatch.setenv("VAE_DATA_DIR", str(tmp_path / "nothing"))
    drawn = script("visualizations.py", "--ckpt_path", path, "--figures", "samples", "traversals")
    assert drawn.status == 0, drawn.err
    assert len([*Path("visualization_imgs").iterdir()]) == 2
