"""Train a variational auto-encoder; python3 train.py --help lists the options."""

import shlex
import sys
import time
from pathlib import Path

from vae.start import starting

with starting():
    from datamodules import DATASETS, DataError, DataWarning, ImageDataModule
    from vae import runs
    from vae.callbacks import best_elbo, best_epoch
    from vae.cli import TrainCLI, import_parts, user_facing_errors


def main(own_parts: list[str]) -> None:
    """Train what the command line says, and report; own_parts: the modules that were imported."""
    cli = TrainCLI(ImageDataModule, DATASETS)
    start = time.perf_counter()
    cli.fit()
    seconds = time.perf_counter() - start
    print(f"Run       {cli.trainer.log_dir or 'none: --trainer.fast_dev_run writes nothing'}")
    print(f"Trained   {cli.trained(seconds)}")
    best = best_elbo(cli.trainer)
    if stopped := cli.stopped():
        print(f"Stopped   {stopped}")
    if best is not None:
        kind = cli.model.vae.likelihood.log_prob_kind(cli.datamodule.binary)
        held = f" in epoch {epoch}" if (epoch := best_epoch(cli.trainer)) else ""
        print(f"Best      validation ELBO {best:.2f} nats per image{held}, of a {kind}")
    if cli.trainer.log_dir and runs.checkpoints_of(Path(cli.trainer.log_dir)):
        test, visualizations = (
            shlex.quote(str(Path(sys.argv[0]).with_name(f"{n}.py"))) for n in ("test", "visualizations")
        )
        imports = "".join(f" --import {shlex.quote(name)}" for name in own_parts)
        print(f"Next      python3 {test}{imports}")
        print(f"          python3 {visualizations}{imports}")
        print("          tensorboard --logdir lightning_logs")


if __name__ == "__main__":
    with user_facing_errors(DataError, DataWarning):
        main(import_parts())
