"""Test a trained model; python3 test.py --help tells how."""

import json
from typing import Literal

from jsonargparse.typing import PositiveInt
from rich.console import Console
from rich.table import Table

from datamodules import DATASETS, DataError
from vae import runs
from vae.cli import command, plain_speech, quiet_trainer

COUNTS = ("test/num_images", "test/active_units")
UNITS = {"split": "", "bits_per_dim": "bits", "active_units": "latent variables", "num_images": "", "num_samples": ""}


def test(
    ckpt_path: str | None = None,
    num_samples: PositiveInt = 100,
    split: Literal["test", "val"] = "test",
    data_dir: str | None = None,
    accelerator: str = "auto",
    devices: PositiveInt = 1,
) -> None:
    """The bound and an importance-sampled log p(x) of held-out pictures: a table, and test_metrics.json in the run.

    Args:
        ckpt_path: The checkpoint; default: the newest run's best.ckpt.
        num_samples: Importance samples for each picture.
        split: The pictures to test on.
        data_dir: Where the data is now, if it is not where it was.
        accelerator: What to run on: auto, cpu, gpu, ...
        devices: On how many of them.
    """
    ckpt_path = runs.find_checkpoint(ckpt_path)
    lit, data = runs.load(ckpt_path, DATASETS, data_dir)
    data.test_split, lit.importance_samples = split, num_samples
    trainer = quiet_trainer(accelerator=accelerator, devices=devices)
    (found,) = trainer.test(lit, data, verbose=False)
    metrics = {"split": split, "num_samples": num_samples}
    for name, value in found.items():
        metrics[name.removeprefix("test/")] = int(value) if name in COUNTS else value
    path = runs.run_of(ckpt_path) / "test_metrics.json"
    runs.write(path, json.dumps(metrics, indent=2).encode())

    table = Table("", data.name, "", title=str(ckpt_path))
    for name, value in metrics.items():
        table.add_row(
            name, f"{value:.4f}" if isinstance(value, float) else str(value), UNITS.get(name, "nats per picture")
        )
    Console().print(table)
    print(f"Written to {path}")


if __name__ == "__main__":
    with plain_speech(DataError):
        command(test)
