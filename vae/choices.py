"""Options: chosen by name from a table, where an unknown name is answered with the known ones; or numbers in bounds."""

from collections.abc import Callable, Mapping, MutableMapping
from inspect import signature
from numbers import Integral, Real
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


def is_whole(value: Any, least: int = 1) -> bool:
    """Whether a value is a whole number, and at least that; a truth value is none."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def takes(kind: Callable, option: str) -> bool:
    """Whether a class or function has an argument of that name."""
    return option in signature(kind).parameters


def check_whole(name: str, value: Any, least: int = 1) -> None:
    """See that an option is a whole number.

    Raises:
        ValueError: it is something else, or below `least`.
    """
    if not is_whole(value, least):
        raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}")


def check_number(name: str, value: Any, positive: bool = True) -> None:
    """See that an option is a number.

    Raises:
        ValueError: it is something else, a truth value, or below 0, or 0 where it must be `positive`.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not (float(value) > 0 if positive else float(value) >= 0):
        raise ValueError(f"{name}: expected {'a number above 0' if positive else '0 or more'}, got {value!r}")
