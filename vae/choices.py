"""Options that are chosen by name: an unknown name is answered with the known ones."""

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
