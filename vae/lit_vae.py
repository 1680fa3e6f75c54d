"""The training system around the model: hyper-parameters, steps, optimiser, and what is logged. No formula."""

import platform
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from inspect import signature
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.distributions import Distribution
from torchmetrics import Metric

from vae.likelihoods import MeanLikelihood
from vae.metrics import ActiveUnits, ImportanceEstimateMetrics, KLPerDimension, PerImageMean, ReconstructionMetrics
from vae.model import NOISE_CHUNK, VAE, chunk_sizes
from vae.registry import Registry

EVALUATION_SEED = 1312_6114

OPTIMIZERS = Registry(
    "optimizer",
    {
        name: kind
        for name, kind in vars(torch.optim).items()
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)
        # an abstract one, and two that take no dense gradients or no biases
        if name not in ("Optimizer", "SparseAdam", "Muon")
    },
)
LR_SCHEDULES = Registry("lr_schedule", {"constant": None, "cosine": torch.optim.lr_scheduler.CosineAnnealingLR})
OBJECTIVES = Registry("objective", {name: name for name in ("elbo", "iwae", "dreg")})
COLLAPSE = (
    "no latent variable is active, the posterior has collapsed: its mean is the same for all validation images. "
    "Train longer; with the objective elbo, try --model.beta_warmup_epochs 10 or a smaller --model.beta."
)


NOT_FINITE = (
    "The loss is not finite in epoch {epoch}, from step {step} on. The checkpoints are those of the epochs before.\n"
    "Try a smaller --model.learning_rate, --trainer.gradient_clip_val 1, or another --model.likelihood."
)


class NotFinite(Exception):
    """The loss became infinite or no number."""


class PosteriorCollapse(UserWarning):
    """The posterior is the same for all images."""


