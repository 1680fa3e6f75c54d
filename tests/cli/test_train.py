"""train.py's options and configuration files."""

import pytest
import torch
import yaml
from helpers import DIGITS
from processes import PROJECT

from datamodules import DATASETS, DataError, Digits, ImageDataModule
from vae.cli import TrainCLI


def test_options_reach_model_trainer_and_data(script, tmp_path):
    options = ["--model.latent_dim", 3, "--model.hidden_dims", "[16,8]", "--model.activation", "tanh"]
    options += ["--model.likelihood", "gaussian", "--model.optimizer", "Adagrad", "--model.learning_rate", 0.02]
    options += [
        "--trainer.precision",
        "64-true",
        "--data.batch_size",
        50,
        "--seed_everything",
        7,
        "--trainer.max_epochs",
        1,
    ]
    assert script("train.py", "--data", "Digits", *options).status == 0
    checkpoint = torch.load("lightning_logs/version_0/checkpoints/last.ckpt", weights_only=True)
    model, data = checkpoint["hyper_parameters"], checkpoint["datamodule_hyper_parameters"]
    assert (model["latent_dim"], model["hidden_dims"], model["activation"]) == (3, (16, 8), "tanh")
    assert (model["likelihood"], model["optimizer"], model["learning_rate"]) == ("gaussian", "Adagrad", 0.02)
    assert (data["batch_size"], data["seed"], model["seed"]) == (50, 7, 7)
    assert checkpoint["global_step"] == 24


def test_a_configuration_file_repeats_a_run(script, tmp_path):
    script("train.py", *DIGITS, "--trainer.max_epochs", 2, "--run_name", "mine")
    run_folder = tmp_path / "lightning_logs" / "mine"
    config = yaml.safe_load((run_folder / "config.yaml").read_text())
    assert config["model"]["hidden_dims"] == 32
    assert (config["trainer"]["max_epochs"], config["trainer"]["devices"]) == (
        2,
        1,
    )  # also those that --help leaves out
    assert script("train.py", "--config", run_folder / "config.yaml").status == 0
    weights = [
        torch.load(f"lightning_logs/{name}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("mine", "version_0")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_bad_data_leaves_no_run_folder(tmp_path):
    cli = TrainCLI(ImageDataModule, DATASETS, ["--data", "CryptoPunks"])
    with pytest.raises(DataError):
        cli.fit()
    assert not (tmp_path / "lightning_logs").exists()


def test_help_is_short_and_lists_choices(script):
    shown = script("train.py", "--help").out
    assert len(shown.splitlines()) < 150
    assert "--trainer.max_epochs" not in shown
    assert "--trainer.help" in shown
    assert "{MNIST,CryptoPunks,Digits,FreyFace,ImageFolder,Torchvision}" in shown
    assert "--model.likelihood {bernoulli," in shown
    for text in ("(type:", "Union[", "null", "<function", "<class", "Linked arguments"):
        assert text not in shown
    assert shown.index("--model.latent_dim") < shown.index("--data.help")


class Undocumented(Digits):
    """Digits whose option has no entry in a docstring."""

    def __init__(self, size: int = 3, **kwargs):
        super().__init__(**kwargs)


def test_a_default_is_shown_once(script, monkeypatch):
    monkeypatch.setitem(DATASETS, "Undocumented", Undocumented)
    shown = script("train.py", "--data.help", "Undocumented").out
    assert (shown.count("--data.size"), shown.count("(default: 3)"), "None" in shown) == (1, 1, False)


def test_the_trainer_has_a_help_of_its_own(script):
    shown = script("train.py", "--trainer.help")
    assert shown.status == 0
    assert "--trainer.max_epochs" in shown.out
    assert "--trainer.gradient_clip_val" not in shown.out  # refused
    assert "--model" not in shown.out


def test_classes_among_the_options_of_the_trainer(script):
    options = ["--trainer.max_epochs", 1, "--trainer.profiler", "PassThroughProfiler"]
    options += ["--trainer.plugins", "LightningEnvironment", "--trainer.callbacks", "RichProgressBar"]
    assert script("train.py", *DIGITS, *options).status == 0


def test_the_report_counts_what_was_trained(script):
    assert "Trained   2 epochs in 0 min" in script("train.py", *DIGITS, "--trainer.max_epochs", 2).out
    resumed = script("train.py", "--ckpt_path", "last", "--trainer.max_epochs", 3)
    assert "Trained   1 epoch, 3 in all, in 0 min" in resumed.out
    finished = script("train.py", "--ckpt_path", "last")
    assert "Trained   nothing: the run has its 3 epochs; --trainer.max_epochs 6 goes further" in finished.out
    assert "Embedding dir" not in finished.out + finished.err
    partial = script("train.py", *DIGITS, "--trainer.max_steps", 5)
    assert "Trained   0 epochs in 0 min" in partial.out
    assert "Next" not in partial.out  # there is no checkpoint


def test_the_report_names_the_scripts_where_they_are(script):
    out = script("train.py", *DIGITS, "--trainer.max_epochs", 1).out
    assert f"Next      python3 {PROJECT / 'test.py'}\n          python3 {PROJECT / 'visualizations.py'}\n" in out


@pytest.mark.parametrize("name", ["last", "version_0", "lightning_logs/version_0"])
def test_a_run_is_resumed_by_any_of_its_names(script, run_folder, name):
    assert "Trained   1 epoch, 3 in all" in script("train.py", "--ckpt_path", name, "--trainer.max_epochs", 3).out
