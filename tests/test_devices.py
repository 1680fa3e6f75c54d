"""Several processes, as real ones over gloo: they share the images out, find the same, and one of them writes."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from processes import PROJECT, Forked, Fresh

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])

TEST = """
import json, sys, torch
from datamodules import ImageDataModule, ImageDataset
from functools import partial
from vae import LitVAE
from vae.marginal import importance_sampling
from vae.cli import evaluation_trainer

class MadeUp(ImageDataModule):
    name, image_shape = "made up", (1, 12, 12)

    def load(self):
        images = torch.randint(256, (2_001, 1, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
        return dict.fromkeys(("train", "val", "test"), ImageDataset(images))

torch.manual_seed(0)
lit = LitVAE(image_shape=(1, 12, 12), latent_dim=3, hidden_dims=16)
lit.estimator = partial(importance_sampling, num_samples=(1, 40))
(found,) = evaluation_trainer(accelerator="cpu", devices=int(sys.argv[1])).test(lit, MadeUp(), verbose=False)
if lit.global_rank == 0:
    print(json.dumps(found))
"""

TRAIN = """
import sys, torch
from types import SimpleNamespace
from pytorch_lightning import Trainer
from datamodules import ImageDataModule, ImageDataset
from vae import LitVAE

class MadeUp(ImageDataModule):
    name, image_shape = "made up", (1, 6, 6)

    def load(self):
        images = torch.randint(256, (1_200, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
        return dict.fromkeys(("train", "val", "test"), ImageDataset(images))

class WithoutNoise(LitVAE):
    def training_noise(self, num_images, step):
        return SimpleNamespace(eps=torch.zeros(1, num_images, 2))

torch.manual_seed(0)
devices = int(sys.argv[1])
lit = WithoutNoise(image_shape=(1, 6, 6), hidden_dims=8, gradient_clip_val=1.0, lr_schedule="cosine")
quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
trainer = Trainer(accelerator="cpu", devices=devices, max_steps=27, use_distributed_sampler=False, **quiet)
trainer.fit(lit, MadeUp(batch_size=120 // devices, steps_per_block=4))
assert trainer.global_step == 27
if trainer.is_global_zero:
    torch.save(lit.vae.state_dict(), f"weights_{devices}.pt")
"""

ALONE = """
import sys, torch
from pytorch_lightning import Callback
from vae.cli import TrainCLI, user_facing_errors
from datamodules import DATASETS, ImageDataModule

class Poison(Callback):
    def on_train_batch_start(self, trainer, lit, batch, batch_idx):
        if trainer.global_rank == 1 and batch_idx == 1:
            batch.images.fill_(torch.nan)

with user_facing_errors():
    TrainCLI(ImageDataModule, DATASETS).fit()
"""

SEEN = """
from pytorch_lightning import Callback

class Seen(Callback):
    def on_train_batch_end(self, trainer, lit, outputs, batch, batch_idx):
        with open(f"seen_{trainer.current_epoch}_{trainer.global_rank}", "a") as file:
            print(*batch.index.tolist(), file=file)
"""


@pytest.fixture(params=["forked", pytest.param("fresh", marks=pytest.mark.slow)])
def launch(request, tmp_path, tmp_path_factory):
    """Runs a program on several devices: forked as `torchrun` starts it, or among the slow tests by Lightning."""

    def launch(script, *args, devices):
        if request.param == "fresh" or devices == 1:
            kind = Fresh if request.param == "fresh" else Forked
            ranks = [kind(tmp_path_factory.mktemp("streams"), script, *args, PYTHONPATH=path)]
        else:
            environ = {"WORLD_SIZE": str(devices), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
            environ |= {"TORCHELASTIC_RUN_ID": "a test", "PYTHONPATH": path}
            ranks = [
                Forked(tmp_path_factory.mktemp("streams"), script, *args, **environ, RANK=rank, LOCAL_RANK=rank)
                for rank in map(str, range(devices))
            ]
        outcomes = [rank.result(timeout=200) for rank in ranks]
        assert [outcome.status for outcome in outcomes] == [0] * len(ranks), "".join(o.err for o in outcomes)
        return "".join(outcome.out for outcome in outcomes)

    path = os.pathsep.join([str(PROJECT), str(tmp_path)])
    return launch


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_a_test_finds_the_same_with_one_and_with_two_processes(launch, tmp_path):
    """Whose shares of the images are not of one size."""
    (tmp_path / "made_up.py").write_text(TEST)
    one, two = (
        json.loads(launch(tmp_path / "made_up.py", devices, devices=devices).splitlines()[-1]) for devices in (1, 2)
    )
    assert one["test/num_images"] == 2_001
    assert two == pytest.approx(one, rel=0, abs=1e-6)


def test_three_processes_train_the_same_weights_as_one(launch, tmp_path):
    """Without noise, whose seed has the rank in it; the batches of all processes together are the same."""
    (tmp_path / "train_made_up.py").write_text(TRAIN)
    for devices in (1, 3):
        launch(tmp_path / "train_made_up.py", devices, devices=devices)
    one, three = (torch.load(tmp_path / f"weights_{devices}.pt") for devices in (1, 3))
    for name in one:
        torch.testing.assert_close(three[name], one[name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_in_one_process_alone(tmp_path, monkeypatch):
    """All processes end, with one message, at the step of that process."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(PROJECT), str(tmp_path)]))
    (tmp_path / "alone.py").write_text(ALONE)
    options = ["--data", "Digits", "--data.batch_size", "50", "--data.steps_per_block", "4", "--model.hidden_dims", "8"]
    options += ["--trainer.devices", "2", "--trainer.accelerator", "cpu", "--trainer.callbacks+", "alone.Poison"]
    command = [sys.executable, "alone.py", *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 1
    assert done.stderr.count("The loss is not finite in epoch 1, from step 5 on.") == 1
    assert "Traceback" not in done.stderr


FAILURES = """
from pytorch_lightning import Callback

class Disk(Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_rank == 1 and trainer.current_epoch == 1:
            raise OSError(28, "No space left on device", "elsewhere")

class Bug(Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_rank == 1:
            raise AssertionError("a bug")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failure", "message"),
    [
        ("Disk", "error in process 1: elsewhere: No space left on device: free some space\n"),
        ("Bug", r"\[rank1\]: Traceback (.*\n)*\[rank1\]: AssertionError: a bug\n"),
    ],
)
def test_the_error_of_one_process_alone_is_what_the_user_reads(tmp_path, monkeypatch, failure, message):
    """Not what follows from it in the others, whose collectives end with a message of gloo."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(PROJECT), str(tmp_path)]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "failures.py").write_text(FAILURES)
    options = ["--data", "Digits", "--model.hidden_dims", "8", "--trainer.max_epochs", "3", "--trainer.devices", "2"]
    options += ["--trainer.accelerator", "cpu", "--trainer.callbacks+", f"failures.{failure}"]
    command = [sys.executable, PROJECT / "train.py", *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode != 0
    assert re.fullmatch(message, done.stderr)


def test_two_processes_train_on_each_image_once_and_one_writes(launch, tmp_path):
    (tmp_path / "seen.py").write_text(SEEN)
    options = ["--data", "Digits", "--data.batch_size", 64, "--trainer.max_epochs", 2, "--trainer.accelerator", "cpu"]
    options += ["--model.hidden_dims", 16, "--trainer.devices", 2, "--trainer.callbacks+", "seen.Seen"]
    out = launch("train.py", *options, devices=2)
    assert out.count("Trained   2 epochs") == 1
    for epoch in range(2):
        seen = [(tmp_path / f"seen_{epoch}_{rank}").read_text().split() for rank in range(2)]
        assert abs(len(seen[0]) - len(seen[1])) <= 1
        assert sorted(map(int, seen[0] + seen[1])) == [*range(1_197)]
    (run,) = (tmp_path / "lightning_logs").iterdir()
    assert len([*run.glob("events.out.tfevents.*")]) == 1
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    found = {}
    for devices in (1, 2):
        out = launch("test.py", "--num_images", 41, "--devices", devices, "--accelerator", "cpu", devices=devices)
        assert out.count("Written to") == 1
        found[devices] = json.loads((run / "test_metrics.json").read_text())
    for name, value in found[1].items():
        same = pytest.approx(value, rel=0, abs=1e-6) if isinstance(value, float | list | dict) else value
        assert found[2][name] == same, name
    assert {path.name for path in Path(tmp_path).iterdir() if path.is_dir()} == {"lightning_logs"}
