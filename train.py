"""Train a variational auto-encoder; python3 train.py --help tells how."""

import time
from pathlib import Path

from datamodules import DATASETS, DataError, ImageDataModule
from vae import runs
from vae.callbacks import best_elbo
from vae.cli import TrainCLI, user_facing_errors


def main() -> None:
    """Train what the command line says, and report."""
    cli = TrainCLI(ImageDataModule, DATASETS)
    start = time.perf_counter()
    cli.fit()
    minutes, seconds = divmod(round(time.perf_counter() - start), 60)
    best = best_elbo(cli.trainer)
    print(f"Run       {cli.trainer.log_dir or 'none, it was but a try'}")
    print(f"Trained   {cli.trainer.current_epoch} epochs, this time in {minutes} min {seconds} s")
    if stopped := cli.unfinished_epoch():
        print(f"Stopped   {stopped}")
    if best is not None:
        measure = cli.model.vae.likelihood.log_prob_kind(cli.datamodule.binary)
        print(f"Best      validation ELBO {best:.2f} nats per image, of a {measure}")
    if cli.trainer.log_dir and runs.checkpoints_of(Path(cli.trainer.log_dir)):
        print("Next      python3 test.py")
        print("          python3 visualizations.py")
        print("          tensorboard --logdir lightning_logs")


if __name__ == "__main__":
    with user_facing_errors(DataError):
        main()
