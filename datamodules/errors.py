"""The error that all data sets raise."""


class DataError(Exception):
    """Data that is missing or invalid; the message says what was expected and what to do."""
