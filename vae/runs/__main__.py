"""Runs side by side: python3 -m vae.runs [RUN ...] prints a table, with --csv comma-separated values.

Runs whose settings differ in the seed alone make one row: the mean of their values, and the standard deviation. Options
that a run's network and likelihood do not take, or that change no number, are no settings of it.
"""

import argparse
import csv
import json
import sys
from collections import Counter, defaultdict
from math import isfinite
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from rich.box import SIMPLE
from rich.table import Table

from vae.cli import print_table, user_facing_errors
from vae.runs.checkpoints import CONTROL, as_untrusted, best_score, options_of, read_checkpoint, settings_of
from vae.runs.folders import ROOT, RunError, checkpoints_of, places

VALUES = {"epochs": 0, "best val ELBO": 2, "test ELBO": 2, "test log p(x)": 2}  # and their digits
WITHOUT_EFFECT = ("steps_per_block", "enable_progress_bar", "enable_model_summary", "log_every_n_steps")


def read_run(run: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """The settings of a run, by the name of their option, and its values; those that it does not have are left out.

    Raises:
        RunError: one of its files is damaged, or the folder is not one of this project's runs.
    """
    checkpoint, path = read_checkpoint(checkpoints_of(run)[0]), run / "test_metrics.json"
    with as_untrusted(run):
        settings = options_of(settings_of(checkpoint))
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
    kept = {name: value for name, value in settings.items() if name.rpartition(".")[2] not in WITHOUT_EFFECT}
    return kept, numbers


class Row(NamedTuple):
    """Runs whose settings differ in the seed alone: their settings, names and seeds, and the values that they have."""

    settings: dict[str, Any]
    runs: list[str]
    seeds: list[Any]
    values: dict[str, list[float]]


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
        again = json.dumps(settings, default=str)
        seed = settings.pop("seed_everything", None)
        key = json.dumps(settings, default=str), seen[again]
        row = found.setdefault(key, Row(settings, [], [], defaultdict(list)))
        seen[again] += 1
        row.runs.append(str(folder) if len({folder.parent for folder in folders}) > 1 else folder.name)
        row.seeds.append(seed)
        for name, value in values.items():
            row.values[name].append(value)
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
    found, digits = row.values[name], VALUES[name]
    if not found:
        return ""
    spread = f" ± {stdev(found):.{digits}f}" if len(found) > 1 else ""
    share = f" ({len(found)} of {len(row.runs)})" if len(found) < len(row.runs) else ""
    return f"{mean(found):.{digits}f}{spread}{share}"


def statistics(row: Row) -> dict[str, float | str]:
    """Mean, standard deviation and number of each value, in columns of numbers; empty where there is none."""
    columns: dict[str, float | str] = {}
    for name in VALUES:
        found = row.values[name]
        columns[f"{name} mean"] = mean(found) if found else ""
        columns[f"{name} sd"] = stdev(found) if len(found) > 1 else ""
        columns[f"{name} n"] = len(found)
    return columns


def find_runs(name: str) -> list[Path]:
    """The runs with a checkpoint that a name stands for: of a run, of its folder or one of several runs, or a pattern.

    A name that exists, and has runs, is not taken for a pattern.
    """
    first, second = places(name)
    matches = [place for path in (first, second) for place in sorted(path.parent.glob(path.name))]
    for folders in ([first], [second], matches):
        groups = [[each] if any(each.glob("checkpoints/*.ckpt")) else sorted(each.glob("*/")) for each in folders]
        if found := [run for group in groups for run in group if checkpoints_of(run)]:
            return found
    return []


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
        writer = csv.DictWriter(sys.stdout, [*cells[0], *statistics(table[0])])
        writer.writeheader()
        writer.writerows(texts | statistics(row) for texts, row in zip(cells, table, strict=True))
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
