"""The baseline: the same training as a plain PyTorch loop for this one model, and its matrix products alone."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import linear

DIMS = (784, 500, 20)


class Bare:
    """784-500-20 and fused Adam, for MNIST's training images, uint8 [N, 784] on their device, binarised dynamically."""

    def __init__(self, images: Tensor):
        pixels, hidden, latents = DIMS
        shapes = [(hidden, pixels), (hidden,), (2 * latents, hidden), (2 * latents,)]
        shapes += [(hidden, latents), (hidden,), (pixels, hidden), (pixels,)]
        self.weights = [(torch.randn(shape, device=images.device) * 0.03).requires_grad_() for shape in shapes]
        self.optimizer = torch.optim.Adam(self.weights, lr=1e-3, fused=True)
        self.thresholds = images.short() * 257 - 32768

    def loss(self, index: Tensor) -> Tensor:
        """Minus the bound: the mean over the images of that index, [B]."""
        w1, b1, w2, b2, w3, b3, w4, b4 = self.weights
        thresholds = self.thresholds[index]
        noise = torch.randint(-(2**63), 2**63 - 1, (thresholds.numel() // 4,), device=index.device).view(torch.int16)
        x = (noise.view(thresholds.shape) < thresholds).float()
        mean, log_var = linear(linear(x, w1, b1).relu_(), w2, b2).chunk(2, -1)
        z = torch.addcmul(mean, (0.5 * log_var).exp(), torch.randn_like(mean))
        logits = linear(linear(z, w3, b3).relu_(), w4, b4)
        kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum()
        size = logits.abs()  # log1p, in softplus or log_sigmoid, is ten times as slow as log on a CPU
        log_p_x = torch.addcmul(size.sigmoid().log(), x - 0.5, logits).sub(size, alpha=0.5).sum()
        return (kl - log_p_x) / len(index)


def bare_epoch(images: Tensor, batch_size: int) -> Callable[[], None]:
    """An epoch of the bare loop; it ends when the device has finished."""
    bare = Bare(images)

    def epoch() -> None:
        for index in torch.randperm(len(images), device=images.device).split(batch_size):
            loss = bare.loss(index)
            bare.optimizer.zero_grad()
            loss.backward()
            bare.optimizer.step()
        if images.is_cuda:
            torch.cuda.synchronize()

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
                if place:  # the images need no gradient
                    gradient @ weight

    return epoch
