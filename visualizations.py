"""Draw what a trained model has learned; python3 visualizations.py --help tells how."""

import sys
from io import BytesIO
from pathlib import Path
from typing import Literal

from datamodules import DATASETS, DataError
from vae import runs
from vae.cli import command, plain_speech, quiet_trainer
from vae.figures import FIGURES, NotApplicable


def visualize(
    ckpt_path: str | None = None,
    figures: list[str] | None = None,
    output_dir: str = "visualization_imgs",
    split: Literal["train", "val", "test"] = "test",
    data_dir: str | None = None,
    accelerator: str = "auto",
) -> None:
    """Draw figures of a trained model, one PNG each.

    Args:
        ckpt_path: The checkpoint; default: the newest run's best.ckpt.
        output_dir: The folder for the pictures.
        split: The split whose pictures are shown.
        data_dir: Where the data is now, if it is not where it was.
        accelerator: What to run on: auto, cpu, gpu, ...
    """
    chosen = {name: FIGURES[name] for name in figures or FIGURES}
    ckpt_path = runs.find_checkpoint(ckpt_path)
    lit, data = runs.load(ckpt_path, DATASETS, data_dir)
    data.prepare_data()
    data.setup()
    vae = lit.vae.to(quiet_trainer(accelerator=accelerator, devices=1).strategy.root_device)
    images = data.pictures(split, 40).to(vae.origin.device)
    print(f"Drawing from {ckpt_path}")
    drawn = []
    for name, figure in chosen.items():
        try:
            image = figure(vae, images)
        except NotApplicable as reason:
            print(f"Not drawn: {reason}", file=sys.stderr)
            continue
        content = BytesIO()
        image.save(content, format="png")
        path = Path(output_dir) / f"{data.name}_{name}_latent_variables={vae.latent_dim}.png"
        runs.write(path, content.getvalue())
        print(path)
        drawn.append(path)
    if not drawn:
        sys.exit("error: none of the figures applies to this model")


if __name__ == "__main__":
    with plain_speech(DataError):
        command(visualize, figures={"nargs": "+", "choices": [*FIGURES], "help": "Which; default: all that apply."})
