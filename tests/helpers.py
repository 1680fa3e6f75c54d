"""What several files of tests do alike: a short training, a test of it, a distribution of given numbers."""

import torch
from pytorch_lightning import Callback, Trainer
from torch import nn

from datamodules import Digits
from vae import VAE, LitVAE
from vae.callbacks import LastCheckpoint
from vae.likelihoods import LIKELIHOODS, CategoricalLikelihood
from vae.model import build

DIGITS = ("--data", "Digits", "--model.hidden_dims", "32")

QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0, "accelerator": "cpu"}


SHAPE = (1, 2, 3)


def random_vae(**options) -> VAE:
    """A small VAE whose posterior is well away from the prior; frozen."""
    vae = VAE(**{"image_shape": SHAPE, "latent_dim": 2, "hidden_dims": 8} | options)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.normal_(std=0.7)
    return vae.requires_grad_(False)


def fit(data, epochs=1, ckpt_path=None, logger=False, callbacks=(), **options):
    trainer = Trainer(max_epochs=epochs, logger=logger, callbacks=[LastCheckpoint(), *callbacks], **QUIET)
    torch.manual_seed(0)
    lit = LitVAE(image_shape=data.image_shape, hidden_dims=16, **options)
    trainer.fit(lit, data, ckpt_path=ckpt_path, weights_only=True)
    return lit, trainer


def evaluate(lit, data):
    trainer = Trainer(logger=False, enable_checkpointing=False, **QUIET)
    return trainer.test(lit, data, verbose=False)[0]


def bounds_of(epochs, **options):
    """The validation ELBO on Digits after each epoch."""
    bounds = []

    class Record(Callback):
        def on_validation_end(self, trainer, lit):
            bounds.append(trainer.callback_metrics["val/elbo"].item())

    fit(Digits(), epochs=epochs, callbacks=[Record()], **options)
    return bounds


GREY = tuple((value,) for value in (0, 17, 100, 255))

OPTIONS = {"min_scale": 0.01, "scale": 0.3, "learn_scale": False, "palette": GREY}


class Given(nn.Module):
    """In place of the decoder's last layer: the numbers themselves, [..., N, H, W]."""

    def __init__(self, numbers):
        super().__init__()
        self.numbers = numbers

    def forward(self, features):
        return self.numbers


def distribution(name, *numbers, image_shape=(1, 1, 1), **options):
    """p(x|z) with these numbers at each position: the first layer that the head asks for gives the first, and so on."""
    layers = iter([Given(torch.as_tensor(number)) for number in numbers])
    head = build(
        LIKELIHOODS[name],
        output_layer=lambda n: next(layers),
        image_shape=image_shape,
        **OPTIONS | {"palette": GREY} | options,
    )
    if isinstance(head, CategoricalLikelihood):
        head.colours = nn.Identity()
    return head(None)


def parameters_of(name, *shape):
    """Random numbers for a distribution of images [..., 1, H, W]."""
    channels = {"categorical": [len(GREY)], "gaussian": [1, 1], "discretized_logistic": [1, 1]}.get(name, [1])
    return [torch.randn(*shape[:-3], n, *shape[-2:], dtype=torch.float64) for n in channels]


SPLITS = ("train", "val", "test")


def ready(data):
    """A data module that has its data."""
    data.prepare_data()
    data.setup()
    return data
