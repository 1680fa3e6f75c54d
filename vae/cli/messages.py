"""Errors of jsonargparse in the words of the command line: what was expected, what was given, what the choices are.

All that is known here of jsonargparse's own wording are the patterns below.
"""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from inspect import signature
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from jsonargparse import ArgumentParser

UNKNOWN = re.compile(r"unrecognized arguments: (\S+)|(?:Group '(.+?)' does not accept option|Option) '(.+?)'")
CLASS = re.compile(r"""Parser key "(.+?)".* given class_path '(?:.*\.)?(\w+)':\s+(.+?)(?=\n    - |\Z)""", re.DOTALL)
NUMBER = r"\s*Not of type \w+: (?:invalid literal .+: ')?([^\s']+)"
VALUE = re.compile(rf'Parser key "(.+?)":(?:{NUMBER}|.*(?:Given|Got) value: (.+?)\s*\Z)', re.DOTALL)
CONSTRUCTION = re.compile(r"Does not validate against any.*?Errors:\n +- (.+?)\n +- ", re.DOTALL)
KEY = re.compile(r'Parser key "(.+?)":\s*')

OWN = "; one of your own needs --import MODULE"
ONE_SEED = "{option}: the seed of model and data is one, --seed_everything"
NUMBERS = {int: "a whole number", float: "a number"}
COMPARISONS = {"gt": "above", "ge": "of at least", "lt": "below", "le": "of at most"}


def explain(message: str, parser: ArgumentParser) -> str:
    """The error of a parser as its user needs it.

    Args:
        message: the error's text.
        parser: the parser; its `datasets` are the classes that `--data` takes.
    """
    if found := CONSTRUCTION.match(message):
        return found[1]
    if found := CLASS.search(message):
        key, name, problem = found.groups()
        if key != "data":
            return f"--{key} {name}: " + KEY.sub(rf"--{key}.\1: ", problem)
        if name in parser.datasets:
            options = options_of(parser.datasets[name])
            if unknown := UNKNOWN.search(problem):
                return unknown_data_option(f"--data.{unknown[3]}", name, options)
            return explain_value(problem, options, "--data.") or problem
        message = f'Parser key "data": Given value: {name}'
    if found := UNKNOWN.match(message):
        argument, group, option = found.groups()
        return unknown_option(argument or f"--{group}.{option}" if argument or group else f"--{option}", parser)
    return explain_value(message, parser, "--") or KEY.sub(r"--\1: ", message)


def explain_value(message: str, parser: ArgumentParser, prefix: str) -> str | None:
    """The error of a value that is not of the option's type."""
    if not (found := VALUE.match(message)):
        return None
    key, value = found[1], found[2] or found[3]
    if key == "data":
        return unknown_dataset(value, parser.datasets)
    own = OWN if key in ("model.likelihood", "model.network", "model.objective") else ""
    for action in parser._actions:
        if action.dest == key:
            return (
                f"{prefix}{key}: expected {describe_type(getattr(action, '_typehint', action.type))}, got {value}{own}"
            )
    return None


def describe_type(kind: Any) -> str:
    """What an option of that type takes."""
    if get_origin(kind) in (Union, UnionType):
        choices = [choice for part in get_args(kind) if get_origin(part) is Literal for choice in get_args(part)]
        rest = [part for part in get_args(kind) if get_origin(part) is not Literal]
        parts = [Literal[tuple(choices)], *rest] if choices else rest
        return " or ".join(dict.fromkeys(map(describe_type, parts)))
    if get_origin(kind) is Literal:
        return f"one of {', '.join(dict.fromkeys(map(str, get_args(kind))))}"
    if get_origin(kind) in (tuple, list) and {*get_args(kind)} <= {int, ...}:
        return 'a list as in "[256,128]"'
    if hasattr(kind, "_restrictions"):  # a number within bounds
        bounds = " and ".join(f"{COMPARISONS[compare.__name__]} {bound:,}" for compare, bound in kind._restrictions)
        return f"{NUMBERS[kind._type]} {bounds}"
    names = NUMBERS | {bool: "true or false", NoneType: "null", str: "text"}
    return names.get(kind) or str(getattr(kind, "__name__", kind))


def unknown_option(option: str, parser: ArgumentParser) -> str:
    """Names the nearest options of all, and the group's."""
    option = option.partition("=")[0]
    if not option.startswith("-"):
        others = "there are no sub-commands, train.py trains and test.py tests"
        return f"unexpected {option}: name a checkpoint or a run with --ckpt_path {option}; {others}"
    if option == "--model.seed":
        return ONE_SEED.format(option=option)
    known = [name for action in parser._actions for name in action.option_strings if name.startswith("--")]
    known = [name for name in known if not name.startswith("--print") and not name.endswith(("+", ".help"))]
    of_data = [f"--data.{name}" for kind in parser.datasets.values() for name in option_names(options_of(kind))]
    tails = {name.rpartition(".")[2].removeprefix("--"): name for name in [*of_data, *known]}
    word = option.rpartition(".")[2].removeprefix("--")
    near = nearest(word, tails)
    siblings = [name for name in known if name.rpartition(".")[0] == option.rpartition(".")[0]]
    lines = [f"unknown option {option}"]
    if near:
        lines.append(f"Nearest: {', '.join(tails[tail] for tail in near)}")
    if 0 < len(siblings) <= 32:
        lines.append(f"There are: {', '.join(siblings)}")
    return "\n".join(lines)


def nearest(word: str, words: Iterable[str]) -> list[str]:
    """Those that are spelled alike, at most three, the nearest first; without any, those that contain the word."""
    return get_close_matches(word, words := [*words]) or [other for other in words if word and word in other][:3]


def unknown_data_option(option: str, dataset: str, options: ArgumentParser) -> str:
    """Names the options of the data set."""
    if option == "--data.seed":
        return ONE_SEED.format(option=option)
    names = ", ".join(f"--data.{name}" for name in option_names(options))
    return f"unknown option {option}. --data {dataset} has: {names}"


def unknown_dataset(name: str, datasets: Mapping[str, type]) -> str:
    """Names the data sets, and the nearest of them and of what they have as their option `dataset`, in any case."""
    options = {kind.lower(): f"--data {kind}" for kind in datasets}
    for kind, dataset in datasets.items():
        if "dataset" in (parameters := signature(dataset).parameters):
            choices = get_args(parameters["dataset"].annotation)
            options |= {choice.lower(): f"--data {kind} --data.dataset {choice}" for choice in choices}
    near = "".join(f"\nNearest: {options[found]}" for found in nearest(name.lower(), options)[:1])
    return f"unknown data set {name!r}: choose one of {', '.join(datasets)}{OWN}{near}"


def option_names(options: ArgumentParser) -> list[str]:
    """The options of a data module that can be set, in their order."""
    return [action.dest for action in options._actions if action.dest not in ("help", "seed")]


def options_of(dataset: type) -> ArgumentParser:
    """The options of a data module."""
    parser = ArgumentParser()
    parser.add_class_arguments(dataset)
    return parser
