"""Several processes, as real ones over gloo: they share the images out, find the same, and one of them writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import PROJECT

from datamodules import Digits
from datamodules.base import DataError, ShuffledBatches, shard_batches

TEST = """
import json, sys, torch
from datamodules import ImageDataModule, ImageDataset
from vae import LitVAE
from vae.cli import evaluation_trainer

class MadeUp(ImageDataModule):
    name, image_shape = "made up", (1, 12, 12)

    def load(self):
        images = torch.randint(256, (2_001, 1, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
        return dict.fromkeys(("train", "val", "test"), ImageDataset(images))

torch.manual_seed(0)
lit = LitVAE(image_shape=(1, 12, 12), latent_dim=3, hidden_dims=16)
lit.importance_samples = (1, 40)
(found,) = evaluation_trainer(accelerator="cpu", devices=int(sys.argv[1])).test(lit, MadeUp(), verbose=False)
if lit.global_rank == 0:
    print(json.dumps(found))
"""

SEEN = """
from pytorch_lightning import Callback

class Seen(Callback):
    def on_train_batch_end(self, trainer, lit, outputs, batch, batch_idx):
        with open(f"seen_{trainer.current_epoch}_{trainer.global_rank}", "a") as file:
            print(*batch.index.tolist(), file=file)
"""


@pytest.fixture
def python(tmp_path, monkeypatch):
    """Runs a program that may start others of its kind."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(PROJECT), str(tmp_path)]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def run(*args):
        command = [sys.executable, *map(str, args)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize("num_images", [3, 99, 100, 201, 202, 203, 1_257])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_pictures_are_shared_out_once(num_images, world_size):
    shares = [shard_batches(torch.arange(num_images), 50, rank, world_size) for rank in range(world_size)]
    assert sorted(torch.cat([torch.cat(batches) for batches in shares]).tolist()) == [*range(num_images)]
    for batches in zip(*shares, strict=True):  # as many steps for each, or one would wait for ever
        sizes = [len(batch) for batch in batches]
        assert 0 < max(sizes) - 1 <= min(sizes) <= 51 or sizes[0] == 1
    batches = ShuffledBatches(num_images, 50, seed=0, rank=world_size - 1, world_size=world_size)
    assert len(batches) == len([*batches]) == len(shares[-1])
    if world_size == 1:
        assert [len(batch) for batch in shares[0]] == [len(part) for part in torch.arange(num_images).split(50)]


def test_too_few_pictures_for_so_many_devices():
    class Several:
        global_rank, world_size = 0, 400

    data = Digits()
    data.trainer = Several()
    data.setup()
    with pytest.raises(DataError, match="300 images are too few for 400 devices: use fewer"):
        data.test_dataloader()


def test_a_test_finds_the_same_with_one_two_and_three_processes(python, tmp_path):
    (tmp_path / "made_up.py").write_text(TEST)
    one, two, three = (json.loads(python("made_up.py", devices).splitlines()[-1]) for devices in (1, 2, 3))
    assert one["test/num_images"] == 2_001
    for several in (two, three):
        assert several == pytest.approx(one, rel=0, abs=1e-6)


def test_two_processes_train_on_each_picture_once_and_one_writes(python, tmp_path):
    (tmp_path / "seen.py").write_text(SEEN)
    options = [
        "--data",
        "Digits",
        "--data.batch_size",
        "64",
        "--trainer.max_epochs",
        "2",
        "--trainer.accelerator",
        "cpu",
    ]
    options += ["--model.hidden_dims", "16", "--trainer.devices", "2", "--trainer.callbacks+", "seen.Seen"]
    out = python(PROJECT / "train.py", *options)
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
        assert python(PROJECT / "test.py", "--devices", devices, "--accelerator", "cpu").count("Written to") == 1
        found[devices] = json.loads((run / "test_metrics.json").read_text())
    for name, value in found[1].items():
        same = pytest.approx(value, rel=0, abs=1e-6) if isinstance(value, float | list | dict) else value
        assert found[2][name] == same, name
    assert {path.name for path in Path(tmp_path).iterdir() if path.is_dir()} == {"lightning_logs"}
