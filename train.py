"""Train a variational auto-encoder: python3 train.py --help."""

from datamodules import DATASETS, DataError, ImageDataModule
from vae.cli import TrainCLI, plain_speech

if __name__ == "__main__":
    with plain_speech(DataError):
        cli = TrainCLI(ImageDataModule, DATASETS)
        cli.fit()
