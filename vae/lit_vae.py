"""The training system around the model: hyper-parameters, steps, optimiser, and what is logged. No formula."""

from collections.abc import Iterator
from inspect import signature
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from vae.metrics import ActiveUnits, EvidencePerPicture, PerPicture
from vae.model import VAE, pieces
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


class LitVAE(LightningModule):
    """A VAE and how it is trained.

    Args:
        num_samples: L of equation 10, the samples of z for each picture, in training and validation.
        optimizer: any optimiser of torch.optim, by name.
        learning_rate: its step size.
        weight_decay: its weight decay.
        lr_schedule: constant, or cosine (down to zero at the last step).
        seed: of the noise in training, which is a function of (seed, epoch, batch, rank).
        vae: the arguments of `VAE`.

    Raises:
        ValueError: an argument that is out of range or names nothing; the message says what is expected.
    """

    def __init__(
        self,
        num_samples: int = 1,
        optimizer: str = "Adam",
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        lr_schedule: str = "constant",
        seed: int = 0,
        **vae: Any,
    ):
        super().__init__()
        if num_samples < 1:
            raise ValueError(f"num_samples: expected a whole number of at least 1, got {num_samples}")
        if not learning_rate > 0:
            raise ValueError(f"learning_rate: expected a number above 0, got {learning_rate}")
        if not weight_decay >= 0:
            raise ValueError(f"weight_decay: expected 0 or more, got {weight_decay}")
        self.optimizer, self.lr_schedule = OPTIMIZERS[optimizer], LR_SCHEDULES[lr_schedule]
        if weight_decay and "weight_decay" not in signature(self.optimizer).parameters:
            raise ValueError(f"weight_decay: {optimizer} has none; choose another optimizer, such as AdamW")
        self.save_hyperparameters()
        self.vae = VAE(**vae)
        self.train_bound, self.val_bound = PerPicture(), PerPicture()
        self.test_bound = EvidencePerPicture(self.vae.image_shape)
        self.active_units = ActiveUnits()
        self.importance_samples = 100  # of each picture, in the test

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        key = hash((self.hparams.seed, self.current_epoch, batch_idx, self.global_rank))
        generator = torch.Generator(self.device).manual_seed(key)
        shape = (self.hparams.num_samples, len(batch.images), self.vae.latent_dim)
        eps = torch.randn(shape, generator=generator, device=self.device)
        bound = self.vae.elbo(batch.images, eps=eps)
        self.train_bound.update(bound._asdict())
        return -bound.elbo.mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.val_bound.update(self.evaluate_bound(batch))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        bound = self.evaluate_bound(batch)
        noise = self.evaluation_noise(batch.index, self.importance_samples)
        evidence = self.vae.evidence(batch.images, eps=noise)
        self.test_bound.update(bound | evidence._asdict())
        self.active_units.update(self.vae.encode(batch.images).mean)

    def evaluate_bound(self, batch: Any) -> dict[str, Tensor]:
        """The terms of the bound for each picture, [B]: the same for the same picture, whenever it is asked for."""
        eps = torch.cat([*self.evaluation_noise(batch.index, self.hparams.num_samples)])
        return self.vae.elbo(batch.images, eps=eps)._asdict()

    def evaluation_noise(self, index: Tensor, num_samples: int) -> Iterator[Tensor]:
        """Noise that depends on a picture's place in its split, and on nothing else: pieces [k, B, Z].

        It is drawn on the CPU, picture by picture, so that no figure depends on the batch size or the device.
        """
        generator = torch.Generator()
        for piece, k in enumerate(pieces(num_samples)):
            noise = [
                torch.randn(k, self.vae.latent_dim, generator=generator.manual_seed(hash((EVALUATION_SEED, piece, i))))
                for i in index.tolist()
            ]
            yield torch.stack(noise, dim=1).to(self.device)

    def on_train_epoch_end(self) -> None:
        self.log_means("train")
        self.log("learning_rate", self.optimizers().param_groups[0]["lr"])

    def on_validation_epoch_end(self) -> None:
        self.log_means("val")

    def on_test_epoch_end(self) -> None:
        self.log_means("test")
        self.log("test/active_units", float(self.active_units.compute()))
        self.active_units.reset()

    def log_means(self, stage: str) -> None:
        bound = getattr(self, f"{stage}_bound")
        for name, value in bound.compute().items():
            self.log(f"{stage}/{name}", value, prog_bar=f"{stage}/{name}" == "val/elbo")
        bound.reset()

    def configure_optimizers(self) -> Any:
        options = {"lr": self.hparams.learning_rate}
        if self.hparams.weight_decay:
            options["weight_decay"] = self.hparams.weight_decay
        if "fused" in signature(self.optimizer).parameters:
            options["fused"] = True  # one kernel for all parameters: a sixth of a step's time on a CPU
        optimizer = self.optimizer(self.parameters(), **options)
        if self.lr_schedule is None:
            return optimizer
        scheduler = self.lr_schedule(optimizer, T_max=self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
