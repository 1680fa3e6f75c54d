"""train.py's options and configuration files."""

import pytest
import torch
import yaml
from helpers import DIGITS

from datamodules import DATASETS, DataError, ImageDataModule
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
