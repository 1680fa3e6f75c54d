"""The error and the warning of all data sets."""


class DataError(Exception):
    """Data that is missing or invalid; the message says what was expected and what to do."""


class DataWarning(UserWarning):
    """Data that is used otherwise than one may expect; the message says in what."""
