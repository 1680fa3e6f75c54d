"""Signals: the first stops a run after its step, the second at once."""

import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import PROJECT
from helpers import DIGITS


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_after_the_step_and_tells_how_to_go_on(tmp_path, signum, status):
    command = [sys.executable, str(PROJECT / "train.py"), *DIGITS, "--trainer.max_epochs", "100000"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
        last = tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt"
        wait_for(last.exists)
        run.send_signal(signum)
        told = run.communicate(timeout=60)[1]
    assert run.returncode == status
    name = signal.Signals(signum).name
    path = "lightning_logs/version_0/checkpoints/last.ckpt"
    pattern = rf"{name} stopped the run in epoch \d+, step \d+\.\nResume it: python3 train\.py --ckpt_path {path}\n"
    assert re.fullmatch(pattern, told)
    assert torch.load(last, weights_only=True)["global_step"] % 12 == 0  # a whole epoch's


def test_a_signal_before_the_first_checkpoint(tmp_path):
    options = ["--data", "Digits", "--data.batch_size", "1", "--model.hidden_dims", "3000"]
    command, pipe = [sys.executable, str(PROJECT / "train.py"), *options], subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True) as run:
        seen = ""
        while "Epoch 0" not in seen:
            seen += run.stdout.read(1)
        run.send_signal(signal.SIGTERM)
        told = run.communicate(timeout=60)[1]
    assert run.returncode == 143
    assert "There is no checkpoint to resume from: no epoch was complete." in told


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_ends_at_once(tmp_path, monkeypatch, signum, status):
    """Also in the middle of a step that does not end."""
    (tmp_path / "endless.py").write_text(
        "import time\n"
        "from pathlib import Path\n"
        "from pytorch_lightning import Callback\n"
        "class Endless(Callback):\n"
        "    def on_train_batch_start(self, *_):\n"
        "        Path('begun').touch()\n"
        "        end = time.monotonic() + 1000\n"
        "        while time.monotonic() < end:\n"
        "            time.sleep(0.1)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    command = [sys.executable, str(PROJECT / "train.py"), *DIGITS, "--trainer.callbacks+", "endless.Endless"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        wait_for((tmp_path / "begun").exists)
        run.send_signal(signum)
        with pytest.raises(subprocess.TimeoutExpired):
            run.wait(timeout=0.5)
        run.send_signal(signum)
        assert run.wait(timeout=10) == status


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
