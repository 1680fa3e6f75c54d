"""What training costs: an epoch of `train.py`, as a user runs it, beside a bare loop and beside the usual pipeline.

MNIST, 784-500-20, float32. The things compared take turns, epoch by epoch; validation is not counted.
"""

import os
import sys
import tempfile
from pathlib import Path

from bare import bare_epoch, products_epoch
from pairs import PROJECT, Training, report, seconds

sys.path.insert(0, str(PROJECT))

from datamodules import MNIST  # noqa: E402

PAIRS = 7


def main() -> None:
    """Measure and print."""
    os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)  # Lightning's, which would slow the bare loop down
    data = MNIST()
    data.prepare_data()
    data.setup()
    images = data.splits["train"].images.flatten(1)
    for batch_size in (100, 1_000):
        with tempfile.TemporaryDirectory() as folder:
            options = ["--model.latent_dim", "20", "--data.batch_size", batch_size, "--trainer.max_epochs", 100]
            command = [
                PROJECT / "train.py",
                *options,
                "--trainer.callbacks+",
                "pairs.Turns",
                "--data.data_dir",
                data.data_dir.resolve(),
            ]
            ours = Training([str(part) for part in command], Path(folder))

            bare, products = bare_epoch(images, batch_size), products_epoch(len(images), batch_size)
            for warm in (bare, products, ours.epoch):
                warm()
            turns = [(ours.epoch(), seconds(bare), seconds(products)) for _ in range(PAIRS)]
            report(f"training, batch {batch_size:,}: train.py / bare loop", [a / b for a, b, _ in turns])
            report(f"training, batch {batch_size:,}: bare loop / its matrix products", [b / c for _, b, c in turns])
            ours.end()


if __name__ == "__main__":
    main()
