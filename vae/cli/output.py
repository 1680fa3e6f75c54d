"""Standard output: it may fail, and ends no work by it; tables are as wide as they are where nobody looks at them."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import TextIOWrapper

from rich.console import Console
from rich.table import Table

MAX_WIDTH = 10_000  # of a table in a file or a pipe


class Output(TextIOWrapper):
    """A stream of which a reader or terminal may go, or the disk be full: the rest of the text is then lost."""

    failure: OSError | None = None

    def write(self, text: str) -> int:
        with self.remembered():
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with self.remembered():
            super().flush()

    @contextmanager
    def remembered(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failure = self.failure or type(error)(error.errno, error.strerror, "standard output")
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())  # what is buffered would fail again, at the exit


@contextmanager
def own_output() -> Iterator[None]:
    """Standard output while a command works: texts that are no UTF-8 are escaped, as in stderr.

    Raises:
        OSError: at the end of the work, if some of it could not be written.
    """
    stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")  # >&- starts a command without one
    if not isinstance(stdout, TextIOWrapper):  # a notebook's
        yield
        return
    as_before = (stdout.line_buffering, stdout.write_through)
    output = Output(stdout.buffer, stdout.encoding, "backslashreplace", None, *as_before)
    try:
        with redirect_stdout(output):
            yield
    finally:
        output.detach()
    if output.failure:
        raise output.failure


def print_table(table: Table) -> None:
    """Print a table: what a pipe or a file gets is searched and parsed, so nothing in it is wrapped."""
    Console(width=None if sys.stdout.isatty() else MAX_WIDTH, markup=False).print(table)
