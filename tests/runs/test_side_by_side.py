"""python3 -m vae.runs: all runs side by side."""

import csv
import io
import json
import shutil
from functools import partial
from math import isnan
from pathlib import Path

import pytest
import torch
from processes import PROJECT

from vae.runs.__main__ import VALUES, differing, find_runs, rows, summary


@pytest.fixture
def side_by_side(script):
    """Runs the command in this process."""
    return partial(script, "vae/runs/__main__.py")


@pytest.fixture
def one_run(trained_once, tmp_path):
    options = ["--trainer.max_epochs", 1, "--model.hidden_dims", 8, "--run_name", "b"]
    return trained_once(tmp_path, "--data", "Digits", *options).relative_to(tmp_path)


@pytest.fixture
def three_runs(one_run, script):
    """Two runs that differ in their seed alone, tested, and one with another latent space."""
    assert script("test.py", "--num_samples", 5).status == 0
    tested = one_run / "test_metrics.json"
    for seed in (0, 1):
        run = Path(shutil.copytree(one_run, one_run.with_name(f"a{seed}")))
        change_settings(run, model={"seed": seed}, data={"options": {"seed": seed}})
        metrics = json.loads(tested.read_text())
        (run / tested.name).write_text(json.dumps(metrics | {"elbo": metrics["elbo"] + seed / 3}))
    change_settings(one_run, model={"latent_dim": 5})
    tested.unlink()


def change_settings(run, **settings):
    path = run / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    for group, options in settings.items():
        is_whole = not isinstance(options, dict)
        checkpoint["settings"][group] = options if is_whole else checkpoint["settings"][group] | options
    torch.save(checkpoint, path)


def test_runs_of_several_seeds_are_one_row_with_mean_and_standard_deviation(three_runs, side_by_side):
    done = side_by_side("--csv")
    assert done.status == 0, done.err
    both, other = csv.DictReader(io.StringIO(done.out))
    assert (both["run"], both["seeds"], both["model.latent_dim"]) == ("a0 a1", "0 1", "2")
    assert (other["run"], other["model.latent_dim"]) == ("b", "5")
    assert not {"model.activation", "trainer.max_epochs"} & both.keys()  # they do not differ
    columns = [f"{name} {part}" for name in VALUES for part in ("mean", "sd", "n")]
    first, second = ({name: float(row[name] or "nan") for name in columns} for row in (both, other))
    logs = Path("lightning_logs")
    elbo = torch.tensor([json.loads((logs / name / "test_metrics.json").read_text())["elbo"] for name in ("a0", "a1")])
    assert first["test ELBO mean"] == pytest.approx(elbo.mean().item(), rel=1e-6)
    assert first["test ELBO sd"] == pytest.approx(elbo.std().item(), rel=1e-3)
    assert (first["test ELBO n"], second["test ELBO n"], second["best val ELBO n"]) == (2, 0, 1)
    empty = {
        "test ELBO mean",
        "test ELBO sd",
        "test log p(x) mean",
        "test log p(x) sd",
        "best val ELBO sd",
        "epochs sd",
    }
    assert {name for name in columns if isnan(second[name])} == empty
    table = side_by_side().out
    assert f"{elbo.mean():.2f} ± {elbo.std():.2f}" in table
    assert "latent_dim 5" in table
    assert "a0 a1" in table


DAMAGES = {
    "nonsense": lambda run: change_settings(run, model="nonsense"),
    "no data": lambda run: change_settings(run, data=None),
    "cut": lambda run: (run / "test_metrics.json").write_text("{"),
    "list": lambda run: (run / "test_metrics.json").write_text("[1]"),
    "text": lambda run: (run / "test_metrics.json").write_text('{"elbo": "high"}'),
    "nan": lambda run: (run / "test_metrics.json").write_text('{"elbo": NaN}'),
    "bytes": lambda run: (run / "test_metrics.json").write_bytes(b"\xff"),
    "epoch": lambda run: torch.save({"epoch": "one"}, run / "checkpoints/best.ckpt"),
    "callbacks": lambda run: torch.save({"epoch": 1, "callbacks": [3]}, run / "checkpoints/best.ckpt"),
}


def test_a_damaged_run_is_named_and_left_out(one_run, side_by_side):
    for name, damage in DAMAGES.items():
        damage(Path(shutil.copytree(one_run, one_run.with_name(name))))
    shutil.copytree(one_run, one_run.with_name("dangling"))
    for path in one_run.with_name("dangling").glob("checkpoints/*.ckpt"):  # a run without a checkpoint: none
        path.unlink()
        path.symlink_to("nowhere")
    done = side_by_side("--csv")
    assert len(done.out.splitlines()) == 2
    for line, name in zip(done.err.splitlines(), sorted(DAMAGES), strict=True):
        assert line.startswith(f"left out: lightning_logs/{name}")


def test_texts_of_an_untrusted_run_are_shown_as_they_are(one_run, side_by_side):
    shutil.copytree(one_run, one_run.with_name("other"))
    change_settings(one_run, model={"likelihood": "[/red]\x1b[31m"})
    table = side_by_side()
    assert table.status == 0, table.err
    assert "likelihood [/red]?[31m" in table.out


