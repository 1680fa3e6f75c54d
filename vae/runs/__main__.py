"""All runs side by side: python3 -m vae.runs prints a table, with --csv comma-separated values.

Runs whose settings differ in the seed alone make one row: the mean of their values, and the standard deviation.
"""

import argparse
import csv
import json
import signal
import sys
from math import isfinite
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from vae.runs.checkpoints import CONTROL, read_checkpoint
from vae.runs.folders import ROOT, RunError, checkpoints_of
from vae.runs.settings import read_settings

VALUES = {"epochs": 0, "best val ELBO": 2, "test ELBO": 2, "test log p(x)": 2}  # and their digits


def read_run(run: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """The settings of a run, by the name of their option, and its values; those that it does not have are left out.

    Raises:
        RunError: one of its files is damaged, or the folder is not one of this project's runs.
    """
    try:
        settings, checkpoint = read_settings(run), read_checkpoint(checkpoints_of(run)[0])
        data, path = settings["data"], run / "test_metrics.json"
        flat = {"data": data["class_path"].rpartition(".")[2], "seed": settings.get("seed_everything")}
        parts = {"data": data["init_args"], "model": settings["model"], "trainer": settings["trainer"]}
        flat |= {f"{group}.{name}": value for group, part in parts.items() for name, value in part.items()}
        tested = json.loads(path.read_text()) if path.exists() else {}
        values = {
            "epochs": checkpoint["epoch"] + 1,
            "best val ELBO": checkpoint.get("callbacks", {}).get("best", {}).get("best_model_score"),
            "test ELBO": tested.get("elbo"),
            "test log p(x)": tested.get("log_marginal"),
        }
        numbers = {name: float(value) for name, value in values.items() if value is not None}
        if not all(map(isfinite, numbers.values())):
            raise ValueError("a value is not finite")
    except RunError:
        raise
    except Exception as error:  # whatever the contents of a damaged file lead to
        raise RunError(f"{run} is not a run that this project's train.py wrote, or is damaged.") from error
    return flat | {"init_from": settings.get("init_from") or ""}, numbers


def rows(folders: list[Path]) -> list[dict[str, str]]:
    """A row for all runs whose settings differ in the seed alone: names, settings that differ among rows, values."""
    groups: dict[str, list[tuple[str, dict[str, Any], dict[str, float]]]] = {}
    for folder in folders:
        try:
            settings, values = read_run(folder)
        except RunError as error:
            print(f"left out: {CONTROL.sub('?', str(error))}", file=sys.stderr)
            continue
        key = json.dumps({name: value for name, value in settings.items() if name != "seed"}, default=str)
        groups.setdefault(key, []).append((folder.name, settings, values))
    first = [members[0][1] for members in groups.values()]
    names = dict.fromkeys(name for settings in first for name in settings if name not in ("data", "seed"))
    differ = [name for name in names if len({str(settings.get(name, "")) for settings in first}) > 1]
    table = [
        {
            "run": " ".join(name for name, _, _ in members),
            "data": members[0][1]["data"],
            **{name: str(members[0][1].get(name, "")) for name in differ},
            "seeds": " ".join(str(settings["seed"]) for _, settings, _ in members),
            **{name: summary([values.get(name) for *_, values in members], VALUES[name]) for name in VALUES},
        }
        for members in groups.values()
    ]
    return [{name: CONTROL.sub("?", cell) for name, cell in row.items()} for row in table]


def summary(values: list[float | None], digits: int) -> str:
    """The mean of the values, and their standard deviation if there are several; how many there are, if not all."""
    found = [value for value in values if value is not None]
    if not found:
        return ""
    spread = f" ± {stdev(found):.{digits}f}" if len(found) > 1 else ""
    share = f" ({len(found)} of {len(values)})" if len(found) < len(values) else ""
    return f"{mean(found):.{digits}f}{spread}{share}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python3 -m vae.runs", description="All runs of a folder side by side.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT, help=f"of the runs; default: {ROOT}")
    parser.add_argument("--csv", action="store_true", help="print comma-separated values")
    arguments = parser.parse_args()
    folder = arguments.folder
    folders = sorted(run for run in folder.iterdir() if checkpoints_of(run)) if folder.is_dir() else []
    found = rows(folders)
    if not found:
        parser.error(f"there is no run with a checkpoint in {folder}; to train one: python3 train.py")
    if arguments.csv:
        writer = csv.DictWriter(sys.stdout, found[0].keys())
        writer.writeheader()
        writer.writerows(found)
        return
    always = ("run", "data", "seeds", *VALUES)
    table = Table("run", "data", "options that differ", "seeds", *VALUES, box=SIMPLE)
    for row in found:
        differ = [f"{name.rpartition('.')[2]} {row[name]}" for name in row if row[name] and name not in always]
        table.add_row(row["run"], row["data"], ", ".join(differ), row["seeds"], *(row[name] for name in VALUES))
    Console(width=None if sys.stdout.isatty() else 160, markup=False).print(table)


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a reader that has enough, such as head, ends it
    main()
