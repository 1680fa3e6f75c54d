"""The paper's Figure 2: the bound on training and test images against the samples seen, AEVB and wake-sleep.

What is run: paper/figure_2.md.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vae.start import starting  # noqa: E402

with starting():
    from experiments import (
        ALGORITHMS,
        COLOUR,
        DATASETS,
        PILOT_TOTAL,
        draw_curve,
        evaluation_images,
        mean_bounds,
        save,
        train_paper,
    )
    from jsonargparse.typing import PositiveInt
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter
    from tqdm import tqdm

    from datamodules import DataError
    from vae.cli import run_command, user_facing_errors

LATENT_DIMS = {"MNIST": (3, 5, 10, 20, 200), "FreyFace": (2, 5, 10, 20)}
LIMITS = {"MNIST": (-150, -100), "FreyFace": (0, 1_600)}  # of the paper's axes, in nats
OBJECTIVES = ("elbo", "wake_sleep")


def figure_2(samples: PositiveInt = 10_000_000, seeds: PositiveInt = 3, output_dir: str = "paper_results") -> None:
    """Draw Figure 2 of the paper; what was interrupted goes on.

    Args:
        samples: Training samples that each model sees; the paper has 100,000,000.
        seeds: How many trainings of each model there are, with the seeds 0, 1, ...
        output_dir: The folder of figure_2.png, figure_2.json and what the trainings keep.
    """
    folder = Path(output_dir) / "trainings"
    folder.mkdir(parents=True, exist_ok=True)
    num_models = len(OBJECTIVES) * sum(map(len, LATENT_DIMS.values()))
    total = seeds * num_models * (PILOT_TOTAL + samples)
    runs = []
    with tqdm(total=total, unit=" images", unit_scale=True, mininterval=1) as bar:
        for seed in range(seeds):
            for dataset, latent_dims in LATENT_DIMS.items():
                data = DATASETS[dataset](seed=seed)
                measure = partial(mean_bounds, images=evaluation_images(data))
                for latent_dim in latent_dims:
                    for objective in OBJECTIVES:
                        model = {"dataset": dataset, "latent_dim": latent_dim, "objective": objective, "seed": seed}
                        runs.append(train_paper(model, data, samples, measure, folder, bar)[0])
    save(partial(draw, runs), {"samples": samples, "seeds": seeds, "runs": runs}, Path(output_dir) / "figure_2")


def draw(runs: Sequence[dict[str, Any]]) -> Figure:
    """Both rows of the figure: a panel for each number of latent variables."""
    chart = Figure(figsize=(18, 8), layout="constrained")
    rows = chart.subfigures(len(LATENT_DIMS), squeeze=False)[:, 0]
    for row, (dataset, latent_dims) in zip(rows, LATENT_DIMS.items(), strict=True):
        panels = row.subplots(1, len(latent_dims), sharey=True, squeeze=False)[0]
        shown = [run for run in runs if run["dataset"] == dataset]
        for axes, latent_dim in zip(panels, latent_dims, strict=True):
            for objective in OBJECTIVES:
                for split, line in (("train", "--"), ("test", "-")):
                    of = (latent_dim, objective)
                    curves = [run["curve"] for run in shown if (run["latent_dim"], run["objective"]) == of]
                    label = f"{ALGORITHMS[objective]} ({split})"
                    draw_curve(axes, curves, split, linestyle=line, color=COLOUR[objective], label=label)
            axes.set(title=f"{dataset}, {latent_dim} latent variables", xscale="log", xlim=(1e4, 1e8))
            axes.set_xlabel("training samples")
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        low = min([LIMITS[dataset][0], *(run["curve"][-1]["test"] for run in shown)])
        panels[0].set(ylim=(low, LIMITS[dataset][1]), ylabel="ELBO, nats per image")
    chart.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return chart


if __name__ == "__main__":
    with user_facing_errors(DataError):
        run_command(figure_2)
