"""The yardstick: the same training as a bare PyTorch loop, written for this one model and nothing else.

Run as a script it does the same steps under a Trainer that logs and writes nothing: the least that a Trainer costs.
"""

import sys
from collections.abc import Callable, Iterator

import torch
from pairs import Turns
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor
from torch.nn.functional import linear

DIMS = (784, 500, 20)


class Bare:
    """784-500-20 and fused Adam, for MNIST's training images, uint8 [N, 784], binarised dynamically."""

    def __init__(self, images: Tensor):
        pixels, hidden, latents = DIMS
        shapes = [(hidden, pixels), (hidden,), (2 * latents, hidden), (2 * latents,)]
        shapes += [(hidden, latents), (hidden,), (pixels, hidden), (pixels,)]
        self.weights = [(torch.randn(shape) * 0.03).requires_grad_() for shape in shapes]
        self.optimizer = torch.optim.Adam(self.weights, lr=1e-3, fused=True)
        self.thresholds = images.short() * 257 - 32768

    def loss(self, index: Tensor) -> Tensor:
        """Minus the bound: the mean over the images of that index, [B]."""
        w1, b1, w2, b2, w3, b3, w4, b4 = self.weights
        thresholds = self.thresholds[index]
        noise = torch.randint(-(2**63), 2**63 - 1, (thresholds.numel() // 4,)).view(torch.int16)
        x = (noise.view(thresholds.shape) < thresholds).float()
        mean, log_var = linear(linear(x, w1, b1).relu_(), w2, b2).chunk(2, -1)
        z = torch.addcmul(mean, (0.5 * log_var).exp(), torch.randn_like(mean))
        logits = linear(linear(z, w3, b3).relu_(), w4, b4)
        kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum()
        size = logits.abs()  # log1p, in softplus or log_sigmoid, is ten times as slow as log on a CPU
        log_p_x = torch.addcmul(size.sigmoid().log(), x - 0.5, logits).sub(size, alpha=0.5).sum()
        return (kl - log_p_x) / len(index)


class Batches:
    """The indices of each batch, rasterize anew for each epoch."""

    def __init__(self, num_images: int, batch_size: int):
        self.num_images, self.batch_size = num_images, batch_size

    def __len__(self) -> int:
        return self.num_images // self.batch_size

    def __iter__(self) -> Iterator[Tensor]:
        return iter(torch.randperm(self.num_images).split(self.batch_size))


class BareSteps(LightningModule):
    """The same steps, with Lightning's own hooks around them."""

    def __init__(self, images: Tensor, batch_size: int):
        super().__init__()
        self.bare, self.batch_size = Bare(images), batch_size

    def train_dataloader(self) -> "Batches":
        return Batches(len(self.bare.thresholds), self.batch_size)

    def training_step(self, index: Tensor, batch_idx: int) -> Tensor:
        return self.bare.loss(index)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.bare.optimizer


def bare_epoch(images: Tensor, batch_size: int) -> Callable[[], None]:
    """An epoch of the bare loop."""
    bare = Bare(images)

    def epoch() -> None:
        for index in torch.randperm(len(images)).split(batch_size):
            loss = bare.loss(index)
            bare.optimizer.zero_grad()
            loss.backward()
            bare.optimizer.step()

    return epoch


def products_epoch(num_images: int, batch_size: int) -> Callable[[], None]:
    """The matrix products of such an epoch alone: forward, and the gradients of weights and features."""
    pixels, hidden, latents = DIMS
    layers = [(pixels, hidden), (hidden, 2 * latents), (latents, hidden), (hidden, pixels)]
    sides = [(torch.rand(batch_size, i), torch.rand(o, i), torch.rand(batch_size, o)) for i, o in layers]

    def epoch() -> None:
        for _ in range(num_images // batch_size):
            for place, (features, weight, gradient) in enumerate(sides):
                features @ weight.T
                gradient.T @ features
                if place:  # nobody needs the gradient of the images
                    gradient @ weight

    return epoch


if __name__ == "__main__":
    pixels = torch.randint(256, (50_000, DIMS[0]), dtype=torch.uint8)  # what they are costs no step its time
    silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    Trainer(max_epochs=100, callbacks=[Turns()], **silent).fit(BareSteps(pixels, int(sys.argv[1])))
