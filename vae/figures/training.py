"""Figures of a training: its curves, and a film of what the model learned."""

from collections.abc import Mapping
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter
from torch import Tensor

from vae.colours import COLOURS
from vae.figures.drawing import NotApplicable, cell_size, image_figure, image_grid, to_cells
from vae.figures.latent_space import latent_steps, manifold_grid
from vae.figures.reconstructions import sample_grid
from vae.model import VAE

MAX_FRAME_SIDE = 1_000  # pixels
History = Mapping[str, Mapping[int, float]]  # of each quantity, its value after each epoch; epochs are counted from 1


def learning_curve(history: History) -> Figure:
    """Bound, reconstruction and KL after each epoch of a run, in training and validation.

    Training's values are means over the epoch, while the weights changed; validation's are those at its end, which is
    why they can be the better ones.

    Args:
        history: the run's curves.

    Raises:
        NotApplicable: there are none.
    """
    training, validation = "training, mean while the epoch ran", "validation, at the epoch's end"
    bounds = {
        "train/elbo": training,
        "train/importance_bound": f"importance-weighted {training}",
        "val/elbo": validation,
    }
    quantities = {
        "Bound": bounds,
        "Reconstruction": {"train/reconstruction": training, "val/reconstruction": validation},
        "KL": {"train/kl": training, "val/kl": validation},
    }
    if not history.keys() & bounds.keys():
        raise NotApplicable("learning_curve needs the curves that TensorBoard keeps; this run's folder has none")
    chart = Figure(figsize=(15, 5.5), layout="constrained")
    for axes, (quantity, tags) in zip(chart.subplots(1, 3), quantities.items(), strict=True):
        for tag, name in tags.items():
            if tag in history:
                style = "--" if name == validation else "-"
                axes.plot(*zip(*history[tag].items(), strict=True), style, marker=".", markevery=[-1], label=name)
        axes.set(title=quantity, xlabel="epoch", ylabel="nats per image")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    chart.legend(handles=chart.axes[0].lines, loc="outside upper center", ncols=3)
    return chart


def learning_curves(histories: Mapping[str, Mapping[str, History]]) -> Figure:
    """The bound of several runs over the training images seen, as in the paper's Figure 2.

    Runs share a chart where their bounds compare: those of one data set and likelihood.

    Args:
        histories: the curves of each run by its name, in groups by what was measured.

    Raises:
        NotApplicable: there are none.
    """
    groups = {
        measured: {name: history for name, history in runs.items() if "images_seen" in history}
        for measured, runs in histories.items()
    }
    groups = {measured: runs for measured, runs in groups.items() if runs}
    if not groups:
        raise NotApplicable("learning_curves needs the curves that TensorBoard keeps; these runs' folders have none")
    chart = Figure(figsize=(10, 6 * len(groups) + 0.5), layout="constrained")
    for axes, (measured, runs) in zip(chart.subplots(len(groups), squeeze=False)[:, 0], groups.items(), strict=True):
        for (name, history), colour in zip(runs.items(), cycle(COLOURS), strict=False):
            for tag, style in (("train/elbo", "-"), ("train/importance_bound", "-"), ("val/elbo", "--")):
                if tag in history:
                    epochs = [epoch for epoch in history[tag] if epoch in history["images_seen"]]  # the last may be cut
                    seen, bound = ([history[of][epoch] for epoch in epochs] for of in ("images_seen", tag))
                    axes.plot(seen, bound, style, color=colour, label=name if style == "-" else None)
        title = f"Learning curves: {measured}"
        axes.set(title=title, xscale="log", xlabel="training images seen", ylabel="bound, nats per image")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_minor_formatter(NullFormatter())
        leave_out_first_epochs(axes)
        axes.plot([], [], "-", color="grey", label="training, mean while the epoch ran")
        axes.plot([], [], "--", color="grey", label="validation, at the epoch's end")
        axes.legend()
    return chart


def leave_out_first_epochs(axes: Axes) -> None:
    """Limit the axes to what every curve has in the right half of its logarithmic axis.

    The first epochs would leave no height to the last nats, in which runs differ.
    """
    curves = [line.get_xydata() for line in axes.lines]
    second_halves = [curve[curve[:, 0] ** 2 >= curve[0, 0] * curve[-1, 0], 1] for curve in curves if len(curve) > 3]
    if not second_halves:
        return
    lowest = min(half.min() for half in second_halves)
    highest = max(curve[:, 1].max() for curve in curves)
    first = min(curve[curve[:, 1] >= lowest, 0].min(initial=np.inf) for curve in curves)
    margin = 0.05 * (highest - lowest) or 1
    if np.isfinite([lowest, highest]).all():
        axes.set(xlim=(0.95 * first, None), ylim=(lowest - margin, highest + margin))


def training_film(frames: Mapping[int, Tensor]) -> list[Figure]:
    """What the model generated after each epoch, from the same codes throughout.

    Args:
        frames: by epoch, counted from 1, what `film_frame` made of the model, uint8 [3, H, W].

    Raises:
        NotApplicable: there are none.
    """
    if not frames:
        raise NotApplicable("training_film needs the frames that training keeps; this run's folder has none")
    charts = []
    for epoch, frame in frames.items():
        at_least = 480 * min(frame.shape[1:]) // max(frame.shape[1:])  # of the shorter side: the longer one has 480
        size = cell_size(frame.shape, 1, 1, at_least, at_most=MAX_FRAME_SIDE)
        charts.append(image_figure(image_grid(to_cells(frame[None] / 255, size), 1), f"After epoch {epoch}"))
    return charts


def film_frame(vae: VAE) -> Tensor:
    """What a film shows of one epoch: the manifold where it can be drawn, else samples; uint8 [3, H, W]."""
    if vae.latent_dim <= 2:
        return manifold_grid(vae, latent_steps(grid_size=10), at_least=1, at_most=MAX_FRAME_SIDE)
    return sample_grid(vae, 64, 8, at_least=1, spacing=1, at_most=MAX_FRAME_SIDE)
