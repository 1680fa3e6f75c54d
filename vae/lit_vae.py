"""The training system around the model: hyper-parameters, steps, optimiser, and what is logged. No formula."""

import os
import platform
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from inspect import signature
from math import inf
from typing import Any, Literal, get_args

import numpy as np
import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.optim import Optimizer

from vae.choices import check_number, check_whole, choose
from vae.evaluation import Estimator, evaluate_bound, evaluate_marginal, evaluate_reconstruction
from vae.loaders import as_block, count_images, count_steps
from vae.manual_optimization import check_callbacks, check_learning_rate, check_trainer
from vae.marginal import importance_sampling
from vae.metrics import ImageTable, means, summarize_bound, summarize_test
from vae.model import VAE
from vae.noise import StepNoise
from vae.objectives import OBJECTIVES, Options, check_values, choose_objective
from vae.schedules import LR_SCHEDULES, check_ends, warm_up

NEVER = 2**62  # a step that is not reached
DECOUPLED_DECAY = ("AdamW", "Adafactor")

LRSchedule = Literal["constant", "cosine"]
OptimizerName = Literal[  # those of torch.optim that take no closure, dense gradients, and biases
    "ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD"
]
OPTIMIZERS = {name: getattr(torch.optim, name) for name in get_args(OptimizerName)}
COLLAPSE = (
    "no latent variable is active, the posterior has collapsed: its mean is the same for all validation images. "
    "Train longer; with the objective elbo, try --model.beta_warmup_epochs 10 or a smaller --model.beta."
)


NOT_FINITE = (
    "The loss is not finite in epoch {epoch}, from step {step} on. {kept}\n"
    "Try a smaller --model.learning_rate, --model.gradient_clip_val 1, or another --model.likelihood, in a new run."
)


class NotFinite(Exception):
    """The loss became infinite or no number."""


class PosteriorCollapse(UserWarning):
    """The posterior is the same for all images."""


