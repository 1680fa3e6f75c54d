"""Make a ready-made model of a run: python3 pretrained/export.py RUN NAME writes pretrained/NAME.ckpt.

It keeps the weights, the hyper-parameters, the epoch and the versions: no optimiser state, no paths.
"""

import sys
from pathlib import Path

import torch

PRETRAINED = Path(__file__).parent
sys.path.insert(0, str(PRETRAINED.parent))

from vae import runs  # noqa: E402

KEPT = ("state_dict", "hyper_parameters", "datamodule_hyper_parameters", "epoch", "versions")


def export(checkpoint_path: Path, path: Path) -> None:
    """Write what is kept of a checkpoint."""
    checkpoint = runs.read_checkpoint(checkpoint_path)
    kept = {name: checkpoint[name] for name in KEPT}
    kept["datamodule_hyper_parameters"] = {**kept["datamodule_hyper_parameters"], "data_dir": None}
    kept["state_dict"] = {name: value.clone() for name, value in kept["state_dict"].items()}
    torch.save(kept, path)


if __name__ == "__main__":
    run, name = sys.argv[1:]
    export(runs.find_checkpoint(run), PRETRAINED / f"{name}.ckpt")
