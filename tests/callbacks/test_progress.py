"""The progress of a run on the screen."""

import io
import re
from types import SimpleNamespace

import pytest
from helpers import DIGITS
from pytorch_lightning.callbacks import Timer

from vae.callbacks import progress
from vae.callbacks.progress import LogProgress, TerminalProgress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_output_that_is_no_terminal_gets_one_line_an_epoch(script, run_folder):
    assert isinstance(progress(), LogProgress)
    trained = script("train.py", *DIGITS, "--trainer.max_epochs", 3)
    lines = trained.out[trained.out.index("Epoch 1 of 3") :].splitlines()
    assert [re.match(r"Epoch (\d) of 3: val/elbo -\d+\.\d\d, ", line)[1] for line in lines[:3]] == ["1", "2", "3"]
    assert [bool(re.search(r"images/s, \d:\d\d:\d\d left$", line)) for line in lines[:3]] == [True, True, False]
    assert lines[3].startswith("Run ")
    tested = script("test.py", "--num_samples", 1)
    assert "Testing" not in tested.out + tested.err
    assert "\r" not in trained.out + tested.out


def test_a_line_has_no_value_of_another_epoch(script):
    options = ["--trainer.check_val_every_n_epoch", 2, "--trainer.val_check_interval", 2, "--data.steps_per_block", 4]
    lines = script("train.py", *DIGITS, "--trainer.max_epochs", 3, *options).out.splitlines()
    assert ["val/elbo" in line for line in lines[:3]] == [False, True, False]
    assert re.match(r"Epoch 2 of 3: val/elbo -\d+\.\d\d after 8 of 12 steps, ", lines[1])


def test_a_try_of_a_few_batches_tries_the_validation_too(script):
    assert "Epoch 1 of 1: val/elbo -" in script("train.py", *DIGITS, "--trainer.fast_dev_run", 5).out


def test_a_terminal_gets_a_bar(script, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    assert isinstance(progress(), TerminalProgress)
    script(
        "train.py", *DIGITS, "--trainer.max_epochs", 2, "--model.likelihood", "gaussian_fixed", "--model.scale", 0.01
    )
    drawn = terminal.getvalue()
    assert "Epoch 1 of 2: 100%" in drawn  # counted as the messages count them
    assert "Epoch 2 of 2: 100%" in drawn
    assert re.search(r"left=\d:\d\d:\d\d\]", drawn)
    assert "Epoch 0" not in drawn
    assert "v_num" not in drawn
    values = re.findall(r"val/elbo=(\S+?)[,\]]", drawn)
    assert values
    assert all(re.fullmatch(r"-?\d+\.\d\d", value) for value in values)  # not -1.06e+3


def test_the_time_left_is_that_of_the_limit_that_comes_first():
    bar, lit = LogProgress(), SimpleNamespace(progress=0.1)
    timer = Timer("00:00:00:30")
    trainer = SimpleNamespace(callbacks=[])
    bar.on_train_start(trainer, lit)
    bar.started = bar.started[0] - 60, 0.1  # a minute ago
    assert bar.time_left(trainer, lit) == ""
    lit.progress = 0.3
    assert bar.time_left(trainer, lit) == "0:03:30"
    trainer.callbacks = [timer, Timer()]
    assert bar.time_left(trainer, lit) == "0:00:30"


@pytest.mark.parametrize("bar", [LogProgress, TerminalProgress])
def test_the_trainer_can_disable_it(bar):
    callback = bar()
    callback.disable()
    assert not callback.is_enabled
    callback.enable()
    assert callback.is_enabled
