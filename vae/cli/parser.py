"""A command-line parser whose errors say what is wrong and what there is."""

import re
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from typing import NoReturn

from jsonargparse import ArgumentParser
from pytorch_lightning.cli import LightningArgumentParser


class CommandLineParser(LightningArgumentParser):
    """A parser that answers a wrong command line with what is wrong and what there is, not with its usage."""

    datasets: Mapping[str, type] = {}

    def __init__(self, *args, **kwargs):
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # a parser inside this one, for the options of a data set
            super().error(message, ex)
        print(f"error: {self.explain(message)}\nAll options: python3 {self.prog} --help", file=sys.stderr)
        sys.exit(2)

    def explain(self, message: str) -> str:
        """The parser's message in the words of the command line."""
        if found := re.match(r"unrecognized arguments: (\S+)", message):
            return self.unknown_option(found[1].partition("=")[0])
        if found := re.search(r"given class_path '(?:.*\.)?(\w+)':\s+(.*?)\n +- ", message, re.DOTALL):
            name, problem = found.groups()
            if option := re.match(r"Option '(.*)' is not accepted", problem):
                options = ", ".join(options_of(self.datasets[name]))
                return f"unknown option --data.{option[1]}. --data {name} has: {options}"
            message = problem.replace('Parser key "', 'Parser key "data.')
        elif message.startswith('Parser key "data":') and (found := re.search(r"Given value: (.*)", message)):
            return f"unknown data set {found[1]!r}: choose one of {', '.join(self.datasets)}"
        if found := re.match(r'Parser key "(.*?)":.*Subtypes: \[(.*?)\]\n.*Given value: (.*)', message, re.DOTALL):
            message = f"{found[1]}: expected {found[2].replace(', ', ' or ', 1)}, got {found[3]}"
        elif found := re.search(r"Errors:\n +- (.*?)\n +- ", message, re.DOTALL):
            message = found[1]
        message = re.sub(r"Expected a typing\.Literal\[(.*?)\]", r"expected one of \1", message)
        return re.sub(r"<class '(\w+)'>", r"\1", re.sub(r'^Parser key "(.*?)":\s*', r"\1: ", message))

    def unknown_option(self, option: str) -> str:
        """Names the nearest options of all, and the group's."""
        known = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
        known = [name for name in known if not name.startswith("--print") and not name.endswith("+")]
        tails = {name.rpartition(".")[2].removeprefix("--"): name for name in known}
        near = get_close_matches(option.rpartition(".")[2].removeprefix("--"), tails, n=3)
        siblings = [name for name in known if name.rpartition(".")[0] == option.rpartition(".")[0]]
        lines = [f"unknown option {option}"]
        if near:
            lines.append(f"Nearest: {', '.join(tails[tail] for tail in near)}")
        if len(siblings) <= 32:
            lines.append(f"There are: {', '.join(siblings)}")
        return "\n".join(lines)


def options_of(dataset: type) -> list[str]:
    """The options of a data module, as they are typed."""
    names = ArgumentParser().add_class_arguments(dataset)
    return [f"--data.{name}" for name in names if name != "seed"]
