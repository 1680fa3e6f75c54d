"""Figures of a training: its curves, and a film of what the model learned."""

from collections.abc import Mapping
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter
from torch import Tensor

from vae.colours import COLOURS
from vae.figures.drawing import NotApplicable, cell_size, image_figure, image_grid, to_cells
from vae.figures.latent_space import latent_steps, manifold_grid
from vae.figures.reconstructions import sample_grid
from vae.model import VAE
from vae.objectives import is_bound

MAX_FRAME_SIDE = 1_000  # pixels
History = Mapping[str, Mapping[int, float]]  # of each quantity, its value after each epoch; epochs are counted from 1


def learning_curve(history: History) -> Figure:
    """Bound, reconstruction and KL after each epoch of a run, in training and validation; and what else training has.

    Training's values are means over the epoch, while the weights changed; validation's are those at its end, which is
    why they can be the better ones.

    Args:
        history: the run's curves.

    Raises:
        NotApplicable: there are none.
    """
    tags = [tag for tag in history if tag.startswith("train/")]
    tags += [tag for tag in ("val/elbo", "val/reconstruction", "val/kl") if tag in history]
    if not tags:
        raise NotApplicable("learning_curve needs the curves that TensorBoard keeps; this run's folder has none")
    quantities: dict[str, list[str]] = {"Bound": [], "Reconstruction": [], "KL": []}
    for tag in tags:
        name = tag.partition("/")[2]
        title = "Bound" if is_bound(name) else "KL" if name == "kl" else name.replace("_", " ").capitalize()
        quantities.setdefault(title, []).append(tag)
    chart = Figure(figsize=(5 * len(quantities), 5.5), layout="constrained")
    lines: dict[str, Line2D] = {}  # of each label one
    for axes, (title, shown) in zip(chart.subplots(1, len(quantities)), quantities.items(), strict=True):
        for tag in shown:
            stage, _, name = tag.partition("/")
            label = "validation, at the epoch's end" if stage == "val" else "training, mean while the epoch ran"
            if title == "Bound" and name != "elbo":
                label = f"{name.replace('_', ' ')} in {label}"
            style, colour = "--" if stage == "val" else "-", lines[label].get_color() if label in lines else None
            curve = zip(*history[tag].items(), strict=True)
            (line,) = axes.plot(*curve, style, color=colour or COLOURS[len(lines) % len(COLOURS)], label=label)
            line.set(marker=".", markevery=[-1])
            lines.setdefault(label, line)
        axes.set(title=title, xlabel="epoch", ylabel="nats per image")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    chart.legend(handles=[*lines.values()], loc="outside upper center", ncols=3)
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
            bounds = {tag: "-" for tag in history if tag.startswith("train/") and is_bound(tag.removeprefix("train/"))}
            bounds |= {"val/elbo": "--"} if "val/elbo" in history else {}
            for place, (tag, style) in enumerate(bounds.items()):
                epochs = [epoch for epoch in history[tag] if epoch in history["images_seen"]]  # the last may be cut
                seen, bound = ([history[of][epoch] for epoch in epochs] for of in ("images_seen", tag))
                axes.plot(seen, bound, style, color=colour, label=None if place else name)
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
    if vae.latent_dim <= 2 and not vae.needs_labels:
        return manifold_grid(vae, latent_steps(grid_size=10), at_least=1, at_most=MAX_FRAME_SIDE)
    return sample_grid(vae, 64, 8, at_least=1, spacing=1, at_most=MAX_FRAME_SIDE)
