"""Signals: the first stops a run after its step, the second at once."""

import re
import signal
import subprocess

import pytest
import torch
from helpers import DIGITS
from processes import wait_for


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_after_the_step_and_tells_how_to_go_on(start, tmp_path, signum, status):
    run = start("train.py", *DIGITS, "--trainer.max_epochs", 100_000)
    last = tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt"
    wait_for(last.exists)
    run.send_signal(signum)
    stopped = run.result(timeout=60)
    assert stopped.status == status
    name = signal.Signals(signum).name
    path = "lightning_logs/version_0/checkpoints/last.ckpt"
    pattern = rf"{name} stopped the run in epoch \d+, step \d+\.\nResume it: python3 train\.py --ckpt_path {path}\n"
    assert re.fullmatch(pattern, stopped.err)
    assert torch.load(last, weights_only=True)["global_step"] % 12 == 0  # a whole epoch's


def test_a_signal_before_the_first_checkpoint(start, tmp_path):
    (tmp_path / "begun.py").write_text(
        "from pathlib import Path\n"
        "from pytorch_lightning import Callback\n"
        "class Begun(Callback):\n"
        "    def on_train_batch_start(self, *_):\n"
        "        Path('begun').touch()\n"
    )
    options = ["--data.batch_size", 1, "--model.hidden_dims", 3000, "--trainer.callbacks+", "begun.Begun"]
    run = start("train.py", "--data", "Digits", *options, PYTHONPATH=str(tmp_path))
    wait_for((tmp_path / "begun").exists)
    run.send_signal(signal.SIGTERM)
    stopped = run.result(timeout=60)
    assert stopped.status == 143
    assert "There is no checkpoint to resume from: no whole epoch was saved." in stopped.err


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_ends_at_once(start, tmp_path, signum, status):
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
    run = start("train.py", *DIGITS, "--trainer.callbacks+", "endless.Endless", PYTHONPATH=str(tmp_path))
    wait_for((tmp_path / "begun").exists)
    run.send_signal(signum)
    with pytest.raises(subprocess.TimeoutExpired):
        run.wait(timeout=0.5)
    run.send_signal(signum)
    assert run.wait(timeout=10) == status
