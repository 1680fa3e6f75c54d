"""The drawings of how-it-works.md, from pretrained/mnist_2d.ckpt and MNIST: python3 docs/drawings.py."""

import sys
from pathlib import Path

import matplotlib.style
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import Tensor

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))

from datamodules import DATASETS  # noqa: E402
from vae import VAE, runs  # noqa: E402
from vae.figures import FIGURES  # noqa: E402
from vae.figures.drawing import COLOURS, STYLE  # noqa: E402
from vae.marginal import importance_sampling  # noqa: E402

BOXES = [
    ("image x", "784 pixels"),
    ("encoder", "a neural network"),
    ("q(z|x)", "mean μ, scale σ"),
    ("z = μ + σ ε", "ε from N(0, I)"),
    ("decoder", "a neural network"),
    ("p(x|z)", "a probability\nfor each pixel"),
]


def network() -> Figure:
    """From an image to the parameters of its distribution, left to right."""
    chart = Figure(figsize=(11, 1.9), layout="constrained")
    axes = chart.subplots()
    for place, (name, detail) in enumerate(BOXES):
        is_network = name in ("encoder", "decoder")
        colour = "#dbeafe" if is_network else "#f1f5f9"
        axes.add_patch(FancyBboxPatch((2 * place, 0), 1.4, 1, boxstyle="round,pad=0.08", fc=colour, ec="#475569"))
        axes.text(2 * place + 0.7, 0.68, name, ha="center", va="center", fontsize=13, fontweight="bold")
        axes.text(2 * place + 0.7, 0.28, detail, ha="center", va="center", fontsize=9)
        if place:
            arrow = {"arrowstyle": "->", "color": "#475569", "linewidth": 1.5}
            axes.annotate("", (2 * place - 0.1, 0.5), (2 * place - 0.5, 0.5), arrowprops=arrow)
    axes.set(xlim=(-0.2, 11.6), ylim=(-0.15, 1.15))
    axes.set_axis_off()
    return chart


def reparameterization(vae: VAE, x: Tensor) -> Figure:
    """The same noise, moved and scaled by the posteriors of three images."""
    chart = Figure(figsize=(10, 4.4), layout="constrained")
    left, right = chart.subplots(1, 2)
    eps = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    left.scatter(*eps.T, s=8, color="#64748b")
    left.set(title="noise ε from N(0, I)", xlabel="ε₁", ylabel="ε₂", aspect="equal", xlim=(-3.5, 3.5), ylim=(-3.5, 3.5))
    q_z = vae.encode(x)
    for k, colour in zip(range(len(x)), COLOURS, strict=False):
        mean, scale = q_z.mean[k], q_z.base_dist.scale[k]
        right.scatter(*(mean + scale * eps).T, s=8, color=colour, alpha=0.6)
        corner = right.inset_axes([*(mean + torch.tensor([0.5, -0.4])).tolist(), 1, 1], transform=right.transData)
        corner.imshow(x[k, 0], cmap="gray_r")
        corner.set_axis_off()
    title = "z = μ(x) + σ(x) ε for three test images"
    right.set(title=title, xlabel="z₁", ylabel="z₂", aspect="equal", xlim=(-4, 4), ylim=(-4, 4))
    return chart


def samples_and_bound(vae: VAE, x: Tensor) -> Figure:
    """The importance-weighted bound rises with the number of samples, from the ELBO to log p(x)."""
    chart = Figure(figsize=(7, 3.8), layout="constrained")
    axes = chart.subplots()
    counts = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000]
    found = importance_sampling(vae, x, torch.arange(len(x)), counts).details
    bounds = [found[f"bound_{count}"].mean().item() for count in counts]
    axes.plot(counts, bounds, "o-", label=f"bound with K samples, mean of {len(x)} test images")
    axes.axhline(vae.elbo(x, num_samples=100).elbo.mean().item(), ls="--", color="#dc2626", label="ELBO")
    axes.set(xscale="log", xlabel="samples K", ylabel="nats per image")
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.legend(loc="center right", bbox_to_anchor=(1, 0.25))
    return chart


@matplotlib.style.context(STYLE)
@torch.no_grad()
def main() -> None:
    """Write them all."""
    torch.manual_seed(0)
    lit, data = runs.load_run(DOCS.parent / "pretrained" / "mnist_2d.ckpt", DATASETS)
    x = data.images("test", 500)
    charts = {
        "network": network(),
        "reparameterization": reparameterization(lit.vae, x[[0, 1, 2]]),
        "gap": FIGURES["posterior"](lit.vae, x[[0, 2, 4]]),
        "bounds": samples_and_bound(lit.vae, x),
    }
    (DOCS / "drawings").mkdir(exist_ok=True)
    for name, chart in charts.items():
        chart.savefig(DOCS / "drawings" / f"{name}.png", dpi=110)


if __name__ == "__main__":
    main()
