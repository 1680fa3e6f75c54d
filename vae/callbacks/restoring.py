"""A resumed run is the uninterrupted one: what the Trainer restores, where it starts, and its log."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from vae import runs
from vae.lit_vae import LitVAE


class ExactResume(Callback):
    """Resumes at the start of an epoch, with the log of that moment.

    A checkpoint has the sizes that the event files had when it was written. What was logged after it is cut off, and
    the film's frames of later epochs are removed.
    """

    sizes: dict[str, int] | None = None

    def on_save_checkpoint(self, trainer: Trainer, lit: LitVAE, checkpoint: dict[str, Any]) -> None:
        epoch = trainer.fit_loop.epoch_progress.current
        checkpoint["whole_epoch"] = lit.is_whole_epoch and epoch.processed == epoch.ready
        run = trainer.log_dir  # which all processes must ask for
        if run and trainer.is_global_zero:
            trainer.logger.experiment.flush()
            checkpoint["log"] = runs.event_file_sizes(Path(run))

    def on_load_checkpoint(self, trainer: Trainer, lit: LitVAE, checkpoint: dict[str, Any]) -> None:
        self.sizes = checkpoint.get("log")

    def on_train_start(self, trainer: Trainer, lit: LitVAE) -> None:
        trainer.fit_loop.epoch_loop.restarting = False  # with `max_steps` it would resume within the last epoch
        if self.sizes is not None and trainer.is_global_zero:
            run = Path(trainer.logger.log_dir)
            runs.truncate_event_files(run, self.sizes)
            runs.remove_later_frames(run, trainer.current_epoch)
        self.sizes = None

    on_fit_end = on_train_start  # of a run that was at its end already


def built_state(checkpoint: dict[str, Any], trainer: Trainer, lit: LitVAE) -> dict[str, Any]:
    """What the Trainer restores of an untrusted checkpoint of a whole epoch: its own fresh state, with those numbers.

    Raises:
        Exception: of any type, if they are none.
    """
    fit_loop, (optimizer,) = trainer.fit_loop.state_dict(), checkpoint["optimizer_states"]
    blocks = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"]
    for name, count in (
        ("epoch_progress", checkpoint["epoch"] + 1),
        ("epoch_loop.batch_progress", runs.as_count(blocks)),
        ("epoch_loop.manual_optimization.optim_step_progress", checkpoint["global_step"]),
    ):
        for counts in (fit_loop[name]["total"], fit_loop[name]["current"]):
            counts.update(dict.fromkeys(counts, count))
    fit_loop["epoch_loop.state_dict"]["_batches_that_stepped"] = blocks
    built = {
        "pytorch-lightning_version": pl.__version__,
        "state_dict": {name: checkpoint["state_dict"][name] for name in lit.state_dict()},
        "optimizer_states": [built_optimizer_state(optimizer, lit)],
        "lr_schedulers": [],  # the rate is a function of the progress
        "loops": {"fit_loop": fit_loop},
        "callbacks": {},
        "log": {name: runs.as_count(size) for name, size in checkpoint.get("log", {}).items()},
    }
    for callback in trainer.callbacks:
        if state := checkpoint["callbacks"].get(callback.state_key):
            fresh = callback.state_dict()
            if isinstance(callback, ModelCheckpoint):  # whose paths may be anyone's
                state = fresh | {"best_model_score": state["best_model_score"]}
            built["callbacks"][callback.state_key] = with_numbers(fresh, state)
    precision, scaler = type(trainer.precision_plugin).__qualname__, trainer.precision_plugin.state_dict()
    if scaler and precision in checkpoint:
        built[precision] = with_numbers(scaler, checkpoint[precision])
    others = {name: value for name, value in checkpoint.items() if name != "native_amp_scaling_state"}
    return others | built


def built_optimizer_state(found: Mapping[str, Any], lit: LitVAE) -> dict[str, Any]:
    """The state of an optimiser of the model after its first step, with the numbers of an untrusted one.

    The fused kernels do not look at the sizes. A parameter without gradient has no state.
    """
    parameters = [torch.zeros_like(parameter, requires_grad=True) for parameter in lit.parameters()]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer = lit.optimizer(parameters)
    optimizer.step()
    fresh = optimizer.state_dict()
    (group,), (its_group,) = fresh["param_groups"], found["param_groups"]
    return {
        "state": {place: with_numbers(fresh["state"][place], state) for place, state in found["state"].items()},
        "param_groups": [with_numbers(group, its_group) | {"params": group["params"]}],
    }


def with_numbers(fresh: Any, found: Any) -> Any:
    """An untrusted state in the form of a fresh one: numbers where that has a number or None, tensors of its sizes.

    Raises:
        Exception: of any type, if it has another.
    """
    if isinstance(fresh, Mapping):
        return {**found, **{name: with_numbers(value, found[name]) for name, value in fresh.items()}}
    if isinstance(fresh, tuple):
        return tuple(with_numbers(*pair) for pair in zip(fresh, found, strict=True))
    if isinstance(fresh, torch.Tensor):
        return torch.empty(fresh.shape, dtype=found.dtype).copy_(found)
    is_number = isinstance(found, int | float) or (isinstance(found, torch.Tensor) and found.ndim == 0)
    if (fresh is None or isinstance(fresh, int | float)) and not (found is None or is_number):
        raise ValueError("expected a number in the state of training")
    return found
