"""Draw what a trained model has learned; python3 visualizations.py --help lists the options."""

from pathlib import Path
from typing import Any, Literal

from vae.start import starting

with starting():
    from datamodules import DATASETS, DataError, DataWarning
    from vae.cli import Resolution, draw, evaluation_trainer, import_parts, run_command, user_facing_errors
    from vae.figures import DPI, FIGURES, compares_runs
    from vae.runs import figure_inputs, find_checkpoint, load_run, write_atomically


def visualize(
    ckpt_path: str | None = None,
    run_name: str | None = None,
    figures: list[str] | None = None,
    runs: list[str] | None = None,
    output_dir: str = "visualization_imgs",
    split: Literal["train", "val", "test", "all"] = "test",
    data_dir: str | None = None,
    accelerator: str = "auto",
    format: Literal["png", "pdf", "svg"] = "png",
    dpi: Resolution = DPI,
    **options: Any,
) -> None:
    """Draw figures of a trained model, one file each.

    Args:
        ckpt_path: A checkpoint, the folder or the name of a run, or last; default: best.ckpt of the newest run.
        run_name: The name of a run.
        output_dir: The folder for the images.
        split: The split whose images are shown.
        data_dir: Where the data is now, if it is not where it was.
        accelerator: What to run on: auto, cpu, gpu, ...
        format: The format of the figures; animations are GIF, the explorer is HTML.
        dpi: Pixels per inch, 10 to 1,000.
    """
    checkpoint = find_checkpoint(ckpt_path, run_name or (runs[0] if runs and not ckpt_path else None))
    lit, data = load_run(checkpoint, DATASETS, data_dir)
    vae = lit.vae.to(evaluation_trainer(accelerator=accelerator, devices=1).strategy.root_device)
    print(f"Drawing from {checkpoint}", flush=True)
    inputs = figure_inputs(checkpoint, vae, data, split, runs, DATASETS, **options)
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    for name, kind, content in draw(figures or FIGURES, inputs, DataError, file_format=format, dpi=dpi):
        stem = name if compares_runs(name) else f"{data.name}_{name}_latent_variables={vae.latent_dim}"
        path = Path(output_dir) / f"{stem}.{kind}"
        replaced = "  (replaced; --output_dir keeps another run's figures apart)" if path.exists() else ""
        write_atomically(path, content)
        print(f"{path}{replaced}", flush=True)


if __name__ == "__main__":
    with user_facing_errors(DataError, DataWarning):
        import_parts()
        which = {"choices": [*FIGURES], "help": f"Which of {', '.join(FIGURES)}; default: all that apply."}
        compared = {"nargs": "+", "help": "Those in learning_curves, by name; other figures show the first."}
        run_command(visualize, *FIGURES.values(), figures={"nargs": "+", "metavar": "NAME", **which}, runs=compared)
