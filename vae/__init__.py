"""The variational auto-encoder of "Auto-Encoding Variational Bayes" (Kingma & Welling, arXiv 1312.6114).

The names are imported when they are asked for: `VAE` needs torch alone, `LitVAE` and `load_run` need Lightning.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vae.lit_vae import LitVAE
    from vae.model import VAE, register_likelihood, register_network
    from vae.objectives import register_objective

__all__ = ["VAE", "LitVAE", "load_run", "register_likelihood", "register_network", "register_objective"]

HOMES = {
    "LitVAE": "vae.lit_vae",
    "VAE": "vae.model",
    "register_likelihood": "vae.model",
    "register_network": "vae.model",
    "register_objective": "vae.objectives",
}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'vae' has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)


def load_run(run: str, datasets: Mapping[str, type]) -> tuple["VAE", Any]:
    """The trained model of a run, and its data module.

    Args:
        run: the name or the folder of a run, whose best epoch is taken; or a checkpoint.
        datasets: the data modules by name: `datamodules.DATASETS`.

    Raises:
        RunError: there is none, or the checkpoint is damaged or not one of this project's.
    """
    from vae import runs

    lit, data = runs.load_run(runs.find_checkpoint(run), datasets)
    return lit.vae, data