class LitVAE(LightningModule):
    """A VAE and how it is trained.

    Args:
        objective: what training raises: elbo, iwae (the importance-weighted bound), dreg (the same with the doubly
            reparameterised gradient), or wake_sleep (to which the paper compares). Validation always reports the plain
            ELBO.
        num_samples: the samples of z for each image: L of equation 10, or K of the importance-weighted bound.
        analytic_kl: whether elbo takes the KL in closed form (Appendix B) or by sampling (estimator A, equation 6).
        beta: weight of the KL in what elbo trains; never in what is reported.
        beta_warmup_epochs: epochs over which that weight rises from 0, in a line.
        optimizer: an optimiser of torch.optim.
        learning_rate: its step size.
        weight_decay: its weight decay.
        weight_prior: the paper's Gaussian prior N(0, I) on all weights: a further weight decay of 1 / N for N training
            images, right for optimisers to which decay is a gradient (Adam, Adagrad, SGD; not AdamW).
        lr_schedule: constant, or cosine (down to zero at the last step).
        init_output_bias: whether the decoder starts at the mean of the training images.
        gradient_clip_val: the largest norm of all gradients together; a step with a larger one is scaled down to it.
        seed: of the noise in training, which is a function of (seed, epoch, step, rank); by default that of
            `seed_everything`, else 0.
        compile: whether torch.compile makes one program of the training's loss; it takes half a minute, and on a CPU
            needs a C++ compiler.
        vae: the arguments of `VAE`.

    Raises:
        ValueError: an argument that is out of range or names nothing; the message says what is expected.
    """

    def __init__(
        self,
        objective: "Literal[*OBJECTIVES]" = "elbo",
        num_samples: int = 1,
        analytic_kl: bool = True,
        beta: float = 1.0,
        beta_warmup_epochs: float = 0.0,
        optimizer: OptimizerName = "Adam",
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        weight_prior: bool = False,
        lr_schedule: LRSchedule = "constant",
        init_output_bias: bool = False,
        gradient_clip_val: float | None = None,
        seed: int | None = None,
        compile: bool = False,
        **vae: Any,
    ):
        super().__init__()
        check_number("learning_rate", learning_rate)
        if gradient_clip_val is not None:
            check_number("gradient_clip_val", gradient_clip_val)
        check_number("weight_decay", weight_decay, positive=False)
        self.objective = choose_objective(objective, num_samples, analytic_kl, beta, beta_warmup_epochs)
        self.optimizer = choose("optimizer", optimizer, OPTIMIZERS)
        self.lr_schedule = choose("lr_schedule", lr_schedule, LR_SCHEDULES)
        if optimizer == "Rprop" and self.lr_schedule:
            raise ValueError("lr_schedule: Rprop takes its learning rate at the first step alone; choose constant")
        if (weight_decay or weight_prior) and "weight_decay" not in signature(self.optimizer).parameters:
            raise ValueError(f"weight_decay: {optimizer} has none; choose another optimizer, such as Adam")
        if weight_prior and optimizer in DECOUPLED_DECAY:
            raise ValueError(
                f"weight_prior: the decay of {optimizer} is not part of the gradient; choose another, such as Adam"
            )
        seed = int(os.environ.get("PL_GLOBAL_SEED", 0)) if seed is None else seed
        check_whole("seed", seed, least=0)
        self.save_hyperparameters()
        numbers = {name: value.item() for name, value in self.hparams.items() if isinstance(value, np.generic)}
        self.hparams.update(numbers)  # NumPy's could not be read from a checkpoint with weights_only
        for name in ("likelihood", "network"):
            if not isinstance(self.hparams.get(name, ""), str):
                raise ValueError(
                    f"{name}: a checkpoint keeps names only; call vae.register_{name}(NAME, ...), then {name}=NAME"
                )
        self.vae = VAE(**vae)
        mode = "reduce-overhead" if torch.cuda.is_available() else None  # CUDA graphs
        self.training_loss = torch.compile(self.loss, mode=mode) if compile else self.loss
        self.automatic_optimization = False  # a Trainer batch is a block of optimiser steps
        self.epoch_steps = 0  # optimiser steps of the current epoch so far
        self.validated_step = 0  # the optimiser step after which the last validation was
        self.unwritten: dict[str, float] = {}  # what the run's logs get of the current step
        self.next_image = 0  # its number, where the batches of a DataLoader are not numbered
        self.starts_at_mean = init_output_bias  # until the first fit, or a checkpoint, sets the bias
        if init_output_bias:
            self.vae.likelihood.output_bias()  # raises where there is none
        self.train_table, self.val_table, self.test_table = ImageTable(), ImageTable(), ImageTable()
        self.test_columns: dict[str, Tensor] = {}  # what the last test found of each image
        self.estimator: Estimator = importance_sampling  # of log p(x), in the test

    def setup(self, stage: str) -> None:
        if stage == "fit":
            check_callbacks(self.trainer, lambda: self.steps_per_epoch)
            limits = self.trainer.max_epochs, self.trainer.max_steps
            check_ends(self.hparams.lr_schedule, self.hparams.beta_warmup_epochs, *limits, lambda: self.steps_per_epoch)
        if stage == "fit" and self.starts_at_mean:
            if not hasattr(self.trainer.datamodule, "mean_image"):
                raise ValueError("init_output_bias: needs a data module of this project, which knows the mean image")
            self.vae.likelihood.init_output_bias(self.trainer.datamodule.mean_image())
            self.starts_at_mean = False

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.starts_at_mean = False
        if "loops" in checkpoint:  # of a version that let the Trainer take the steps, which counted elsewhere
            steps = checkpoint["loops"]["fit_loop"]["epoch_loop.manual_optimization.optim_step_progress"]["total"]
            steps |= dict.fromkeys(steps, checkpoint["global_step"])

    @property
    def steps_per_epoch(self) -> float:
        """The optimiser steps of an epoch; infinity for a loader without a length."""
        self.trainer.fit_loop.setup_data()
        return count_steps(self.trainer.train_dataloader, self.trainer.num_training_batches)

    @property
    def is_whole_epoch(self) -> bool:
        """Whether the current epoch has had all its steps, of a loader without a length all that it gave."""
        steps = self.steps_per_epoch
        progress = self.trainer.fit_loop.epoch_loop.batch_progress
        return progress.is_last_batch if steps == inf else self.epoch_steps == steps

    @property
    def epochs_done(self) -> float:
        """The epochs trained so far, of the current one the share of its steps that was taken."""
        return self.current_epoch + self.epoch_steps / self.steps_per_epoch

    @property
    def progress(self) -> float:
        """The share of the training that is done, by the Trainer's nearest limit; 0 if it has none.

        It is counted from the limits as they are now. So a resumed run that ends later, or that has other steps in an
        epoch, follows its new end.
        """
        limits = ((self.epochs_done, self.trainer.max_epochs), (self.global_step, self.trainer.max_steps))
        return max((done / limit for done, limit in limits if limit > 0), default=0.0)

    @property
    def is_validated(self) -> bool:
        """Whether the logged values of validation are those of the current weights."""
        return self.validated_step == self.global_step

    @property
    def beta(self) -> float:
        """The weight of the KL at the next step."""
        warmup_epochs = self.hparams.beta_warmup_epochs
        return self.hparams.beta * (warm_up(self.epochs_done, warmup_epochs) if warmup_epochs else 1)

    def schedule_learning_rate(self) -> None:
        """Set the learning rate of the next step."""
        if self.lr_schedule:
            for group in self.optimizers().param_groups:
                check_learning_rate(group, self.hparams.lr_schedule)
                group["lr"] = group["scheduled_lr"] = self.hparams.learning_rate * self.lr_schedule(self.progress)

    def as_batch(self, batch: Any, batch_idx: int) -> Any:
        """A batch of the data modules as it is; images, or (images, ...), of any DataLoader as a block of one step.

        Raises:
            ValueError: it is something else, or images of the first batch have values outside [0, 1].
        """
        first = self.next_image if batch_idx else 0
        block = as_block(batch, first)
        if block is not batch:
            self.vae.check_images(block.images, values=batch_idx == 0)
            self.next_image = first + len(block.images)
        return block

    def on_train_epoch_start(self) -> None:
        self.epoch_steps = 0

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        check_trainer(self.trainer)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The optimiser steps of a block: images [B, C, H, W], to be cut by `batch.sizes`; the loss of the last one."""
        self.write_log()  # of a validation within the epoch
        optimizer = self.optimizers()
        batch = self.as_batch(batch, batch_idx)
        for x in batch.images.split(batch.sizes):
            if self.global_step == self.trainer.max_steps:  # the Trainer looks at it between blocks
                break
            self.schedule_learning_rate()
            loss, values = self.training_loss(x, self.training_noise(len(x), self.epoch_steps), self.beta)
            self.train_table.update(values)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.epoch_steps += 1
        return loss.detach().clone()  # callbacks may keep it, a compiled step's own memory is written again

    def training_noise(self, num_images: int, step: int) -> StepNoise:
        """The random numbers of a step of the current epoch: a function of (seed, epoch, step, rank)."""
        shape = (self.hparams.num_samples, num_images, self.vae.latent_dim)
        return StepNoise(shape, (self.hparams.seed, self.current_epoch, self.global_rank), step, self.device)

    def loss(self, x: Tensor, noise: StepNoise, beta: float) -> tuple[Tensor, dict[str, Tensor]]:
        """What training lowers, a mean over images, and what is logged of it, [B] each: nats per image."""
        found = self.objective(self.vae, x, noise, Options(self.hparams.analytic_kl, beta))
        check_values(self.hparams.objective, found, len(x))
        raised, values = found
        return -raised.mean(), {name: value.detach() for name, value in values.items()}

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.hparams.gradient_clip_val is not None:  # here a scaler has unscaled the gradients
            torch.nn.utils.clip_grad_norm_(self.parameters(), self.hparams.gradient_clip_val)

    def forward(self, x: Tensor) -> Tensor:
        """The reconstruction at the posterior's mean: [B, C, H, W] -> [B, C, H, W]; see `VAE.reconstruct`."""
        return self.vae.reconstruct(x)

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Of each image the posterior's `mean` and `scale`, [B, Z], and its `log_marginal`, [B], nats."""
        batch = self.as_batch(batch, batch_idx)
        columns = evaluate_bound(self.vae, batch.images, batch.index)
        columns |= evaluate_marginal(self.vae, batch.images, batch.index, self.estimator)
        return {name: columns[name] for name in ("mean", "scale", "log_marginal")}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        batch = self.as_batch(batch, batch_idx)
        self.val_table.update(evaluate_bound(self.vae, batch.images, batch.index, self.hparams.num_samples))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        batch = self.as_batch(batch, batch_idx)
        columns = evaluate_bound(self.vae, batch.images, batch.index, self.hparams.num_samples)
        columns |= evaluate_marginal(self.vae, batch.images, batch.index, self.estimator)
        self.test_table.update(columns | evaluate_reconstruction(self.vae, batch.images))

    def on_validation_start(self) -> None:
        if self.trainer.state.fn == "fit":
            self.check_finite()

    def on_train_epoch_end(self) -> None:
        self.check_finite()
        values = {f"train/{name}": value for name, value in means(self.train_table.columns()).items()}
        self.schedule_learning_rate()
        self.log_epoch(values | {"learning_rate": self.optimizers().param_groups[0]["lr"], "beta": self.beta})
        self.train_table.reset()
        self.write_log()

    def log_epoch(self, values: Mapping[str, float]) -> None:
        """Log values of an epoch: in training into the run's logs by `write_log`, all those of a step together."""
        fitting = self.trainer.state.fn == "fit"
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "You called `self.log")  # to no logger: Trainer.test returns only that
            for name, value in values.items():
                self.log(name, value, logger=not fitting, prog_bar=name == "val/elbo")
        if fitting and not self.trainer.sanity_checking:
            self.unwritten |= values

    def write_log(self) -> None:
        """Write what was logged since the last optimiser step into the run's logs, at that step.

        The Trainer would do it after it has written the checkpoint, and at its own count, which is that of blocks.
        """
        if self.unwritten:
            for logger in self.loggers:
                logger.log_metrics({**self.unwritten, "epoch": self.current_epoch}, max(0, self.global_step - 1))
            self.unwritten = {}

    def check_finite(self) -> None:
        """See that training is still sound, before anything of this epoch is kept.

        Raises:
            NotFinite: a loss was infinite or no number.
        """
        step = self.train_table.first_not_finite()
        step = torch.tensor(NEVER if step is None else step, device=self.device)  # one type on all processes
        first = self.all_gather(step).min().item()
        if first < NEVER:
            saved = self.current_epoch or self.validated_step
            kept = "The checkpoints hold what was before." if saved else "No checkpoint was written."
            raise NotFinite(NOT_FINITE.format(epoch=self.current_epoch + 1, step=first + 1, kept=kept))

    def on_validation_epoch_end(self) -> None:
        self.validated_step = self.global_step
        self.log_epoch({f"val/{name}": value for name, value in summarize_bound(self.val_table.columns()).items()})
        self.val_table.reset()

    def on_train_end(self) -> None:
        if self.trainer.callback_metrics.get("val/active_units") == 0:
            warnings.warn(COLLAPSE, PosteriorCollapse, stacklevel=1)

    def on_test_epoch_end(self) -> None:
        self.test_columns = self.test_table.columns()
        self.test_table.reset()
        kind = self.vae.likelihood.log_prob_kind(getattr(self.trainer.datamodule, "binary", False))
        found = summarize_test(self.test_columns, self.vae.image_shape, in_bits=kind == "log-likelihood")
        self.log_epoch({f"test/{name}": float(value) for name, value in found.items()})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        packages = ("torch", "torchvision", "pytorch-lightning")
        versions = {"python": platform.python_version()} | {name: version(name) for name in packages}
        checkpoint["versions"] = versions

    def configure_optimizers(self) -> Optimizer:
        for dtype in {parameter.dtype for parameter in self.parameters()}:
            if not torch.tensor(1e-8, dtype=dtype):
                raise MisconfigurationException(
                    f"weights in {dtype} do not train: squares of gradients, and the optimiser's eps, are 0 in it; "
                    "choose the precision 16-mixed, bf16-true or 32-true"
                )
        options = {"lr": self.hparams.learning_rate}
        decay = self.hparams.weight_decay
        if self.hparams.weight_prior:
            self.trainer.fit_loop.setup_data()
            decay += 1 / count_images(self.trainer.train_dataloader, self.trainer.num_training_batches)
        if "weight_decay" in signature(self.optimizer).parameters:
            options["weight_decay"] = decay  # also where it is 0, which is not the default of all
        if "fused" in signature(self.optimizer).parameters:
            # One kernel for all parameters, a sixth of a step's time on a CPU. MPS lacks some; under a gradient scaler
            # fused optimisers unscale by themselves, after the gradients would be clipped.
            clips_scaled = self.hparams.gradient_clip_val is not None and self.trainer.scaler is not None
            options["fused"] = self.device.type in ("cpu", "cuda") and not clips_scaled
        optimizer = self.optimizer(self.parameters(), **options)
        if self.lr_schedule:
            optimizer.param_groups[0]["scheduled_lr"] = self.hparams.learning_rate
        return optimizer
