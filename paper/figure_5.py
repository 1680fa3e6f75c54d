"""The paper's Figure 5: random samples of models of MNIST with 2, 5, 10 and 20 latent variables.

What is run: figure_5.md.
"""

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
    from vae.figures import sample_grid

LATENT_DIMS = (2, 5, 10, 20)


def figure_5(samples: PositiveInt = 10_000_000, output_dir: str = "paper_results") -> None:
    """Draw Figure 5 of the paper; what was interrupted goes on.

    Args:
        samples: Training samples that each model sees.
        output_dir: The folder of figure_5.png, figure_5.json and what the trainings keep.
    """
    models = [{"dataset": "MNIST", "latent_dim": latent_dim} for latent_dim in LATENT_DIMS]
    runs, vaes = zip(*train_elbos(models, samples, output_dir), strict=True)
    grids = {vae.latent_dim: sample_grid(vae, num_samples=100, grid_width=10) for vae in vaes}
    save(partial(draw, grids), {"samples": samples, "runs": runs}, Path(output_dir) / "figure_5")


def draw(grids: dict[int, Tensor]) -> Figure:
    """The samples side by side: images uint8 [3, H, W]."""
    chart = Figure(figsize=(5 * len(grids), 5.5), layout="constrained")
    for axes, (latent_dim, grid) in zip(chart.subplots(1, len(grids)), grids.items(), strict=True):
        axes.imshow(grid.permute(1, 2, 0))
        axes.set_axis_off()
        axes.set_title(f"{latent_dim} latent variables")
    return chart


if __name__ == "__main__":
    with user_facing_errors(DataError):
        run_command(figure_5)
