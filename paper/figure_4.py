"""The paper's Figure 4: the manifolds of Frey Face and MNIST with two latent variables. What is run: figure_4.md."""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vae.start import starting  # noqa: E402

with starting():
    from experiments import save, train_elbos
    from jsonargparse.typing import PositiveInt
    from matplotlib.figure import Figure
    from torch import Tensor

    from datamodules import DataError
    from vae.cli import run_command, user_facing_errors
    from vae.figures.latent_space import latent_steps, manifold_grid

GRID_SIZE = 20  # steps of each latent variable


def figure_4(samples: PositiveInt = 10_000_000, output_dir: str = "paper_results") -> None:
    """Draw Figure 4 of the paper; what was interrupted goes on.

    Args:
        samples: Training samples that each model sees.
        output_dir: The folder of figure_4.png, figure_4.json and what the trainings keep.
    """
    models = [{"dataset": dataset, "latent_dim": 2} for dataset in ("FreyFace", "MNIST")]
    runs, vaes = zip(*train_elbos(models, samples, output_dir), strict=True)
    steps = latent_steps("quantiles", 3.0, GRID_SIZE)
    manifolds = {run["dataset"]: manifold_grid(vae, steps) for run, vae in zip(runs, vaes, strict=True)}
    save(partial(draw, manifolds), {"samples": samples, "runs": runs}, Path(output_dir) / "figure_4")


def draw(manifolds: dict[str, Tensor]) -> Figure:
    """The manifolds side by side: images uint8 [3, H, W]."""
    chart = Figure(figsize=(16, 10), layout="constrained")
    for axes, (dataset, manifold) in zip(chart.subplots(1, len(manifolds)), manifolds.items(), strict=True):
        axes.imshow(manifold.permute(1, 2, 0))
        axes.set_axis_off()
        axes.set_title(dataset)
    return chart


if __name__ == "__main__":
    with user_facing_errors(DataError):
        run_command(figure_4)
