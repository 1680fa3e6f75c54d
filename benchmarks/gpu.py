"""Training on a GPU: images per second of `train.py`, of a bare loop and of the usual pipeline; kernels' share of time.

Writes benchmarks/results_gpu.json. Without a GPU it runs on the CPU, which shows only that it works.
"""

import os
import sys
import tempfile
from pathlib import Path
from statistics import median

import torch
from bare import bare_epoch
from pairs import PROJECT, Training, report, seconds
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(PROJECT))

from pytorch_lightning import Callback, Trainer  # noqa: E402

from datamodules import MNIST  # noqa: E402
from vae import LitVAE  # noqa: E402

EPOCHS, NUM_IMAGES = 5, 50_000
CUDA = torch.cuda.is_available()
RESULTS = PROJECT / "benchmarks" / "results_gpu.json"
VARIANTS = {
    "float32": {},
    "TF32": {"environment": {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}},
    "bf16-mixed": {"options": ["--trainer.precision", "bf16-mixed"]},
    "16-mixed": {"options": ["--trainer.precision", "16-mixed"]},
    "compiled": {"options": ["--model.compile", "true"]},
    "compiled, bf16-mixed": {"options": ["--model.compile", "true", "--trainer.precision", "bf16-mixed"]},
}


class KernelShare(Callback):
    """Profiles the second epoch: the share of its time in which kernels run."""

    def on_train_epoch_start(self, trainer: Trainer, lit: LitVAE) -> None:
        if trainer.current_epoch == 1:
            self.profiler = profile(activities=[ProfilerActivity.CUDA if CUDA else ProfilerActivity.CPU])
            self.profiler.__enter__()

    def on_train_epoch_end(self, trainer: Trainer, lit: LitVAE) -> None:
        if trainer.current_epoch == 1:
            self.profiler.__exit__(None, None, None)
            events = self.profiler.events()
            start, end = min(e.time_range.start for e in events), max(e.time_range.end for e in events)
            busy = sum(e.device_time_total if CUDA else e.self_cpu_time_total for e in events)
            self.share = busy / (end - start)


def main() -> None:
    """Measure and print."""
    data = MNIST()
    data.prepare_data()
    data.setup()
    images = data.splits["train"].images.flatten(1).to("cuda" if CUDA else "cpu")
    os.environ["VAE_DATA_DIR"] = str(data.data_dir.resolve())
    with tempfile.TemporaryDirectory() as folder:

        def rate(command: list[object]) -> list[float]:
            training = Training([str(part) for part in command], Path(folder))
            training.epoch()
            rates = [NUM_IMAGES / training.epoch() for _ in range(EPOCHS)]
            training.end()
            return rates

        for batch_size in (100, 1_000):
            epoch = bare_epoch(images, batch_size)
            epoch()
            bare = [NUM_IMAGES / seconds(epoch) for _ in range(EPOCHS)]
            report(f"bare loop, images per second, batch {batch_size}", bare, RESULTS)
            usual = rate([PROJECT / "benchmarks" / "usual.py", batch_size])
            report(f"usual pipeline, images per second, batch {batch_size}", usual, RESULTS)
            for name, variant in VARIANTS.items():
                os.environ.update(variant.get("environment", {}))
                options = ["--model.latent_dim", 20, "--trainer.max_epochs", 100, "--data.batch_size", batch_size]
                options += ["--trainer.callbacks+", "pairs.Turns", *variant.get("options", [])]
                rates = rate([PROJECT / "train.py", *options])
                for variable in variant.get("environment", {}):
                    del os.environ[variable]
                report(f"train.py, {name}, images per second, batch {batch_size}", rates, RESULTS)
                print(f"{'':<20}{median(rates) / median(bare):.2f} times the bare loop")
    share = KernelShare()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=2, limit_val_batches=0, callbacks=[share], **quiet)
    trainer.fit(LitVAE(image_shape=(1, 28, 28), latent_dim=20), data)
    report("share of time in kernels, batch 100", [share.share], RESULTS)


if __name__ == "__main__":
    main()
