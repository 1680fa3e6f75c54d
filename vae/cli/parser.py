"""The command-line parser of the three scripts: a short help, and errors that name the choices."""

import re
import shlex
import sys
from argparse import SUPPRESS, Action, _HelpAction
from collections.abc import Mapping
from typing import Any, NoReturn

from jsonargparse import DefaultHelpFormatter, Namespace
from pytorch_lightning import Trainer
from pytorch_lightning.cli import LightningArgumentParser

from vae.cli.messages import explain


class HelpFormatter(DefaultHelpFormatter):
    """Shows the choices of an option and its default, rather than names of types."""

    def add_argument(self, action: Action) -> None:
        if not getattr(action, "is_hidden", False):
            super().add_argument(action)

    def _get_default_metavar_for_optional(self, action: Action) -> str:
        return "VALUE"

    def _get_help_string(self, action: Action) -> str:
        if action.default in (None, SUPPRESS) or action.nargs == 0:
            return action.help or ""
        default = [*action.default] if isinstance(action.default, tuple) else action.default
        return f"{action.help} (default: {str(default).lower() if isinstance(default, bool) else default})"


class CommandLineParser(LightningArgumentParser):
    """A parser that answers a wrong command line with the error and the choices, not with its usage."""

    datasets: Mapping[str, type] = {}  # what --data takes
    refused: Mapping[str, str] = {}  # options of the Trainer that are not available, and why

    def __init__(self, *args, **kwargs):
        self.command = f"python3 {shlex.quote(sys.argv[0])}"
        usage = f"{self.command} [--OPTION VALUE ...]"
        super().__init__(*args, allow_abbrev=False, usage=usage, formatter_class=HelpFormatter, **kwargs)
        self.file: str | None = None  # the configuration file that is read

    def parse_args(self, args: Any = None, *others: Any, **options: Any) -> Namespace:
        for argument in sys.argv[1:] if args is None else args:
            if re.search(
                r"[\ud800-\udfff]", str(argument)
            ):  # YAML, in which values are read and kept, has no such text
                self.error(f"{str(argument)!a} is no UTF-8: rename that file or folder, or name a link to it")
        return super().parse_args(args, *others, **options)

    def parse_path(self, path: Any, **kwargs) -> Namespace:
        self.file = str(path)
        try:
            config = super().parse_path(path, **kwargs)
            self.validate(config, skip_required=True)
            for link in self._links_group._group_actions:
                if link.dest in config:
                    link()  # raises TypeError: its value comes from another option
        except (KeyError, TypeError, ValueError) as error:  # unknown options, wrong values, a file that is no text
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
