"""The paper's Figure 3: the marginal likelihood against the samples seen, for AEVB, wake-sleep and Monte Carlo EM.

What is run: figure_3.md.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vae.start import starting  # noqa: E402

with starting():
    import torch
    from experiments import ALGORITHMS, COLOUR, DATASETS, PILOT_TOTAL, Row, draw_curve, kept, save, train_paper
    from jsonargparse.typing import PositiveInt
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter
    from torch import Tensor
    from tqdm import tqdm

    from datamodules import DataError
    from vae import VAE, marginal
    from vae.cli import run_command, user_facing_errors

OBJECTIVES = {1_000: ("elbo", "wake_sleep", "mcem"), 50_000: ("elbo", "wake_sleep")}  # by training images
LATENT_DIM, HIDDEN = 3, 100
LIMITS = (-160, -100)  # of the paper's axis, in nats
TOLERANCE = 0.1  # of the quadrature, in nats


def figure_3(
    samples: PositiveInt = 10_000_000,
    seeds: PositiveInt = 3,
    num_images: PositiveInt = 1_000,
    num_integrated: PositiveInt = 100,
    output_dir: str = "paper_results",
) -> None:
    """Draw Figure 3 of the paper; what was interrupted goes on.

    Args:
        samples: Training samples that each model sees; the paper has 60,000,000.
        seeds: How many trainings of each model there are, with the seeds 0, 1, ...
        num_images: Training and test images whose log p(x) is estimated.
        num_integrated: The first of the test images, whose log p(x) at the end is also found by quadrature.
        output_dir: The folder of figure_3.png, figure_3.json and what the trainings keep.
    """
    folder = Path(output_dir) / "trainings"
    folder.mkdir(parents=True, exist_ok=True)
    total = seeds * sum(map(len, OBJECTIVES.values())) * (PILOT_TOTAL + samples)
    runs = []
    with tqdm(total=total, unit=" images", unit_scale=True, mininterval=1) as bar:
        for seed in range(seeds):
            for num_training, objectives in OBJECTIVES.items():
                data = DATASETS["MNIST"](seed=seed, binarize="fixed")
                images = {split: data.images(split, num_images) for split in ("train", "test")}
                data.splits["train"] = data.splits["train"].subset(torch.arange(num_training))
                for objective in objectives:
                    model = {"dataset": "MNIST", "latent_dim": LATENT_DIM, "objective": objective, "seed": seed}
                    model |= {"hidden_dims": HIDDEN}
                    measure = partial(estimates, images=images)
                    run, vae = train_paper(model, data, samples, measure, folder, bar, num_training)
                    name = f"judged_{objective}_{seed}_{num_training}_{samples}_{num_integrated}.json"
                    found = kept(folder / name, partial(judged, vae, images["test"][:num_integrated]))
                    runs.append({**run, "num_training": num_training, "judged": found})
    numbers = {"samples": samples, "seeds": seeds, "num_images": num_images, "num_integrated": num_integrated}
    save(partial(draw, runs), {**numbers, "runs": runs}, Path(output_dir) / "figure_3")


def estimates(vae: VAE, images: dict[str, Tensor]) -> Row:
    """The mean log p(x) of each split by the estimator of Appendix D."""
    return {
        split: marginal.reciprocal_importance_sampling(vae, x, torch.arange(len(x))).log_marginal.mean().item()
        for split, x in images.items()
    }


def judged(vae: VAE, x: Tensor) -> dict[str, Any]:
    """log p(x) of each image by the estimator of Appendix D and by quadrature, and how far off the latter may be."""
    by_chain = marginal.reciprocal_importance_sampling(vae, x, torch.arange(len(x))).log_marginal
    integral = marginal.quadrature(vae, x, tolerance=TOLERANCE)
    return {
        "appendix_d": by_chain.tolist(),
        "quadrature": integral.log_marginal.tolist(),
        "quadrature_error": integral.bias.mean().item(),
    }


def draw(runs: Sequence[dict[str, Any]]) -> Figure:
    """A panel for each number of training images."""
    chart = Figure(figsize=(13, 5.5), layout="constrained")
    panels = chart.subplots(1, len(OBJECTIVES), sharey=True, squeeze=False)[0]
    for axes, (num_training, objectives) in zip(panels, OBJECTIVES.items(), strict=True):
        for objective in objectives:
            shown = [run for run in runs if (run["num_training"], run["objective"]) == (num_training, objective)]
            for split, line in (("train", "--"), ("test", "-")):
                label = f"{ALGORITHMS[objective]} ({split})"
                curves = [run["curve"] for run in shown]
                draw_curve(axes, curves, split, linestyle=line, color=COLOUR[objective], label=label)
        axes.set(title=f"{num_training:,} training images", xscale="log", xlabel="training samples")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    low = min([LIMITS[0], *(row["test"] for run in runs for row in run["curve"][1:])])
    panels[0].set(ylim=(low, LIMITS[1]), ylabel="log p(x) by Appendix D, nats per image")
    chart.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return chart


if __name__ == "__main__":
    with user_facing_errors(DataError):
        run_command(figure_3)