def test_what_only_some_seeds_have_is_counted_and_other_first_weights_are_another_row(three_runs, side_by_side):
    Path("lightning_logs/a1/test_metrics.json").unlink()
    other = Path(shutil.copytree("lightning_logs/b", "lightning_logs/c"))
    change_settings(other, init_from="b")
    both, b, c = csv.DictReader(io.StringIO(side_by_side("--csv").out))
    assert (both["test ELBO n"], both["epochs n"]) == ("1", "2")
    assert (b["init_from"], c["init_from"]) == ("", "b")
    assert summary(rows(find_runs("a*"))[0], "test ELBO").endswith(" (1 of 2)")


@pytest.mark.parametrize(
    ("named", "found"),
    [
        (["a*"], ["a0", "a1"]),
        (["lightning_logs/a?"], ["a0", "a1"]),
        (["lightning_logs/b", "a1"], ["b", "a1"]),
        (["lightning_logs", "a0"], ["a0", "a1", "b", "c[1]", "checkpoints"]),
        (["c[1]", "none*"], ["c[1]"]),
        (["elsewhere", "a0"], ["elsewhere/a0", "lightning_logs/a0"]),
        (["b"], ["b"]),  # and not the folder of that name here
        (["./b"], ["b/a0"]),
        (["d"], ["d/a0"]),  # since the run of that name has no checkpoint
    ],
)
def test_runs_are_chosen_by_name_folder_or_pattern(named, found):
    logs, others = Path("lightning_logs"), ("elsewhere/a0", "b/a0", "d/a0")
    for run in (*(logs / name for name in ("a0", "a1", "b", "c[1]", "checkpoints")), *map(Path, others)):
        (run / "checkpoints").mkdir(parents=True)
        (run / "checkpoints" / "best.ckpt").touch()
    (logs / "d").mkdir()  # without a checkpoint
    runs = [run for name in named for run in find_runs(name)]
    assert [str(run) for run in dict.fromkeys(runs)] == [
        name if "/" in name else f"lightning_logs/{name}" for name in found
    ]


def run_with(folder, data="Digits", data_options=None, trainer=None, seed=0, **model):
    """A run as far as the table reads it."""
    (folder / "checkpoints").mkdir(parents=True)
    model = {"network": "mlp", "likelihood": "bernoulli", "channels": [32, 64], "scale": 0.1, "min_scale": 0.01} | model
    data = {"name": data, "options": data_options or {}}
    settings = {"model": model | {"seed": seed}, "data": data, "trainer": trainer or {}}
    torch.save({"epoch": 3, "settings": settings}, folder / "checkpoints" / "best.ckpt")


def test_a_second_run_of_a_seed_is_no_replicate():
    for place, seed in enumerate((0, 0, 1, 0)):
        run_with(Path(f"lightning_logs/a{place}"), seed=seed)
    table = rows(find_runs("lightning_logs"))
    assert [(row.runs, row.seeds) for row in table] == [(["a0", "a2"], [0, 1]), (["a1"], [0]), (["a3"], [0])]
    assert summary(table[0], "epochs") == "4 ± 0"


def test_options_that_change_no_number_split_no_replicates():
    for seed, options in enumerate([{}, {"enable_progress_bar": False, "log_every_n_steps": 5}]):
        run_with(
            Path(f"lightning_logs/a{seed}"), data_options={"steps_per_block": 10 + seed}, trainer=options, seed=seed
        )
    assert [row.seeds for row in rows(find_runs("a*"))] == [[0, 1]]


def test_options_that_a_model_does_not_take_fill_neither_rows_nor_columns():
    for place, options in enumerate([{}, {"channels": [4]}, {"scale": 0.3}]):  # one model, and no replicates of a seed
        run_with(Path(f"lightning_logs/a{place}"), **options)
    table = rows(find_runs("a*"))
    assert ([row.runs for row in table], differing(table)) == ([["a0"], ["a1"], ["a2"]], [])
    run_with(Path("lightning_logs/b0"), likelihood="gaussian_fixed", scale=0.3)
    assert differing(rows(find_runs("*"))) == ["model.likelihood"]
    run_with(Path("lightning_logs/b1"), likelihood="gaussian_fixed", scale=0.4)
    run_with(Path("lightning_logs/c0"), data="MNIST", data_options={"val_size": 10})
    assert differing(rows(find_runs("*"))) == ["model.likelihood", "model.scale"]
    run_with(Path("lightning_logs/c1"), data="MNIST", data_options={"val_size": 20})
    assert "data.val_size" in differing(rows(find_runs("*")))
    run_with(Path("lightning_logs/d"), likelihood="one_of_mine", channels=[3])  # nobody knows what it takes
    assert "model.channels" in rows(find_runs("d"))[0].settings


def test_no_runs(fork, tmp_path):
    """As a process, and by the module's name."""
    (tmp_path / "module.py").write_text("import runpy\nrunpy.run_module('vae.runs', run_name='__main__')\n")
    done = fork(tmp_path / "module.py", PYTHONPATH=str(PROJECT))
    assert (done.status, done.out) == (2, "")
    assert "there is no run with a checkpoint in lightning_logs" in done.err
