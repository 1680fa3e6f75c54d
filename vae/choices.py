"""Options that are chosen by name from a table: an unknown name is answered with the known ones."""

from collections.abc import Mapping, MutableMapping
from typing import Any


class UnknownName(ValueError):
    """A name that is not in its table."""


def choose(kind: str, name: str, table: Mapping[str, Any]) -> Any:
    """The entry of that name.

    Raises:
        UnknownName: there is none; the message lists those that are there.
    """
    if name not in table:
        raise UnknownName(f"unknown {kind} {name!r}: choose one of {', '.join(sorted(table))}")
    return table[name]


def register(kind: str, name: str, entry: Any, table: MutableMapping[str, Any]) -> None:
    """Add an entry to a table.

    Raises:
        ValueError: the table has an entry of that name.
    """
    if name in table:
        raise ValueError(f"the {kind} {name!r} exists already: choose another name")
    table[name] = entry
