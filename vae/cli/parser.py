"""The command-line parser of the three scripts: a short help, and errors that name the choices."""

import re
import shlex
import sys
from argparse import SUPPRESS, Action, _HelpAction
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import DefaultHelpFormatter, Namespace
from pytorch_lightning import Trainer
from pytorch_lightning.cli import LightningArgumentParser

from vae.cli.messages import explain

NAMES = ("--ckpt_path", "--run_name", "--init_from")  # options whose value YAML must not read as none


class ConfigLoader(yaml.SafeLoader):
    """Reads YAML in which no key is there twice, and the options of a class are a mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[str] = set()
        for key, value in node.value:
            line = f"line {key.start_mark.line + 1}"
            if key.value in seen:
                raise ValueError(f"{line}: {key.value} is there twice")
            if key.value == "init_args" and not isinstance(value, yaml.MappingNode):
                raise ValueError(f"{line}: init_args: expected options with values, as in batch_size: 100")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def check_config(settings: Any) -> None:
    """See that a configuration file has options, and none that only the command line may have.

    Raises:
        ValueError: it is empty, or names code or further files.
    """
    if settings is None:
        raise ValueError("the file is empty; expected options, as in model: {latent_dim: 2}")
    for name in ("import", "config"):
        if isinstance(settings, dict) and name in settings:
            raise ValueError(f"{name}: only the command line can have it, --{name}")


class HelpFormatter(DefaultHelpFormatter):
    """Shows the choices of an option and its default, rather than names of types."""

    def add_argument(self, action: Action) -> None:
        if not getattr(action, "is_hidden", False):
            super().add_argument(action)

    def _get_default_metavar_for_optional(self, action: Action) -> str:
        return "VALUE"

    def _get_help_string(self, action: Action) -> str:
        text = action.help or ""
        if action.default in (None, SUPPRESS) or action.nargs == 0 or "(default: " in text:  # expanded before
            return text
        default = [*action.default] if isinstance(action.default, tuple) else action.default
        return f"{text} (default: {str(default).lower() if isinstance(default, bool) else default})"


class CommandLineParser(LightningArgumentParser):
    """A parser that answers a wrong command line with the error and the choices, not with its usage."""

    datasets: Mapping[str, type] = {}  # what --data takes
    refused: Mapping[str, str] = {}  # options of the Trainer that are not available, and why

    def __init__(self, *args, **kwargs):
        self.command = f"python3 {shlex.quote(sys.argv[0])}"
        usage = f"{self.command} [--OPTION VALUE ...]"
        super().__init__(*args, allow_abbrev=False, usage=usage, formatter_class=HelpFormatter, **kwargs)
        self.file: str | None = None  # the configuration file that is read

    def parse_args(self, args: Sequence[str] | None = None, *others: Any, **kwargs: Any) -> Namespace:
        args = [*map(str, sys.argv[1:] if args is None else args)]
        words = [word for arg in args for word in (arg.split("=", 1) if arg.startswith("--") else [arg])]
        for option, value in pairwise(("", *words)):
            if re.search(r"[\ud800-\udfff]", value):  # YAML, in which values are read and kept, has no such text
                self.error(f"{value!a} is no UTF-8: rename that file or folder, or name a link to it")
            if not value or (option in NAMES and (value[0] == "#" or value.lower() in ("null", "~"))):
                self.error(f"{option}: expected a value, got {value or 'none'}: is a variable empty?")
        return super().parse_args(args, *others, **kwargs)

    def parse_path(self, path: Any, **kwargs) -> Namespace:
        self.file = str(path)
        try:
            check_config(yaml.load(Path(path).read_text(), ConfigLoader))
            config = super().parse_path(path, **kwargs)
            self.validate(config, skip_required=True)
            for link in self._links_group._group_actions:
                if link.dest in config:
                    link()  # raises TypeError: its value comes from another option
        except (
            yaml.YAMLError,
            KeyError,
            TypeError,
            ValueError,
        ) as error:  # also unknown options, wrong values, no text
            self.error(str(error))
        self.file = None
        return config

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # a parser inside this one, for the options of a class
            super().error(message, ex)
        message = self.explain(message)
        where = f"{self.file}: " if self.file else ""
        listed = "--trainer.help" if "--trainer." in message else "--help"
        print(f"error: {where}{message}\nAll options: {self.command} {listed}", file=sys.stderr)
        sys.exit(2)

    def explain(self, message: str) -> str:
        """The parser's message in the words of the command line."""
        return explain(message, self)


class TrainerHelp(_HelpAction):
    """`--trainer.help`: prints the Trainer's options, which `--help` leaves out."""

    def __call__(self, parser: CommandLineParser, *_: Any) -> NoReturn:
        blocks = "Options that count training batches count blocks of --data.steps_per_block steps."
        options = CommandLineParser(description=f"Options of Lightning's Trainer. {blocks}")
        options.add_class_arguments(Trainer, "trainer", fail_untyped=False, skip={*parser.refused})
        options.print_help()
        sys.exit(0)
