"""Make a ready-made model of a run: python3 pretrained/export.py RUN NAME [--half] writes pretrained/NAME.ckpt.

It keeps the weights, the hyper-parameters, the epoch and the versions: no optimiser state, no paths.
"""

import argparse
import sys
from pathlib import Path

import torch

PRETRAINED = Path(__file__).parent
sys.path.insert(0, str(PRETRAINED.parent))

from vae import runs  # noqa: E402

KEPT = ("state_dict", "hyper_parameters", "datamodule_hyper_parameters", "epoch", "versions")


def export(checkpoint_path: Path, path: Path, half: bool) -> None:
    """Write what is kept of a checkpoint.

    Args:
        half: whether weights are kept in half precision; they are computed with in single precision.
    """
    checkpoint = runs.read_checkpoint(checkpoint_path)
    kept = {name: checkpoint[name] for name in KEPT}
    kept["datamodule_hyper_parameters"] = {**kept["datamodule_hyper_parameters"], "data_dir": None}
    kept["state_dict"] = {name: value.half() if half else value for name, value in kept["state_dict"].items()}
    torch.save(kept, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make a ready-made model of a run.")
    parser.add_argument("run", help="a run's name or folder, or a checkpoint")
    parser.add_argument("name", help="of the file in pretrained/")
    parser.add_argument("--half", action="store_true", help="keep the weights in half precision")
    arguments = parser.parse_args()
    export(runs.find_checkpoint(arguments.run), PRETRAINED / f"{arguments.name}.ckpt", arguments.half)
