"""RESULTS.md from rows.yaml and the committed metrics: python3 results/table.py > RESULTS.md."""

import json
from math import inf
from pathlib import Path
from statistics import mean

import yaml

RESULTS = Path(__file__).parent
COLUMNS = {
    "elbo": "ELBO",
    "log_marginal": "log p(x)",
    "log_marginal_error": "its error",
    "analytic_kl_estimate": "analytic KL",
    "active_units": "active units",
    "bits_per_dim": "bits per dimension",
    "exact_reconstructions": "exact",
}
ESTIMATORS = {"quadrature": "quadrature", "ais": "AIS", "importance": "importance sampling"}
LOWER_BOUND = {"log_marginal": "at least ", "bits_per_dim": "at most "}  # where the error is unknown
DIGITS = {"active_units": 0, "bits_per_dim": 3, "exact_reconstructions": 3}
HEAD = """# Results

Test sets; nats per image, unless a column says otherwise. A recipe is a file in `configs/`:

    python3 train.py --config configs/NAME.yaml --run_name NAME
    python3 test.py --ckpt_path NAME

log p(x) is by quadrature up to three latent variables and by annealed importance sampling (AIS) beyond. "Its error" is
that of the estimate: of a quadrature what halving its step changes, of AIS the distance of its two bounds on images
that the model generates. "At least" is importance sampling where a few samples carry all the weight: a lower bound.
Rows with several seeds show the mean and the range. Minutes are those of one training on one or two cores of a shared
machine. The metrics, commits and seeds are in `results/*.json`; `make results` writes this page from them.
"""


def cell(runs: list[dict], column: str) -> str:
    """The mean of a metric over the runs, and its range; of the error of log p(x) the largest, and the estimator."""
    if column == "log_marginal_error":
        run = max(runs, key=lambda run: run[column] or inf)
        by = f"{ESTIMATORS[run['estimator']]}, {run['num_images']:,} images"
        return f"{run[column]:.2g} ({by})" if run[column] else f"unknown ({by}, {run['num_samples']:,} samples)"
    values = [run[column] for run in runs]
    digits = DIGITS.get(column, 2)
    text = f"{mean(values):.{digits}f}"
    if min(values) < max(values):
        text += f" ({min(values):.{digits}f} to {max(values):.{digits}f})"
    is_bound = any(run["log_marginal_error"] is None for run in runs)
    return LOWER_BOUND.get(column, "") + text if is_bound else text


def section(title: str, text: str, columns: list[str], rows: list[dict]) -> str:
    """A heading, what the rows have in common, a table, and what was tried where a row falls short."""
    published = any("published" in row for row in rows)
    head = ["recipe", "setting", *(["published"] if published else []), *(COLUMNS[name] for name in columns)]
    head += ["seeds", "minutes"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        path = RESULTS / f"{row['recipe']}.json"
        runs = json.loads(path.read_text())["runs"] if path.exists() else []
        cells = [f"`{row['recipe']}`", row["setting"], *([row.get("published", "")] if published else [])]
        cells += [cell(runs, name) if runs else "not run" for name in columns]
        cells += [str(len(runs)), f"{mean(run['minutes'] for run in runs):.0f}" if runs else ""]
        lines.append("| " + " | ".join(cells) + " |")
    tried = [f"`{row['recipe']}`: {row['tried']}" for row in rows if "tried" in row]
    return "\n\n".join([f"## {title}", text, "\n".join(lines), *tried])


def page() -> str:
    """The whole of RESULTS.md."""
    sections = yaml.safe_load((RESULTS / "rows.yaml").read_text())
    return "\n\n".join([HEAD.rstrip(), *(section(**part) for part in sections)]) + "\n"


if __name__ == "__main__":
    print(page(), end="")
