"""Reads a figure back: its grid of images, one image of it, its labels."""

import numpy as np
import torch


def grid_of(figure):
    """The grid of images in a figure, as it is when the file is opened again: uint8 [H, W, 3]."""
    (axes, *_) = figure.axes
    return np.asarray(axes.images[0].get_array())


def shown(images, factor):
    """Images [N, C, H, W] as they must appear: uint8 [N, factor H, factor W, 3]."""
    images = images.mul(255).round().byte().numpy().transpose(0, 2, 3, 1)
    return np.kron(np.broadcast_to(images, (*images.shape[:3], 3)), np.ones((1, factor, factor, 1), np.uint8))


def cell(grid, row, column, shape, factor, spacing=2):
    """One image of a grid, whose images are so many white pixels apart."""
    top, left = row * (factor * shape[1] + spacing), column * (factor * shape[2] + spacing)
    return grid[top : top + factor * shape[1], left : left + factor * shape[2]]


def texts(axes):
    return [label.get_text() for label in axes.get_xticklabels()], [
        label.get_text() for label in axes.get_yticklabels()
    ]


@torch.no_grad()
def code(vae, images):
    return vae.encode(images).mean


HISTORY = {
    "train/elbo": {1: -200.0, 2: -150.0},
    "val/elbo": {1: -190.0, 2: -160.0},
    "train/kl": {1: 5.0, 2: 6.0},
    "images_seen": {1: 100.0, 2: 200.0},
}

SOURCE = {
    "run": "a_b$",
    "epoch": "7",
    "data": "MNIST, binarize dynamic",
    "split": "test",
    "likelihood": "bernoulli",
}

SHAPES = [(1, 8, 8), (3, 24, 24), (3, 5, 9)]
