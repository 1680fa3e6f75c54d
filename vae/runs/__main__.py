"""Runs side by side: python3 -m vae.runs [RUN ...] prints a table, with --csv comma-separated values.

Runs whose settings differ in the seed alone make one row: the mean of their values, and the standard deviation. Options
that a run's network and likelihood do not take, or that change no number, are no settings of it.
"""

import argparse
import csv
import json
import sys
from collections import Counter
from math import isfinite
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from rich.box import SIMPLE
from rich.table import Table

from vae.cli import print_table, user_facing_errors
from vae.model import unused_options
from vae.runs.checkpoints import CONTROL, best_score, read_checkpoint, settings_of
from vae.runs.folders import ROOT, RunError, checkpoints_of, places
from vae.runs.resuming import FROM_DATA

VALUES = {"epochs": 0, "best val ELBO": 2, "test ELBO": 2, "test log p(x)": 2}  # and their digits
WITHOUT_EFFECT = ("steps_per_block", "enable_progress_bar", "enable_model_summary", "log_every_n_steps")


def read_run(run: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """The settings of a run, by the name of their option, and its values; those that it does not have are left out.

    Raises:
        RunError: one of its files is damaged, or the folder is not one of this project's runs.
    """
    try:
        checkpoint, path = read_checkpoint(checkpoints_of(run)[0]), run / "test_metrics.json"
        settings = settings_of(checkpoint)
        model, data = dict(settings["model"]), dict(settings["data"]["options"])
        flat = {"data": settings["data"]["name"], "seed": model.pop("seed", None)}
        unused = unused_options(model.get("network"), model.get("likelihood"))
        left_out = {*unused, *WITHOUT_EFFECT, *FROM_DATA, "seed"}
        for group, part in {"data": data, "model": model, "trainer": settings["trainer"]}.items():
            flat |= {f"{group}.{name}": value for name, value in part.items() if name not in left_out}
        tested = json.loads(path.read_text()) if path.exists() else {}
        values = {
            "epochs": checkpoint["epoch"] + checkpoint.get("whole_epoch", True),
            "best val ELBO": best_score(checkpoint),
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


class Row(NamedTuple):
    """Runs whose settings differ in the seed alone: their names, their settings, the seeds, and each run's values."""

    runs: list[str]
    settings: dict[str, Any]
    seeds: list[Any]
    values: list[dict[str, float]]

    def found(self, name: str) -> list[float]:
        """The values of that name that there are."""
        return [values[name] for values in self.values if name in values]


def rows(folders: list[Path]) -> list[Row]:
    """The rows of the table: a second run of the same settings and seed is no replicate, and begins another row."""
    found: dict[tuple[str, int], Row] = {}
    seen: Counter[str] = Counter()
    for folder in folders:
        try:
            settings, values = read_run(folder)
        except RunError as error:
            print(f"left out: {CONTROL.sub('?', str(error))}", file=sys.stderr)
            continue
        name = str(folder) if len({folder.parent for folder in folders}) > 1 else folder.name
        again = json.dumps(settings, default=str)
        seed = settings.pop("seed")
        row = found.setdefault((json.dumps(settings, default=str), seen[again]), Row([], settings, [], []))
        seen[again] += 1
        row.runs.append(name)
        row.seeds.append(seed)
        row.values.append(values)
    return [*found.values()]


def differing(table: list[Row]) -> list[str]:
    """The options in which rows differ: among those that have them, and a data set's own among those of that data."""
    options: dict[str, dict[str, set[str]]] = {}
    for row in table:
        for name, value in row.settings.items():
            of = row.settings["data"] if name.startswith("data.") else ""
            options.setdefault(name, {}).setdefault(of, set()).add(str(value))
    return [name for name, values in options.items() if name != "data" and max(map(len, values.values())) > 1]


def summary(row: Row, name: str) -> str:
    """The mean of the values, and their standard deviation if there are several; how many there are, if not all."""
    found, digits = row.found(name), VALUES[name]
    if not found:
        return ""
    spread = f" ± {stdev(found):.{digits}f}" if len(found) > 1 else ""
    share = f" ({len(found)} of {len(row.runs)})" if len(found) < len(row.runs) else ""
    return f"{mean(found):.{digits}f}{spread}{share}"


def statistics(row: Row, name: str) -> dict[str, float | str]:
    """Mean, standard deviation and number of the values, in columns of numbers; empty where there is none."""
    found = row.found(name)
    return {
        f"{name} mean": mean(found) if found else "",
        f"{name} sd": stdev(found) if len(found) > 1 else "",
        f"{name} n": len(found),
    }


def find_runs(name: str) -> list[Path]:
    """The runs with a checkpoint that a name stands for: of a run, of its folder or one of several runs, or a pattern.

    A name that exists, and has runs, is not taken for a pattern.
    """
    named = places(name)
    matches = [place for path in named for place in sorted(path.parent.glob(path.name))]
    found = ([run for place in those for run in runs_in(place)] for those in ([named[0]], [named[1]], matches))
    return next(filter(None, found), [])


def runs_in(folder: Path) -> list[Path]:
    """A folder that is a run with a checkpoint, or the runs in it."""
    is_run = any(folder.glob("checkpoints/*.ckpt")) or not folder.is_dir()
    return [run for run in ([folder] if is_run else sorted(folder.iterdir())) if checkpoints_of(run)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python3 -m vae.runs", description="Runs side by side.")
    what = f"runs, folders of runs, or patterns such as 'sweep_*', here or in {ROOT}; default: {ROOT}"
    parser.add_argument("runs", nargs="*", default=[f"{ROOT}/"], help=what)
    parser.add_argument(
        "--csv", action="store_true", help="print comma-separated values, numbers in columns of their own"
    )
    arguments = parser.parse_args()
    table = rows([*dict.fromkeys(run for name in arguments.runs for run in find_runs(name))])
    if not table:
        parser.error(f"there is no run with a checkpoint in {' '.join(arguments.runs)}; to train one: python3 train.py")
    options = differing(table)
    cells = [
        {"run": " ".join(row.runs), "data": row.settings["data"]}
        | {name: str(row.settings.get(name, "")) for name in options}
        | {"seeds": " ".join(map(str, row.seeds))}
        for row in table
    ]
    cells = [{name: CONTROL.sub("?", text) for name, text in row.items()} for row in cells]
    if arguments.csv:
        numbers = [
            {name: number for value in VALUES for name, number in statistics(row, value).items()} for row in table
        ]
        writer = csv.DictWriter(sys.stdout, [*cells[0], *numbers[0]])
        writer.writeheader()
        writer.writerows(texts | values for texts, values in zip(cells, numbers, strict=True))
        return
    shown = Table("run", "data", "options that differ", "seeds", *VALUES, box=SIMPLE)
    for row, texts in zip(table, cells, strict=True):
        differ = [f"{name.rpartition('.')[2]} {texts[name]}" for name in options if texts[name]]
        values = [summary(row, name) for name in VALUES]
        shown.add_row(texts["run"], texts["data"], ", ".join(differ), texts["seeds"], *values)
    print_table(shown)


if __name__ == "__main__":
    with user_facing_errors():
        main()
