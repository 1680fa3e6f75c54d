"""What training costs: the epochs of `train.py`, as a user runs it, relative to a bare loop and to the usual pipeline.

MNIST, 784-500-20. The programs that are compared take turns, epoch by epoch; validation is not counted.
"""

import os
import sys
import tempfile
from pathlib import Path
from statistics import median

from bare import bare_epoch, products_epoch
from pairs import PROJECT, Training, report, seconds

sys.path.insert(0, str(PROJECT))

from datamodules import MNIST  # noqa: E402

PAIRS = 9


def main() -> None:
    """Measure and print."""
    os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)  # Lightning's, which would slow the bare loop down
    data = MNIST()
    data.prepare_data()
    data.setup()
    images = data.splits["train"].images.flatten(1)
    os.environ["VAE_DATA_DIR"] = str(data.data_dir.resolve())
    with tempfile.TemporaryDirectory() as folder:

        def ours(*options: object) -> Training:
            settings = ["--model.latent_dim", 20, "--trainer.max_epochs", 100, "--trainer.callbacks+", "pairs.Turns"]
            return Training([str(part) for part in (PROJECT / "train.py", *settings, *options)], Path(folder))

        def measure(contestants: dict[str, Training], batch_size: int) -> dict[str, list[float]]:
            """The seconds of each one's epochs, in turn with those of the bare loop and its products."""
            functions = {"bare": bare_epoch(images, batch_size), "products": products_epoch(len(images), batch_size)}
            turns = {name: lambda function=function: seconds(function) for name, function in functions.items()}
            turns |= {name: training.epoch for name, training in contestants.items()}
            for warm in turns.values():
                warm()
            taken = {name: [] for name in turns}
            for _ in range(PAIRS):
                for name, turn in turns.items():
                    taken[name].append(turn())
            for training in contestants.values():
                training.end()
            return taken

        def compare(name: str, taken: dict[str, list[float]], one: str, other: str) -> None:
            report(f"training: {name}", [a / b for a, b in zip(taken[one], taken[other], strict=True)])

        usual = Training([str(PROJECT / "benchmarks" / "usual.py"), "100"], Path(folder))
        compiled = ours("--model.compile", "true")
        small = measure({"ours": ours(), "compiled": compiled, "usual": usual}, 100)
        compare("train.py / bare loop, batch 100", small, "ours", "bare")
        compare("train.py --model.compile true / bare loop, batch 100", small, "compiled", "bare")
        compare("bare loop / its matrix products, batch 100", small, "bare", "products")
        compare("the usual pipeline / train.py, batch 100", small, "usual", "ours")
        halves = ours("--data.batch_size", 1_000, "--trainer.precision", "bf16-mixed")
        compiled = ours("--data.batch_size", 1_000, "--model.compile", "true")
        large = measure({"ours": ours("--data.batch_size", 1_000), "bf16": halves, "compiled": compiled}, 1_000)
        compare("train.py / bare loop, batch 1,000", large, "ours", "bare")
        compare("train.py --model.compile true / bare loop, batch 1,000", large, "compiled", "bare")
        compare("bare loop / its matrix products, batch 1,000", large, "bare", "products")
        compare("bf16-mixed / float32, batch 1,000", large, "bf16", "ours")
        print(f"images per second: {50_000 / median(small['ours']):,.0f} at batch 100, ", end="")
        print(f"{50_000 / median(large['ours']):,.0f} at 1,000")


if __name__ == "__main__":
    main()
