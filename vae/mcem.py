"""Monte Carlo EM, to which the paper's Section 5 and Appendix E compare: training without a recognition model."""

from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.optim import Optimizer

from vae import hmc
from vae.choices import check_number, check_whole, choose
from vae.model import VAE
from vae.noise import StepNoise, counter_normal, derive_seed
from vae.optimization import OPTIMIZERS, OptimizerName

FIRST_STATES = 16  # a stream of noise


class MonteCarloEM(LightningModule):
    """The decoder of a VAE, trained with samples of its true posterior.

    A step takes a batch of images. E: one move of Hamiltonian Monte Carlo that leaves p(z|x) as it is; each image has a
    chain of its own, which goes on where the image's last step left it. M: several updates of the decoder's weights
    that raise log p(x, z) at the samples. The encoder of `vae` has no part in it and stays as it was initialised.

    It needs a data module of this project, which numbers the images, and one device. It reports no bound: what the
    decoder has learned is `vae.log_marginal`'s estimators to tell.

    Args:
        num_images: the number of training images, and of chains.
        num_leapfrog_steps: of a move.
        num_updates: of the weights, with the sample of a move.
        target_acceptance: the share of accepted moves to which the step size of the leapfrog steps is tuned.
        optimizer: an optimiser of torch.optim.
        learning_rate: its step size.
        weight_prior: the paper's Gaussian prior N(0, I) on the weights: a weight decay of 1 / num_images.
        seed: of the chains, whose noise is a function of (seed, epoch, step).
        vae: the arguments of `VAE`.

    Raises:
        ValueError: an argument that is out of range or names nothing; the message says what is expected.
    """

    chains: Tensor  # where they stand, [N, Z]
    step_size: Tensor  # of the leapfrog steps of all chains, a scalar

    def __init__(
        self,
        num_images: int,
        num_leapfrog_steps: int = 10,
        num_updates: int = 5,
        target_acceptance: float = 0.9,
        optimizer: OptimizerName = "Adagrad",
        learning_rate: float = 0.02,
        weight_prior: bool = True,
        seed: int = 0,
        **vae: Any,
    ):
        super().__init__()
        sizes = {"num_images": num_images, "num_leapfrog_steps": num_leapfrog_steps, "num_updates": num_updates}
        for name, value in sizes.items():
            check_whole(name, value)
        if not 0 < target_acceptance < 1:
            raise ValueError(f"target_acceptance: expected a number between 0 and 1, got {target_acceptance}")
        check_number("learning_rate", learning_rate)
        self.optimizer = choose("optimizer", optimizer, OPTIMIZERS)
        self.save_hyperparameters()
        self.vae = VAE(**vae)
        index = torch.arange(num_images)
        first = counter_normal(derive_seed(FIRST_STATES, seed), index, index[:1], self.vae.latent_dim)[0]
        self.register_buffer("chains", first)
        self.register_buffer("step_size", torch.tensor(0.1))
        self.automatic_optimization = False  # several updates a batch
        self.epoch_steps = 0  # of the current epoch so far

    def setup(self, stage: str) -> None:
        if self.trainer.world_size > 1:
            raise MisconfigurationException("Monte Carlo EM keeps a chain for each image: train on one device")

    def on_train_epoch_start(self) -> None:
        self.epoch_steps = 0

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """The E and M steps of a block: images [B, C, H, W] and their numbers [B], to be cut by `batch.sizes`."""
        for x, index in zip(batch.images.split(batch.sizes), batch.index.split(batch.sizes), strict=True):
            z, acceptance = self.sample_posterior(x, self.chains[index])
            self.chains[index] = z
            self.step_size = hmc.adapted(self.step_size, acceptance.mean(), self.hparams.target_acceptance)
            for _ in range(self.hparams.num_updates):
                log_joint = self.vae.log_joint(x, z.unsqueeze(0)).mean()
                self.optimizers().zero_grad()
                self.manual_backward(-log_joint)
                self.optimizers().step()
            self.epoch_steps += 1
        values = {"train/log_joint": log_joint, "train/acceptance": acceptance.mean(), "step_size": self.step_size}
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=len(batch.images))

    def sample_posterior(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """The states of the chains after a move from z, [B, Z], and the probability of its acceptance, [B]."""

        def point(z: Tensor) -> hmc.Point:
            return hmc.point(lambda z: self.vae.log_joint(x, z.unsqueeze(0))[0], z)

        integers = (self.hparams.seed, self.current_epoch, 0)
        noise = StepNoise((len(x), self.vae.latent_dim + 1), integers, self.epoch_steps, self.device).eps
        momentum, uniform = noise[:, :-1], torch.special.ndtr(noise[:, -1])
        start, num_steps = point(z), self.hparams.num_leapfrog_steps
        end, acceptance = hmc.transition(point, start, self.step_size, momentum, uniform, num_steps)
        return end.z, acceptance

    def configure_optimizers(self) -> Optimizer:
        weights = [*self.vae.decoder.parameters(), *self.vae.likelihood.parameters()]
        decay = {"weight_decay": 1 / self.hparams.num_images} if self.hparams.weight_prior else {}
        return self.optimizer(weights, lr=self.hparams.learning_rate, **decay)
