"""`--import`: modules of the user, which register their own parts. Only the command line names them, never a file."""

import sys
from argparse import SUPPRESS, Action, ArgumentError, ArgumentParser
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from traceback import extract_tb
from typing import Any

from vae.runs import RunError

HELP = "Import a module or .py file of your own, which registers its parts; may be repeated. See docs/own-parts.md."


class ImportOption(Action):
    """`--import` in a parser: listed in its help, and without effect, since `import_parts` came before."""

    def __init__(self, option_strings: list[str], dest: str, **options: Any):
        super().__init__(option_strings, SUPPRESS, default=SUPPRESS, metavar="MODULE", help=HELP)

    def __call__(self, *_: Any) -> None:
        pass


def import_parts() -> list[str]:
    """Import the modules that `--import` names on the command line: before the parser, which lists what they register.

    Returns:
        Their names.

    Raises:
        RunError: there is no such module, or an exception in it; the message says at which line.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--import", action="append", default=[], dest="modules")
    try:
        modules = parser.parse_known_args()[0].modules
    except ArgumentError:
        raise RunError("--import: expected a module or a .py file") from None
    for name in modules:
        try:
            import_file(Path(name)) if name.endswith(".py") else import_module(name)
        except (Exception, SystemExit) as error:
            frames = [frame for frame in extract_tb(error.__traceback__)[1:] if is_own(frame.filename)]
            lines = {frame.filename: frame.lineno for frame in frames}  # of each file the innermost one
            where = "".join(f"{file}, line {line}: " for file, line in [*lines.items()][:1])
            kind = f"{type(error).__name__}: " if lines or isinstance(error, SyntaxError) else ""
            missing = isinstance(error, ModuleNotFoundError) and not lines
            hint = "; expected a .py file, or a module on PYTHONPATH" if missing else ""
            raise RunError(f"--import {name}: {where}{kind}{error}{hint}") from error
    return modules


def is_own(filename: str) -> bool:
    """Whether a frame of a traceback is neither of this file nor of Python's import."""
    return filename != __file__ and "importlib" not in Path(filename).parts and "<frozen importlib" not in filename


def import_file(path: Path) -> None:
    """Import a file as the module of its name.

    Raises:
        ImportError: there is no such file, or another module of that name.
    """
    path = path.resolve()
    if not path.is_file():
        raise ImportError("there is no such file")
    found = find_spec(path.stem)
    if found and found.origin != str(path):
        raise ImportError(f"there is another module {path.stem}, {found.origin}: rename the file")
    if path.stem not in sys.modules:
        spec = spec_from_file_location(path.stem, path)
        assert spec and spec.loader  # since it ends in .py
        module = sys.modules[path.stem] = module_from_spec(spec)
        spec.loader.exec_module(module)
