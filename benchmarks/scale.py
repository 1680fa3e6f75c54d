"""What an image costs in training, among ten thousand, a hundred thousand and a million made-up ones."""

import sys
from pathlib import Path

import torch
from pairs import PROJECT, report
from pytorch_lightning import Callback, Trainer

sys.path.insert(0, str(PROJECT))

from datamodules import ImageDataModule, ImageDataset  # noqa: E402
from datamodules.memory import allocate_images  # noqa: E402
from vae import LitVAE  # noqa: E402
from vae.callbacks import Throughput  # noqa: E402

PAIRS = 3


class MadeUp(ImageDataModule):
    """Noise, of MNIST's shape."""

    name = "made up"
    image_shape = (1, 28, 28)

    def __init__(self, num_images: int):
        super().__init__(batch_size=100)
        self.num_images = num_images

    def load(self) -> dict[str, ImageDataset]:
        images = allocate_images((self.num_images, *self.image_shape), Path())
        for some in images.split(10_000):
            some.random_(256)
        return {"train": ImageDataset(images), "val": ImageDataset(images[:0]), "test": ImageDataset(images[:0])}


class Rate(Callback):
    """Keeps what the epochs' speeds were."""

    def __init__(self):
        self.rates = []

    def on_train_epoch_end(self, trainer: Trainer, lit: LitVAE) -> None:
        self.rates.append(float(trainer.callback_metrics["images_per_second"]))


def main() -> None:
    """Measure and print."""
    torch.manual_seed(0)
    sets = {number: MadeUp(number) for number in (10_000, 100_000, 1_000_000)}

    def rate(number: int) -> float:
        speed, quiet = Rate(), {"enable_progress_bar": False, "enable_model_summary": False}
        lit = LitVAE(image_shape=(1, 28, 28), latent_dim=20)
        trainer = Trainer(
            max_epochs=1, logger=False, enable_checkpointing=False, callbacks=[Throughput(), speed], **quiet
        )
        trainer.fit(lit, sets[number])
        return speed.rates[0]

    rate(10_000)
    for number in (100_000, 1_000_000):
        report(
            f"scale: cost of an image among {number:,} / 10,000", [rate(10_000) / rate(number) for _ in range(PAIRS)]
        )


if __name__ == "__main__":
    main()
