"""What memory it takes: the peak of training, and of evaluation with few importance samples and with many."""

import os
import subprocess
import sys
import tempfile

from pairs import PROJECT, report


def peak(folder: str, *command: str) -> float:
    """The most memory that a command held, in MB."""
    process = subprocess.Popen([sys.executable, *command], cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(command)} failed")
    return usage.ru_maxrss / 1024


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        imports = peak(folder, "-c", "import torch, pytorch_lightning, torchvision")
        data = ["--data.val_size", "1000", "--trainer.max_epochs", "2", "--model.latent_dim", "20"]
        training = peak(folder, str(PROJECT / "train.py"), *data)
        test = [str(PROJECT / "test.py"), "--split", "val", "--num_samples"]
        few, many = peak(folder, *test, "100"), peak(folder, *test, "5000")
    print(f"peak memory: the imports {imports:,.0f} MB, train.py on MNIST {training:,.0f} MB,")
    print(f"test.py --num_samples 100 {few:,.0f} MB, --num_samples 5000 {many:,.0f} MB")
    report("memory: test.py with 5,000 samples / with 100", [many / few])


if __name__ == "__main__":
    main()
