"""Draw what a trained model has learned; python3 visualizations.py --help tells how."""

import sys
from pathlib import Path
from typing import Any, Literal

from datamodules import DATASETS, DataError
from vae.cli import evaluation_trainer, run_command, user_facing_errors
from vae.figures import FIGURES, NotApplicable, compares_runs, render
from vae.runs import figure_inputs, find_checkpoint, load_run, write_atomically


def visualize(
    ckpt_path: str | None = None,
    figures: list[str] | None = None,
    runs: list[str] | None = None,
    output_dir: str = "visualization_imgs",
    split: Literal["train", "val", "test", "all"] = "test",
    data_dir: str | None = None,
    accelerator: str = "auto",
    **options: Any,
) -> None:
    """Draw figures of a trained model, one file each.

    Args:
        ckpt_path: The checkpoint; default: the newest run's best.ckpt.
        output_dir: The folder for the images.
        split: The split whose images are shown.
        data_dir: Where the data is now, if it is not where it was.
        accelerator: What to run on: auto, cpu, gpu, ...
    """
    ckpt_path = find_checkpoint(ckpt_path, runs[0] if runs else None)
    lit, data = load_run(ckpt_path, DATASETS, data_dir)
    vae = lit.vae.to(evaluation_trainer(accelerator=accelerator, devices=1).strategy.root_device)
    print(f"Drawing from {ckpt_path}")
    inputs = figure_inputs(ckpt_path, vae, data, split, runs, DATASETS)
    inputs |= {name: lambda value=value: value for name, value in options.items()}
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    written = 0
    for name in figures or FIGURES:
        try:
            kind, content = render(name, inputs)
        except NotApplicable as reason:
            print(f"Not drawn: {reason}", file=sys.stderr)
            continue
        stem = name if compares_runs(name) else f"{data.name}_{name}_latent_variables={vae.latent_dim}"
        path = Path(output_dir) / f"{stem}.{kind}"
        replaced = "  (replaced; --output_dir keeps another run's figures apart)" if path.exists() else ""
        write_atomically(path, content)
        print(f"{path}{replaced}")
        written += 1
    if not written:
        sys.exit("error: none of the figures applies to this model")


if __name__ == "__main__":
    with user_facing_errors(DataError):
        chosen = {"nargs": "+", "choices": [*FIGURES], "help": "Which; default: all that apply."}
        compared = {"nargs": "+", "help": "Those in learning_curves, by name; other figures show the first."}
        run_command(visualize, *FIGURES.values(), figures=chosen, runs=compared)
