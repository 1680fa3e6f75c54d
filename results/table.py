"""RESULTS.md from rows.yaml and the committed metrics: python3 results/table.py > RESULTS.md."""

import json
from pathlib import Path
from statistics import mean

import yaml

RESULTS = Path(__file__).parent
MIN_EFFECTIVE_SAMPLES = 5  # that of test.py, of the 5 % quantile
COLUMNS = {
    "elbo": "ELBO",
    "log_marginal": "log p(x)",
    "analytic_kl_estimate": "analytic KL",
    "active_units": "active units",
    "bits_per_dim": "bits per dimension",
    "exact_reconstructions": "exact",
}
FROM_LOG_MARGINAL = ("log_marginal", "bits_per_dim")
DIGITS = {"active_units": 0, "bits_per_dim": 3, "exact_reconstructions": 3}
HEAD = """# Results

Test sets; nats per image, unless a column says otherwise. A recipe is a file in `configs/`:

    python3 train.py --config configs/NAME.yaml --run_name NAME
    python3 test.py --ckpt_path NAME

log p(x) and bits per dimension are from 100 samples an image (`test.py --estimator importance`), unless the text says
otherwise.
Rows with several seeds show the mean and the range. \\* The effective sample size says that log p(x) is underestimated
(its 5 % quantile over the images is below 5): more samples raise it. Minutes are those of one training on one or two
cores of a shared machine. The metrics, commits and seeds are in `results/*.json`; `make results` writes this page from
them.
"""


def cell(runs: list[dict], column: str) -> str:
    """The mean of a metric over the runs, and its range."""
    values = [run[column] for run in runs]
    digits = DIGITS.get(column, 2)
    text = f"{mean(values):.{digits}f}"
    if min(values) < max(values):
        text += f" ({min(values):.{digits}f} to {max(values):.{digits}f})"
    underestimated = any(run["effective_sample_size_5_percent"] < MIN_EFFECTIVE_SAMPLES for run in runs)
    return f"{text} \\*" if column in FROM_LOG_MARGINAL and underestimated else text


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
