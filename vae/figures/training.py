"""Figures of a training: its curves, and a film of what the model learned."""

from collections.abc import Mapping
from itertools import cycle

import matplotlib.style
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

from vae.figures.drawing import COLOURS, image_figure, rasterize, upscale
from vae.figures.latent_space import latent_steps, manifold_grid
from vae.figures.reconstructions import sample_grid
from vae.figures.registry import NotApplicable, figure
from vae.model import VAE

History = Mapping[str, Mapping[int, float]]  # of each quantity, its value after each epoch; epochs are counted from 1


@figure
def learning_curve(history: History) -> Figure:
    """Bound, reconstruction and KL after each epoch of a run, in training and validation.

    Args:
        history: the run's curves.

    Raises:
        NotApplicable: there are none.
    """
    bounds = {
        "train/elbo": "training",
        "train/importance_bound": "training, importance-weighted",
        "val/elbo": "validation",
    }
    quantities = {
        "Bound": bounds,
        "Reconstruction": {"train/reconstruction": "training", "val/reconstruction": "validation"},
        "KL": {"train/kl": "training", "val/kl": "validation"},
    }
    if not history.keys() & bounds.keys():
        raise NotApplicable("learning_curve needs the curves that TensorBoard keeps; this run's folder has none")
    chart = Figure(figsize=(15, 5), layout="constrained")
    for axes, (quantity, tags) in zip(chart.subplots(1, 3), quantities.items(), strict=True):
        for tag, name in tags.items():
            if tag in history:
                style = "--" if name == "validation" else "-"
                axes.plot(*zip(*history[tag].items(), strict=True), style, marker=".", markevery=[-1], label=name)
        axes.set(title=quantity, xlabel="epoch", ylabel="nats per image")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
    return chart


@figure
def learning_curves(histories: Mapping[str, History]) -> Figure:
    """The bound of several runs over the training images seen, as in the paper's Figure 2.

    Args:
        histories: the curves of each run, by its name.

    Raises:
        NotApplicable: there are none.
    """
    curves = {name: history for name, history in histories.items() if "images_seen" in history}
    if not curves:
        raise NotApplicable("learning_curves needs the curves that TensorBoard keeps; these runs' folders have none")
    chart = Figure(figsize=(10, 6.5), layout="constrained")
    axes = chart.subplots()
    for (name, history), colour in zip(curves.items(), cycle(matplotlib.color_sequences[COLOURS]), strict=False):
        for tag, style in (("train/elbo", "-"), ("train/importance_bound", "-"), ("val/elbo", "--")):
            if tag in history:
                seen = [history["images_seen"][epoch] for epoch in history[tag]]
                axes.plot(seen, history[tag].values(), style, color=colour, label=name if style == "-" else None)
    axes.plot([], [], "-", color="grey", label="training")
    axes.plot([], [], "--", color="grey", label="validation")
    axes.set(title="Learning curves", xscale="log", xlabel="training images seen", ylabel="bound, nats per image")
    axes.legend()
    return chart


@figure
def training_film(frames: Mapping[int, Tensor]) -> list[Image.Image]:
    """What the model drew after each epoch, from the same codes throughout.

    Args:
        frames: by epoch, counted from 1, what `frame` made of the model, uint8 [3, H, W].

    Raises:
        NotApplicable: there are none.
    """
    if not frames:
        raise NotApplicable("training_film needs the frames that training keeps; this run's folder has none")
    film = []
    for epoch, image in frames.items():
        sides = image.shape[1:]
        still = image_figure(upscale(image, 480 * min(sides) // max(sides)), f"After epoch {epoch}")
        film.append(rasterize(still))
    return film


def film_frame(vae: VAE) -> Tensor:
    """What a film shows of one epoch: the manifold where it can be drawn, else samples; uint8 [3, H, W]."""
    at_most = max(4, 800 // max(vae.image_shape[1:]))  # of large images there are fewer
    if vae.latent_dim <= 2:
        return manifold_grid(vae, latent_steps(grid_size=min(10, at_most)), at_least=1)
    return sample_grid(vae, min(8, at_most) ** 2, min(8, at_most), at_least=1)
