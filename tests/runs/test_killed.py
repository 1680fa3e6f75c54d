"""A training that is killed twenty times, by SIGKILL, ends as one that never was: weights, metrics and log."""

import os
import time
from pathlib import Path

import pytest
import torch
from processes import CONTEXT, fork
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

from datamodules import DATASETS, MNIST, ImageDataModule
from vae import runs
from vae.cli import TrainCLI

STEPS, EPOCHS = 10, 8  # in an epoch, in all
CLOCK = ("workings/epoch_seconds", "workings/images_per_second")  # whose values are no function of the seed
OPTIONS = [
    *("--run_name", "run", "--trainer.max_epochs", EPOCHS, "--data.val_size", 10, "--data.batch_size", 5),
    *("--data.steps_per_block", 1),  # so that a process can be killed after any step
    *("--model.hidden_dims", 16, "--model.beta_warmup_epochs", 5, "--model.lr_schedule", "cosine"),
]
RESUME = ["--ckpt_path", "last", "--run_name", "run"]

# Where each of the trainings is killed: once it has reported that step, or while it does this to that checkpoint. An
# epoch whose best.ckpt is there already does not write it again.
MOMENTS = [("step", 13), ("fsync", "best", 2), ("step", 11), ("step", 27), ("replace", "last", 3), ("step", 32)]
MOMENTS += [("step", 38), ("replaced", "best", 4), ("step", 35), ("fsync", "last", 4), ("step", 31), ("step", 45)]
MOMENTS += [("step", 41), ("replaced", "last", 5), ("step", 56), ("replace", "best", 6), ("step", 52), ("step", 61)]
MOMENTS += [("fsync", "best", 7), ("replaced", "best", 8), ("replaced", "last", 8)]
FEW = [("step", 13), ("fsync", "best", 3), ("replaced", "best", 6)]


def train(args, sha256, moment, report):
    """A training in a process of its own, which reports every step, and stands still where it is to be killed."""
    torch.set_num_threads(1)
    MNIST.sha256 = sha256
    cli = TrainCLI(ImageDataModule, DATASETS, [str(arg) for arg in args])
    fsync, replace = os.fsync, Path.replace
    epoch = lambda: cli.trainer.current_epoch + 1  # noqa: E731
    checkpoint = None

    def pause(what):
        if moment == (what, checkpoint, epoch()):
            report.send(moment)
            time.sleep(1_000)

    def watched_fsync(descriptor):
        nonlocal checkpoint
        checkpoint = Path(f"/proc/self/fd/{descriptor}").readlink().name.removeprefix(".").partition(".")[0]
        pause("fsync")
        fsync(descriptor)

    def watched_replace(path, target):
        pause("replace")
        replace(path, target)
        pause("replaced")

    os.fsync, Path.replace = watched_fsync, watched_replace
    batch_end = cli.model.on_train_batch_end
    cli.model.on_train_batch_end = lambda *args: (report.send(("step", cli.trainer.global_step)), batch_end(*args))
    cli.fit()


@pytest.fixture
def trained(tiny_mnist):
    """Trains in another process, and kills it at a moment."""

    def run(args, moment=None):
        """The last step that it reported."""
        receiver, sender = CONTEXT.Pipe(duplex=False)
        process = fork(train, args, MNIST.sha256, moment, sender)
        sender.close()
        steps = [0]
        try:
            while True:
                message = receiver.recv()
                if message[0] == "step":
                    steps.append(message[1])
                if moment and message == moment:
                    process.kill()
        except EOFError:
            process.join()
        assert process.exitcode == (-9 if moment else 0), moment
        return steps[-1]

    return run


def log(run):
    """Everything in a run's event files, in order and as it stands there: tag, step and value."""
    paths = sorted(run.glob("events.out.tfevents.*"))
    events = [event for path in paths for event in LegacyEventFileLoader(str(path)).Load()]
    return [
        (value.tag, event.step, b"" if value.tag in CLOCK else value.SerializeToString())
        for event in events
        for value in event.summary.value
        if not value.tag.startswith("_hparams_")  # which hold the time of the start
    ]


@pytest.mark.parametrize(
    ("moments", "in_epochs", "at_files"),
    [(FEW, 1, 2), pytest.param(MOMENTS, 10, 5, marks=pytest.mark.slow)],
    ids=["few times", "twenty times"],
)
def test_killed_is_as_never_killed(moments, in_epochs, at_files, tiny_mnist, trained, tmp_path, monkeypatch, capsys):
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    options = [*OPTIONS, "--data.data_dir", tiny_mnist]
    monkeypatch.chdir(tmp_path / "whole")
    trained(options)

    monkeypatch.chdir(tmp_path / "killed")
    assert trained(options, ("step", 4)) < STEPS
    with pytest.raises(runs.RunError, match=r"There is no last\.ckpt in lightning_logs/run"):
        runs.checkpoint_to_resume("last", "run", DATASETS)  # before the end of the first epoch
    (tmp_path / "killed" / "lightning_logs" / "run").rename(tmp_path / "given up")

    killed_at = []
    for number, moment in enumerate(moments):
        last = trained(RESUME if number else options, moment)
        killed_at.append((*moment, f"after step {last}"))
    trained(RESUME)
    with capsys.disabled():
        print("\nkilled", *(" ".join(map(str, moment)) for moment in killed_at), sep="\n  ")
    assert sum(moment[0] == "step" and int(moment[-1].split()[-1]) % STEPS > 0 for moment in killed_at) >= in_epochs
    assert sum(moment[0] != "step" for moment in killed_at) >= at_files

    whole, killed = (tmp_path / name / "lightning_logs" / "run" for name in ("whole", "killed"))
    for path in (runs.best_checkpoint, runs.last_checkpoint):
        one, other = runs.read_checkpoint(path(whole)), runs.read_checkpoint(path(killed))
        for part in ("epoch", "global_step"):
            assert one[part] == other[part]
        assert one["callbacks"]["best"]["best_model_score"] == other["callbacks"]["best"]["best_model_score"]
        assert all(torch.equal(one["state_dict"][name], other["state_dict"][name]) for name in one["state_dict"])
        for mine, theirs in zip(one["optimizer_states"], other["optimizer_states"], strict=True):
            torch.testing.assert_close(mine["state"], theirs["state"], rtol=0, atol=0)
    assert log(whole) == log(killed)
    entered = [(tag, step) for tag, step, _ in log(killed)]
    assert len(entered) == len(set(entered)) > 10 * EPOCHS
    for path in (whole / "frames").iterdir():
        assert path.read_bytes() == (killed / "frames" / path.name).read_bytes()
    assert sorted(path.name for path in (killed / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
