"""Test a trained model; python3 test.py --help tells how."""

from typing import Literal

from jsonargparse.typing import PositiveInt
from rich.console import Console
from rich.table import Table

from datamodules import DATASETS, DataError
from vae import runs
from vae.cli import evaluation_trainer, parse_sample_counts, run_command, user_facing_errors
from vae.metrics import summarize


def test(
    ckpt_path: str | None = None,
    num_samples: tuple[int, ...] = (100,),
    split: Literal["test", "val"] = "test",
    data_dir: str | None = None,
    accelerator: str = "auto",
    devices: PositiveInt = 1,
    info: bool = False,
) -> None:
    """The bound and an importance-sampled log p(x) of held-out images: a table, and test_metrics.json in the run.

    Args:
        ckpt_path: The checkpoint; default: the newest run's best.ckpt.
        split: The images to test on.
        data_dir: Where the data is now, if it is not where it was.
        accelerator: What to run on: auto, cpu, gpu, ...
        devices: On how many of them.
    """
    ckpt_path = runs.find_checkpoint(ckpt_path)
    if info:
        print("\n".join(f"{name:<28} {value}" for name, value in runs.describe(ckpt_path, DATASETS).items()))
        return
    lit, data = runs.load_run(ckpt_path, DATASETS, data_dir)
    data.test_split, lit.importance_samples = split, num_samples
    (found,) = evaluation_trainer(accelerator=accelerator, devices=devices).test(lit, data, verbose=False)
    metrics, rows = summarize(found, lit.vae.likelihood.log_prob_kind(data.binary))
    table = Table("", f"{data.name}, {split}", "", title=str(ckpt_path))
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    print(f"Written to {runs.save_test_metrics(ckpt_path, {'split': split, **metrics})}")


if __name__ == "__main__":
    with user_facing_errors(DataError):
        counts = {
            "type": parse_sample_counts,
            "default": (100,),
            "help": "Importance samples; 1,10,100 gives each its bound.",
        }
        info = {"action": "store_true", "help": "Only tell what the model is; needs no data."}
        run_command(test, num_samples=counts, info=info)
