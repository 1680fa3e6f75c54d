"""The settings of a run, its config.yaml: read as an untrusted file."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from vae.runs.folders import RunError, resume_command, run_of

GROUPS = ("trainer", "model")  # of options in config.yaml; `data` is a class and its options
WORD = r"[\w:,-]*"  # names no code: what is imported has a dot
TEXT = r"[^\x00-\x1f\x7f-\x9f]*"


def read_settings(run: Path) -> dict[str, Any]:
    """The settings in a run's config.yaml: plain YAML, and the three groups of options are mappings.

    Raises:
        RunError: it is something else.
    """
    path = run / "config.yaml"
    try:
        config = yaml.safe_load(path.read_text())
        if all(isinstance(part, dict) for part in (config["data"]["init_args"], *(config[group] for group in GROUPS))):
            return config
    except (yaml.YAMLError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise RunError(f"{path} is not a file that this project's train.py wrote.")


def check_settings(
    settings: Mapping[str, Any], ckpt_path: Path, options: Mapping[str, Collection[str]], datasets: Mapping[str, type]
) -> dict[str, Any]:
    """The settings of a run, if they are harmless: the file is untrusted.

    Args:
        options: the names of the options of each group.
        datasets: the data modules by name.

    Raises:
        RunError: they name a class that is no data module, or options that train.py does not have.
    """
    path = run_of(ckpt_path) / "config.yaml"
    data = settings["data"]
    module, _, name = str(data.get("class_path")).rpartition(".")
    known = name in datasets and f"{datasets[name].__module__}.".startswith(f"{module}.")  # it is imported already
    if not (is_plain(settings) and data.keys() == {"class_path", "init_args"} and known):
        raise RunError(
            f"{path} names code that would be run, or more than plain values.\n"
            f"If it is yours, say so: {resume_command(ckpt_path, trusted=True)}"
        )
    for group in GROUPS:
        if unknown := settings[group].keys() - options[group]:
            raise RunError(f"{path} has an option that train.py does not have: {group}.{unknown.pop()}")
    return {name: settings[name] for name in ("seed_everything", *GROUPS, "data") if name in settings}


def is_plain(settings: Mapping[str, Any]) -> bool:
    """Whether no key leads out of its group, and all values are plain ones that name no code."""
    keys = [*settings, *(key for part in (settings["data"], settings["data"]["init_args"]) for key in part)]
    keys += [key for group in GROUPS for key in settings[group]]
    top = {"seed_everything", "run_name", "ckpt_path", "init_from", "data", *GROUPS}
    others = [value for name, value in settings.items() if name not in ("data", *GROUPS)]
    return (
        settings.keys() <= top
        and all(isinstance(key, str) and key.isidentifier() for key in keys)
        and all(is_plain_value(value, WORD) for value in settings["trainer"].values())
        and all(
            is_plain_value(value, TEXT)
            for values in (settings["model"].values(), settings["data"]["init_args"].values(), others)
            for value in values
        )
    )


def is_plain_value(value: Any, pattern: str) -> bool:
    """Whether a value is a number, a truth value, None, a text of that form, or a list of these."""
    return all(
        re.fullmatch(pattern, one) is not None if isinstance(one, str) else one is None or isinstance(one, int | float)
        for one in (value if isinstance(value, list) else [value])
    )
