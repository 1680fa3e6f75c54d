"""What the paper's experiments share: their data and models, trainings that can be interrupted, and their curves."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import BytesIO
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from tqdm import tqdm

from datamodules import MNIST, FreyFace, ImageDataModule
from vae import VAE, LitVAE
from vae.colours import COLOURS
from vae.evaluation import evaluate_bound
from vae.figures.drawing import STYLE
from vae.lit_vae import NotFinite
from vae.mcem import MonteCarloEM
from vae.runs import write_atomically

STEP_SIZES = (0.01, 0.02, 0.1)  # of Adagrad, among which the first updates choose
PILOT_SAMPLES = 10_000  # in these updates
PILOT_TOTAL = len(STEP_SIZES) * PILOT_SAMPLES
SAMPLES_BETWEEN_SAVES = 50_000
BLOCK = 1_000  # samples, after which it is looked at how many there were
IMAGES_AT_ONCE = 1_000  # in an evaluation
ALGORITHMS = {"elbo": "AEVB", "wake_sleep": "wake-sleep", "mcem": "Monte Carlo EM"}
DATASETS: dict[str, Callable[..., ImageDataModule]] = {"MNIST": MNIST, "FreyFace": FreyFace}
# Of all weights and of their prior; a Gaussian with means in (0, 1) for grey images.
PAPER = {"optimizer": "Adagrad", "weight_prior": True, "init_std": 0.1, "activation": "tanh"}
HIDDEN = {"MNIST": 500, "FreyFace": 200}
LIKELIHOOD = {"MNIST": "bernoulli", "FreyFace": "gaussian"}

COLOUR = {"elbo": COLOURS[3], "wake_sleep": COLOURS[2], "mcem": COLOURS[0]}

Row = dict[str, float]  # `samples` and what was measured then
Measure = Callable[[VAE], Row]


def evaluation_points(most: int) -> list[int]:
    """1, 2 and 5 times the powers of ten from 10,000 on, and the last number of samples."""
    points = [factor * 10**power for power in range(4, 12) for factor in (1, 2, 5)]
    return [point for point in points if point < most] + [most]


class Course(Callback):
    """Measures a model after certain numbers of training samples, saves the training, and ends it after the last."""

    state_key = "course"

    def __init__(self, points: Sequence[int], measure: Measure, checkpoint: Path, bar: tqdm):
        self.points, self.measure, self.checkpoint, self.bar = points, measure, checkpoint, bar
        self.samples = self.saved = 0
        self.rows: list[Row] = []

    def state_dict(self) -> dict[str, Any]:
        return {"samples": self.samples, "rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.samples = self.saved = state["samples"]
        self.rows = [dict(row) for row in state["rows"]]
        self.bar.update(min(self.samples, self.points[-1]))

    def on_train_batch_end(
        self, trainer: Trainer, lit: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        before, self.samples = self.samples, self.samples + len(batch.images)
        self.bar.update(min(self.samples, self.points[-1]) - before)
        if any(before < point <= self.samples for point in self.points):
            self.rows.append({"samples": self.samples} | self.measure(lit.vae))
        trainer.should_stop = self.samples >= self.points[-1]

    def on_train_epoch_end(self, trainer: Trainer, lit: LightningModule) -> None:
        if not trainer.should_stop and self.samples >= self.saved + SAMPLES_BETWEEN_SAVES:
            self.saved = self.samples
            part = self.checkpoint.with_suffix(".part")
            trainer.save_checkpoint(part)
            part.replace(self.checkpoint)


def train(
    name: str,
    make: Callable[[], LightningModule],
    data: ImageDataModule,
    samples: int,
    measure: Measure,
    folder: Path,
    bar: tqdm,
) -> list[Row]:
    """A training of so many samples, from where it was interrupted; one that was finished, or is longer, is read.

    Args:
        name: of its files in the folder: a checkpoint while it runs, the rows and the weights when it is finished.
        make: the model and its training at the beginning.
    """
    finished, checkpoint = folder / f"{name}.json", folder / f"{name}.ckpt"
    if finished.exists() and (rows := json.loads(finished.read_text()))[-1]["samples"] >= samples:
        bar.update(samples)
        return [row for row in rows if row["samples"] < samples + BLOCK]
    bar.set_description(name)
    course = Course(evaluation_points(samples), measure, checkpoint, bar)
    trainer = Trainer(
        max_epochs=-1, limit_val_batches=0, num_sanity_val_steps=0, callbacks=[course], devices=1, logger=False,
        enable_checkpointing=False, enable_model_summary=False, enable_progress_bar=False,
    )  # fmt: skip
    lit = make()
    trainer.fit(lit, data, ckpt_path=checkpoint if checkpoint.exists() else None, weights_only=True)
    if not name.endswith("pilot"):  # of which nobody needs the weights
        torch.save(lit.vae.state_dict(), folder / f"{name}.pt")
    write_atomically(finished, json.dumps(course.rows).encode())
    return course.rows


def train_paper(
    model: Mapping[str, Any],
    data: ImageDataModule,
    samples: int,
    measure: Measure,
    folder: Path,
    bar: tqdm,
    num_images: int | None = None,
) -> tuple[dict[str, Any], VAE]:
    """The training of a model with the step size whose first updates come furthest on the training set.

    Args:
        model: arguments of `make_training`.
        measure: of its values `train` is what a step size has reached.
        num_images: of the training set, if it is not the whole.

    Returns:
        The model's arguments, `step_size` and `curve`; and the trained model.
    """
    name = "_".join(map(str, (*model.values(), *([num_images] if num_images else []))))

    def run(step_size: float, samples: int, *kind: str) -> list[Row]:
        make = partial(make_training, data, learning_rate=step_size, **model)
        return train("_".join(map(str, (name, step_size, *kind))), make, data, samples, measure, folder, bar)

    def reached(step_size: float) -> float:
        try:
            return run(step_size, PILOT_SAMPLES, "pilot")[-1]["train"]
        except NotFinite:
            return -inf

    best = max(STEP_SIZES, key=reached)
    curve = run(best, samples)
    vae = make_training(data, **model).vae
    vae.load_state_dict(torch.load(folder / f"{name}_{best}.pt", weights_only=True))
    return {**model, "step_size": best, "curve": curve}, vae


def train_elbos(models: Sequence[Mapping[str, Any]], samples: int, output_dir: str) -> list[tuple[dict[str, Any], VAE]]:
    """`train_paper` of AEVB with seed 0, for each data set and number of latent variables, under one progress bar."""
    folder = Path(output_dir) / "trainings"
    folder.mkdir(parents=True, exist_ok=True)
    trained = []
    with tqdm(total=len(models) * (PILOT_TOTAL + samples), unit=" images", unit_scale=True, mininterval=1) as bar:
        for model in models:
            data = DATASETS[model["dataset"]](seed=0)
            measure = partial(mean_bounds, images=evaluation_images(data))
            full = {**model, "objective": "elbo", "seed": 0}
            trained.append(train_paper(full, data, samples, measure, folder, bar))
    return trained


def evaluation_images(data: ImageDataModule) -> dict[str, Tensor]:
    """The test images, and as many of those that are trained on."""
    test = data.images("test")
    return {"train": data.images("train", len(test)), "test": test}


@torch.no_grad()
def mean_bounds(vae: VAE, images: Mapping[str, Tensor]) -> Row:
    """The ELBO of each split, a mean over its images, nats."""

    def bound(x: Tensor) -> float:
        index = torch.arange(len(x))
        parts = zip(x.split(IMAGES_AT_ONCE), index.split(IMAGES_AT_ONCE), strict=True)
        device = vae.prior_loc.device
        return torch.cat([evaluate_bound(vae, part.to(device), some)["elbo"] for part, some in parts]).mean().item()

    return {split: bound(x) for split, x in images.items()}


def make_training(
    data: ImageDataModule, dataset: str, latent_dim: int, objective: str, seed: int, **options: Any
) -> LitVAE | MonteCarloEM:
    """A model of the paper and its training, at the beginning."""
    torch.manual_seed(seed)
    settings = {"hidden_dims": HIDDEN[dataset], "likelihood": LIKELIHOOD[dataset], **PAPER, **options}
    settings |= {"image_shape": data.image_shape, "latent_dim": latent_dim, "seed": seed}
    if objective == "mcem":
        return MonteCarloEM(len(data.splits["train"]), **settings)
    return LitVAE(objective, **settings)


def kept(path: Path, compute: Callable[[], Any]) -> Any:
    """What a file holds, or, where it is missing, what is computed and then kept in it."""
    if not path.exists():
        write_atomically(path, json.dumps(compute()).encode())
    return json.loads(path.read_text())


def draw_curve(axes: Axes, curves: Sequence[list[Row]], value: str, **line: Any) -> None:
    """A value against the samples: of several seeds the mean, and the range as a band."""
    points = [*zip(*curves, strict=False)]  # a curve from a longer training need not have the last one
    samples = [rows[0]["samples"] for rows in points]
    values = np.array([[row[value] for row in rows] for rows in points])  # [points, seeds]
    axes.plot(samples, values.mean(1), marker=".", markersize=4, **line)
    axes.fill_between(samples, values.min(1), values.max(1), color=line["color"], alpha=0.2, linewidth=0)


def save(draw: Callable[[], Figure], numbers: dict[str, Any], path: Path) -> None:
    """The figure and its numbers: PATH.png and PATH.json."""
    write_atomically(path.with_suffix(".json"), (json.dumps(numbers, indent=1) + "\n").encode())
    content = BytesIO()
    with style.context(STYLE):
        draw().savefig(content, format="png")
    write_atomically(path.with_suffix(".png"), content.getvalue())
