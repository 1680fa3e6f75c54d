"""Test a trained model; python3 test.py --help lists the options."""

from typing import Literal

try:
    from jsonargparse.typing import PositiveInt
    from rich.console import Console
    from rich.table import Table

    from datamodules import DATASETS, DataError
    from vae import runs
    from vae.cli import evaluation_trainer, import_parts, parse_sample_counts, run_command, user_facing_errors
    from vae.metrics import summarize
except KeyboardInterrupt:  # the imports take seconds
    raise SystemExit("error: interrupted") from None


def test(
    ckpt_path: str | None = None,
    run_name: str | None = None,
    num_samples: tuple[int, ...] = (100,),
    split: Literal["test", "val"] = "test",
    data_dir: str | None = None,
    accelerator: str = "auto",
    devices: PositiveInt = 1,
    info: bool = False,
) -> None:
    """The bound and an importance-sampled log p(x) of held-out images: a table, and test_metrics.json in the run.

    Args:
        ckpt_path: A checkpoint, the folder or the name of a run, or last; default: best.ckpt of the newest run.
        run_name: The name of a run.
        split: The images to test on.
        data_dir: Where the data is now, if it is not where it was.
        accelerator: What to run on: auto, cpu, gpu, ...
        devices: On how many of them.
    """
    checkpoint = runs.find_checkpoint(ckpt_path, run_name)
    if info:
        print("\n".join(f"{name:<28} {value}" for name, value in runs.describe(checkpoint, DATASETS).items()))
        return
    lit, data = runs.load_run(checkpoint, DATASETS, data_dir)
    data.test_split, lit.importance_samples = split, num_samples
    (found,) = evaluation_trainer(accelerator=accelerator, devices=devices).test(lit, data, verbose=False)
    metrics, rows = summarize(found, lit.vae.likelihood.log_prob_kind(data.binary))
    table = Table("", f"{data.name}, {split}", "", title=str(checkpoint))
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    print(f"Written to {runs.save_test_metrics(checkpoint, {'split': split, **metrics})}")


if __name__ == "__main__":
    with user_facing_errors(DataError):
        import_parts()
        samples = "Importance samples; 1,10,100 gives each its bound."
        counts = {"type": parse_sample_counts, "default": (100,), "help": samples}
        info = {"action": "store_true", "help": "Only tell what the model is; needs no data."}
        run_command(test, num_samples=counts, info=info)
