"""Names for things that are chosen by name: an unknown name is answered with the known ones."""

from collections.abc import Mapping
from typing import Any


def choose(kind: str, name: str, table: Mapping[str, Any]) -> Any:
    """The entry of that name.

    Raises:
        ValueError: there is none; the message lists those that are there.
    """
    if name not in table:
        raise ValueError(f"unknown {kind} {name!r}: choose one of {', '.join(sorted(table))}")
    return table[name]


class Registry(dict):
    """A dictionary that says what it holds when it is asked for something else.

    Args:
        kind: what the entries are, as the error names it ("likelihood").
        entries: the entries by name.

    Raises:
        ValueError: on look-up of a name that is not there; the message lists those that are.
    """

    def __init__(self, kind: str, entries: dict):
        super().__init__(entries)
        self.kind = kind

    def __missing__(self, name):
        return choose(self.kind, name, self)
