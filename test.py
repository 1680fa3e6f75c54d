"""Test a trained model; python3 test.py --help lists the options."""

from pathlib import Path
from typing import Literal

from vae.start import starting

with starting():
    from jsonargparse.typing import PositiveInt

    from datamodules import DATASETS, DataError, DataWarning
    from vae import cli, runs


def test(
    ckpt_path: str | None = None,
    run_name: str | None = None,
    estimator: Literal["auto", "quadrature", "ais", "importance"] = "auto",
    num_samples: tuple[int, ...] | None = None,
    num_images: PositiveInt | None = None,
    split: Literal["test", "val"] = "test",
    data_dir: str | None = None,
    accelerator: str = "auto",
    devices: PositiveInt = 1,
    save: str | None = None,
    probe: bool = False,
    info: bool = False,
) -> None:
    """The bound and log p(x) of held-out images: a table, and test_metrics.json in the run.

    Args:
        ckpt_path: A checkpoint, the folder or the name of a run, or last; default: best.ckpt of the newest run.
        run_name: The name of a run.
        estimator: Of log p(x); auto is quadrature where that is fast and no --num_samples are given, else importance.
        num_images: Test on so many images of the split, chosen at random, the same ones each time.
        split: The images to test on.
        data_dir: Where the data is now, if it is not where it was.
        accelerator: What to run on: auto, cpu, gpu, ...
        devices: On how many of them.
        save: A file for the posterior and the bounds of each image, FILE.npz.
    """
    checkpoint = runs.find_checkpoint(ckpt_path, run_name)
    if info:
        print("\n".join(f"{name:<28} {value}" for name, value in runs.describe(checkpoint, DATASETS).items()))
        return
    lit, data = runs.load_run(checkpoint, DATASETS, data_dir)
    cli.check_request(data, split, save, probe)
    data.test_split, chosen = split, cli.choose_estimator(lit, data, estimator, num_samples, num_images)
    (found,) = cli.evaluation_trainer(accelerator=accelerator, devices=devices).test(lit, data, verbose=False)
    found |= cli.probe_model(lit, data, split) if probe else {}
    cli.report(found, lit, data, split, checkpoint, *chosen)
    if save:
        print(f"Written to {runs.save_codes(Path(save), lit.test_columns, data.labels(split))}")


if __name__ == "__main__":
    with cli.user_facing_errors(DataError, DataWarning):
        cli.import_parts()
        cli.run_command(test, **cli.TEST_OPTIONS)