class LitVAE(LightningModule):
    """A VAE and how it is trained.

    Args:
        objective: what training raises: elbo, iwae (the importance-weighted bound), or dreg (the same with the doubly
            reparameterised gradient). Validation always reports the plain ELBO.
        num_samples: the samples of z for each image: L of equation 10, or K of the importance-weighted bound.
        analytic_kl: whether elbo takes the KL in closed form (Appendix B) or by sampling (estimator A, equation 6).
        beta: weight of the KL in what elbo trains; never in what is reported.
        beta_warmup_epochs: epochs over which that weight rises from 0, in a line.
        optimizer: any optimiser of torch.optim, by name.
        learning_rate: its step size.
        weight_decay: its weight decay.
        weight_prior: the paper's Gaussian prior N(0, I) on all weights: a further weight decay of 1 / N for N training
            images, right for optimisers to which decay is a gradient (Adam, Adagrad, SGD; not AdamW).
        lr_schedule: constant, or cosine (down to zero at the last step).
        init_output_bias: whether the decoder starts at the mean of the training images.
        seed: of the noise in training, which is a function of (seed, epoch, batch, rank).
        compile: whether torch.compile makes one program of the training's bound; it takes half a minute, and on a CPU
            needs a C++ compiler.
        vae: the arguments of `VAE`.

    Raises:
        ValueError: an argument that is out of range or names nothing; the message says what is expected.
    """

    def __init__(
        self,
        objective: str = "elbo",
        num_samples: int = 1,
        analytic_kl: bool = True,
        beta: float = 1.0,
        beta_warmup_epochs: float = 0.0,
        optimizer: str = "Adam",
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        weight_prior: bool = False,
        lr_schedule: str = "constant",
        init_output_bias: bool = False,
        seed: int = 0,
        compile: bool = False,
        **vae: Any,
    ):
        super().__init__()
        if num_samples < 1:
            raise ValueError(f"num_samples: expected a whole number of at least 1, got {num_samples}")
        if not learning_rate > 0:
            raise ValueError(f"learning_rate: expected a number above 0, got {learning_rate}")
        for name, value in (("weight_decay", weight_decay), ("beta", beta), ("beta_warmup_epochs", beta_warmup_epochs)):
            if not value >= 0:
                raise ValueError(f"{name}: expected 0 or more, got {value}")
        if OBJECTIVES[objective] != "elbo" and (beta != 1 or beta_warmup_epochs or not analytic_kl):
            raise ValueError(
                f"beta, beta_warmup_epochs and analytic_kl belong to the objective elbo, not to {objective}"
            )
        self.optimizer, self.lr_schedule = OPTIMIZERS[optimizer], LR_SCHEDULES[lr_schedule]
        if (weight_decay or weight_prior) and "weight_decay" not in signature(self.optimizer).parameters:
            raise ValueError(f"weight_decay: {optimizer} has none; choose another optimizer, such as Adam")
        if weight_prior and optimizer == "AdamW":
            raise ValueError("weight_prior: to AdamW decay is no gradient; choose another optimizer, such as Adam")
        self.save_hyperparameters()
        self.vae = VAE(**vae)
        bounds = (self.vae.elbo, self.vae.importance_bound)
        self.elbo, self.importance_bound = map(torch.compile, bounds) if compile else bounds
        if init_output_bias and not isinstance(self.vae.likelihood, MeanLikelihood):
            raise ValueError("init_output_bias: this likelihood has no mean that the bias could start at")
        self.train_bound, self.val_bound = PerImageMean(), PerImageMean()
        self.test_bound = ImportanceEstimateMetrics(self.vae.image_shape)
        self.active_units, self.kl_per_dimension, self.quality = (
            ActiveUnits(),
            KLPerDimension(),
            ReconstructionMetrics(),
        )
        self.importance_samples: tuple[int, ...] = (100,)  # of each image, in the test

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.hparams.init_output_bias:
            self.vae.likelihood.init_output_bias(self.trainer.datamodule.mean_image())

    @property
    def beta(self) -> float:
        """The weight of the KL at the step at hand."""
        if not self.hparams.beta_warmup_epochs:
            return self.hparams.beta
        epochs = self.current_epoch + max(0, self.trainer.fit_loop.batch_idx) / self.trainer.num_training_batches
        return self.hparams.beta * min(1.0, epochs / self.hparams.beta_warmup_epochs)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        key = hash((self.hparams.seed, self.current_epoch, batch_idx, self.global_rank))
        generator = torch.Generator(self.device).manual_seed(key)
        shape = (self.hparams.num_samples, len(batch.images), self.vae.latent_dim)
        eps = torch.randn(shape, generator=generator, device=self.device)
        if self.hparams.objective == "elbo":
            bound = self.elbo(batch.images, eps=eps, analytic_kl=self.hparams.analytic_kl)
            objective = bound.weighted(self.beta)
            self.train_bound.update(bound._asdict())
        else:
            doubly = self.hparams.objective == "dreg"
            objective = self.importance_bound(batch.images, eps=eps, doubly_reparameterized=doubly)
            self.train_bound.update({"importance_bound": objective})
        return -objective.mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        q_z = self.vae.encode(batch.images)
        self.val_bound.update(self.evaluate_bound(batch, q_z))
        self.evaluate_posterior(q_z)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        q_z = self.vae.encode(batch.images)
        noise = self.evaluation_noise(batch.index, self.importance_samples[-1])
        evidence = self.vae.importance_estimate(batch.images, self.importance_samples, eps=noise, q_z=q_z)
        bounds = {f"bound_{k}": bound for k, bound in zip(self.importance_samples, evidence.bounds, strict=True)}
        values = {"log_marginal": evidence.log_marginal, "mc_error": evidence.mc_error}
        self.test_bound.update(self.evaluate_bound(batch, q_z) | bounds | values)
        self.evaluate_posterior(q_z)
        self.quality.update(self.vae.generate(q_z.mean), batch.images)

    def evaluate_bound(self, batch: Any, q_z: Distribution) -> dict[str, Tensor]:
        """The terms of the bound for each image, [B]: the same for the same image, whenever it is asked for."""
        eps = torch.cat([*self.evaluation_noise(batch.index, self.hparams.num_samples)])
        return self.vae.elbo(batch.images, eps=eps, q_z=q_z)._asdict()

    def evaluate_posterior(self, q_z: Distribution) -> None:
        self.active_units.update(q_z.mean)
        self.kl_per_dimension.update(self.vae.kl_per_dimension(q_z))

    def evaluation_noise(self, index: Tensor, num_samples: int) -> Iterator[Tensor]:
        """Noise that depends on an image's place in its split and on the sample alone: chunks [k, B, Z].

        It is drawn on the CPU, image by image and always in whole chunks, so that no figure depends on the batch
        size, the device, the precision, or how many samples are asked for after it.
        """
        generator, whole = torch.Generator(), (NOISE_CHUNK, self.vae.latent_dim)
        for piece, k in enumerate(chunk_sizes(num_samples)):
            noise = [
                torch.randn(
                    whole, generator=generator.manual_seed(hash((EVALUATION_SEED, piece, i))), dtype=torch.float32
                )
                for i in index.tolist()
            ]
            yield torch.stack(noise, dim=1)[:k].to(self.device)

    def on_validation_start(self) -> None:
        if self.trainer.state.fn == "fit":
            self.check_finite()

    def on_train_epoch_end(self) -> None:
        self.check_finite()
        values = {f"train/{name}": value for name, value in self.train_bound.compute().items()}
        self.log_epoch(values | {"learning_rate": self.optimizers().param_groups[0]["lr"], "beta": self.beta})
        self.train_bound.reset()

    def log_epoch(self, values: dict[str, float]) -> None:
        """Log what an epoch of training was, into the run's log at once.

        The Trainer enters such values after it has written the checkpoint: one killed in between would lack them.
        """
        self.log_dict(values, logger=False)
        if self.logger:
            self.logger.log_metrics(values | {"epoch": self.current_epoch}, self.global_step - 1)

    def check_finite(self) -> None:
        """See that training is still sound, before anything of this epoch is kept.

        Raises:
            NotFinite: a loss was infinite or no number.
        """
        step = self.train_bound.first_not_finite()
        first = self.all_gather(torch.tensor(torch.inf if step is None else step, device=self.device)).min().item()
        if first < torch.inf:
            raise NotFinite(NOT_FINITE.format(epoch=self.current_epoch + 1, step=int(first) + 1))

    def on_validation_epoch_end(self) -> None:
        self.log_all("val", self.val_bound)
        self.log_all("val", self.active_units)
        self.kl_per_dimension.reset()

    def on_train_end(self) -> None:
        if self.trainer.callback_metrics.get("val/active_units") == 0:
            warnings.warn(COLLAPSE, PosteriorCollapse, stacklevel=1)

    def on_test_epoch_end(self) -> None:
        for metric in (self.test_bound, self.active_units, self.kl_per_dimension, self.quality):
            self.log_all("test", metric)

    def log_all(self, stage: str, metric: Metric) -> None:
        """Log what a metric has found over the whole split, and begin anew."""
        for name, value in metric.compute().items():
            self.log(f"{stage}/{name}", float(value), prog_bar=f"{stage}/{name}" == "val/elbo")
        metric.reset()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        packages = ("torch", "torchvision", "pytorch-lightning")
        versions = {"python": platform.python_version()} | {name: version(name) for name in packages}
        checkpoint["versions"] = versions

    def configure_optimizers(self) -> Any:
        options = {"lr": self.hparams.learning_rate}
        decay = self.hparams.weight_decay
        if self.hparams.weight_prior:
            decay += 1 / len(self.trainer.datamodule.splits["train"])
        if "weight_decay" in signature(self.optimizer).parameters:
            options["weight_decay"] = decay  # also where it is 0, which is not the default of all
        if "fused" in signature(self.optimizer).parameters:
            options["fused"] = True  # one kernel for all parameters: a sixth of a step's time on a CPU
        optimizer = self.optimizer(self.parameters(), **options)
        if self.lr_schedule is None:
            return optimizer
        scheduler = self.lr_schedule(optimizer, T_max=self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
