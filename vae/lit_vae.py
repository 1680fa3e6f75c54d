"""The training system around the model: hyper-parameters, steps, optimiser, and what is logged. No formula."""

import os
import platform
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from vae import evaluation
from vae.block_training import BlockTraining
from vae.choices import check_number, check_whole, choose
from vae.evaluation import Columns, Estimator, Measure, by_label
from vae.loaders import as_block, count_images
from vae.manual_optimization import check_learning_rate
from vae.marginal import importance_sampling
from vae.metrics import ImageTable, means, summarize_bound, summarize_test
from vae.model import VAE
from vae.noise import StepNoise
from vae.objectives import OBJECTIVES, Options, check_values, choose_objective
from vae.optimization import OptimizerName, choose_optimizer, make_optimizer
from vae.schedules import LR_SCHEDULES, LRSchedule, check_ends, warm_up
from vae.soundness import NotFinite, warn_of_collapse

NEVER = 2**62  # a step that is not reached


class LitVAE(BlockTraining):
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
        if gradient_clip_val is not None:
            check_number("gradient_clip_val", gradient_clip_val)
        self.objective = choose_objective(objective, num_samples, analytic_kl, beta, beta_warmup_epochs)
        self.lr_schedule = choose("lr_schedule", lr_schedule, LR_SCHEDULES)
        is_scheduled = self.lr_schedule is not None
        self.optimizer = choose_optimizer(optimizer, learning_rate, weight_decay, weight_prior, is_scheduled)
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
        self.starts_at_mean = init_output_bias  # until the first fit, or a checkpoint, sets the bias
        if init_output_bias:
            self.vae.likelihood.output_bias()  # raises where there is none
        self.train_table, self.val_table, self.test_table, self.predict_table = (ImageTable() for _ in range(4))
        self.test_columns: dict[str, Tensor] = {}  # what the last test found of each image
        self.estimator: Estimator = importance_sampling  # of log p(x), in the test

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage != "fit":
            return
        limits = self.trainer.max_epochs, self.trainer.max_steps
        check_ends(self.hparams.lr_schedule, self.hparams.beta_warmup_epochs, *limits, lambda: self.steps_per_epoch)
        if self.starts_at_mean:
            if not hasattr(self.trainer.datamodule, "mean_image"):
                raise ValueError("init_output_bias: needs a data module of this project, which knows the mean image")
            self.vae.likelihood.init_output_bias(self.trainer.datamodule.mean_image())
            self.starts_at_mean = False

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.starts_at_mean = False

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

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The optimiser steps of a block; the loss of the last one."""
        optimizer = self.optimizers()
        for x, labels in as_block(batch, self.vae, self.train_table).steps():
            if self.global_step == self.trainer.max_steps:  # the Trainer looks at it between blocks
                break
            self.schedule_learning_rate()
            noise = self.training_noise(len(x), self.epoch_steps)
            loss, values = self.training_loss(x, noise, self.beta, labels)
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

    def loss(
        self, x: Tensor, noise: StepNoise, beta: float, labels: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What training lowers, a mean over images, and what is logged of it, [B] each: nats per image."""
        found = self.objective(self.vae.given(labels), x, noise, Options(self.hparams.analytic_kl, beta, labels))
        check_values(self.hparams.objective, found, len(x))
        raised, values = found
        return -raised.mean(), {name: value.detach() for name, value in values.items()}

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.hparams.gradient_clip_val is not None:  # here a scaler has unscaled the gradients
            torch.nn.utils.clip_grad_norm_(self.parameters(), self.hparams.gradient_clip_val)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """The reconstruction at the posterior's mean: [B, C, H, W] -> [B, C, H, W]; see `VAE.reconstruct`."""
        return self.vae.given(labels).reconstruct(x)

    def on_predict_epoch_start(self) -> None:
        self.predict_table.reset()

    def predict_step(self, batch: Any, batch_idx: int) -> Columns:
        """Of each image the posterior's `mean` and `scale`, [B, Z], and its `log_marginal`, [B], nats."""
        columns = self.measure(batch, self.predict_table, evaluation.evaluate_bound, self.evaluate_marginal)
        self.predict_table.update({"index": columns["index"]})
        return {name: columns[name] for name in ("mean", "scale", "log_marginal")}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.val_table.update(self.measure(batch, self.val_table, self.evaluate_bound))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        measures = self.evaluate_bound, self.evaluate_marginal, evaluation.evaluate_reconstruction
        self.test_table.update(self.measure(batch, self.test_table, *measures))

    def measure(self, batch: Any, table: ImageTable, *measures: Measure) -> Columns:
        """The columns of these measures, for the images of a batch of any loader."""
        images, labels, index, _ = as_block(batch, self.vae, table)
        return by_label(measures, self.vae, images, index, labels)

    def evaluate_bound(self, vae: VAE, x: Tensor, index: Tensor) -> Columns:
        return evaluation.evaluate_bound(vae, x, index, self.hparams.num_samples)

    def evaluate_marginal(self, vae: VAE, x: Tensor, index: Tensor) -> Columns:
        return evaluation.evaluate_marginal(vae, x, index, self.estimator)

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

    def check_finite(self) -> None:
        """See that training is still sound, before anything of this epoch is kept.

        Raises:
            NotFinite: a loss was infinite or no number.
        """
        step = self.train_table.first_not_finite()
        step = torch.tensor(NEVER if step is None else step, device=self.device)  # one type on all processes
        first = self.all_gather(step).min().item()
        if first < NEVER:
            raise NotFinite(self.current_epoch + 1, first + 1, is_saved=bool(self.current_epoch or self.validated_step))

    def on_validation_epoch_end(self) -> None:
        self.validated_step = self.global_step
        self.log_epoch({f"val/{name}": value for name, value in summarize_bound(self.val_table.columns()).items()})
        self.val_table.reset()

    def on_train_end(self) -> None:
        warn_of_collapse(self.trainer.callback_metrics.get("val/active_units"))

    def on_test_epoch_end(self) -> None:
        self.test_columns = self.test_table.columns()
        self.test_table.reset()
        kind = self.vae.likelihood.log_prob_kind(getattr(self.trainer.datamodule, "binary", False))
        found = summarize_test(self.test_columns, self.vae.image_shape, in_bits=kind == "log-likelihood")
        self.log_epoch({f"test/{name}": float(value) for name, value in found.items()})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        packages = ("torch", "torchvision", "pytorch-lightning")
        checkpoint["versions"] = {"python": platform.python_version()} | {name: version(name) for name in packages}

    def configure_optimizers(self) -> Optimizer:
        decay = self.hparams.weight_decay
        if self.hparams.weight_prior:
            self.trainer.fit_loop.setup_data()
            decay += 1 / count_images(self.trainer.train_dataloader, self.trainer.num_training_batches)
        # MPS lacks some fused kernels; under a gradient scaler they unscale by themselves, after gradients are clipped.
        clips_scaled = self.hparams.gradient_clip_val is not None and self.trainer.scaler is not None
        fused = self.device.type in ("cpu", "cuda") and not clips_scaled
        optimizer = make_optimizer(self.optimizer, self.parameters(), self.hparams.learning_rate, decay, fused)
        if self.lr_schedule:
            optimizer.param_groups[0]["scheduled_lr"] = self.hparams.learning_rate
        return optimizer
