"""The variational auto-encoder of "Auto-Encoding Variational Bayes" (Kingma & Welling, arXiv 1312.6114)."""

from collections.abc import Mapping
from typing import Any

from vae import runs
from vae.lit_vae import LitVAE
from vae.model import VAE, register_likelihood, register_network
from vae.objectives import register_objective

__all__ = ["VAE", "LitVAE", "load_run", "register_likelihood", "register_network", "register_objective"]


def load_run(run: str, datasets: Mapping[str, type]) -> tuple[VAE, Any]:
    """The trained model of a run, and its data module.

    Args:
        run: the name or the folder of a run, whose best epoch is taken; or a checkpoint.
        datasets: the data modules by name: `datamodules.DATASETS`.

    Raises:
        RunError: there is none, or the checkpoint is damaged or not one of this project's.
    """
    lit, data = runs.load_run(runs.find_checkpoint(run), datasets)
    return lit.vae, data
