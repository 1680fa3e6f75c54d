"""Train and test recipes, and keep their metrics: python3 results/reproduce.py NAME ... [--seeds 0 1 2].

For each name the recipe is configs/NAME.yaml; seeds, and what test.py is told of the estimator, are those of rows.yaml.
The runs are lightning_logs/NAME_seedN, resumed if they are there; the metrics go to results/NAME.json.
"""

import argparse
import json
import subprocess
import sys
from math import log
from pathlib import Path

import torch
import yaml

RESULTS = Path(__file__).parent
PROJECT = RESULTS.parent
sys.path.insert(0, str(PROJECT))

from datamodules import DATASETS  # noqa: E402
from vae import VAE, runs  # noqa: E402


def rows() -> dict[str, dict]:
    """The rows of all sections, by the name of their recipe, with the columns of their section."""
    sections = yaml.safe_load((RESULTS / "rows.yaml").read_text())
    return {row["recipe"]: row | {"columns": section["columns"]} for section in sections for row in section["rows"]}


def reproduce(name: str, seed: int, test: dict[str, object], columns: list[str]) -> dict:
    """Train, or resume, and test one run: its metrics.

    Args:
        test: options of test.py.
    """
    config, run = PROJECT / "configs" / f"{name}.yaml", f"{name}_seed{seed}"
    if runs.last_checkpoint(runs.run_folder(run)).exists():
        options = ["--ckpt_path", "last"]
    else:
        options = ["--config", config, "--seed_everything", seed]
    script("train.py", "--run_name", run, *options)
    script("test.py", "--ckpt_path", run, *(part for option, value in test.items() for part in (f"--{option}", value)))
    metrics = json.loads((runs.run_folder(run) / "test_metrics.json").read_text())
    checkpoint = Path(metrics.pop("checkpoint"))
    if "analytic_kl_estimate" in columns:
        lit, data = runs.load_run(checkpoint, DATASETS)
        metrics["analytic_kl_estimate"] = analytic_kl_estimate(lit.vae, data.images("test"), num_samples=100)
    minutes = sum(runs.read_history(runs.run_folder(run))["epoch_seconds"].values()) / 60
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=PROJECT, text=True).strip()
    return {"seed": seed, "commit": commit, "minutes": round(minutes, 1), **metrics}


def script(name: str, *options: object) -> None:
    """Run one of the project's scripts, as on its command line.

    Raises:
        CalledProcessError: it failed, or was stopped.
    """
    subprocess.run([sys.executable, PROJECT / name, *map(str, options)], check=True)


@torch.no_grad()
def analytic_kl_estimate(vae: VAE, images: torch.Tensor, num_samples: int) -> float:
    """What some repositories report as log p(x), nats per image: the analytic KL inside the logsumexp.

    It is no bound on anything; here to compare with their numbers.
    """
    total = 0.0
    for x in images.split(100):
        q_z = vae.encode(x)
        log_p_x = vae.decode(q_z.sample((num_samples,))).log_prob(x)
        total += (log_p_x.logsumexp(0) - log(num_samples) - vae.kl_per_dimension(q_z).sum(-1)).sum().item()
    return total / len(images)


def main() -> None:
    """Reproduce the recipes that the command line names."""
    known = rows()
    parser = argparse.ArgumentParser(description="Train and test recipes of configs/, and keep their metrics.")
    parser.add_argument("names", nargs="+", choices=known, metavar="NAME", help=f"one of {', '.join(known)}")
    parser.add_argument("--seeds", nargs="+", type=int, help="only these; default: those of rows.yaml")
    arguments = parser.parse_args()
    for name in arguments.names:
        path, row = RESULTS / f"{name}.json", known[name]
        found = json.loads(path.read_text())["runs"] if path.exists() else []
        for seed in arguments.seeds or row.get("seeds", [0]):
            if all(run["seed"] != seed for run in found):
                found.append(reproduce(name, seed, row.get("test", {}), row["columns"]))
                recipe = yaml.safe_load((PROJECT / "configs" / f"{name}.yaml").read_text())
                path.write_text(json.dumps({"recipe": recipe, "runs": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
