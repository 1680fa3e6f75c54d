"""The error and the warning of all data sets; names of files that are no UTF-8 are escaped in them."""


class DataError(Exception):
    """Data that is missing or invalid; the message says what was expected and what to do."""

    def __init__(self, message: str):
        super().__init__(as_utf8(message))


class DataWarning(UserWarning):
    """Data that is used otherwise than one may expect; the message says in what."""

    def __init__(self, message: str):
        super().__init__(as_utf8(message))


def as_utf8(name: str) -> str:
    """A file's name, or a text with it, where bytes that are no UTF-8 are escaped: logs and pipes take no others."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")
