"""Exceptions that do not mean a defect of the program, and their one-line messages."""

from collections.abc import Sequence

_MOST_LISTED = 10  # failures in one message


class UserError(ValueError):
    """A user's mistake: its message is one line that names the value and what would be accepted.

    Messages quote the names and contents of files, so line breaks and control characters are shown as escapes.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


def printable(text: str) -> str:
    """A text with escapes for all characters that are not printable or not UTF-8, as file names may have them."""
    return ''.join(each if each.isprintable() else each.encode('unicode_escape').decode() for each in text)


def first_of(names: Sequence[str], most: int = _MOST_LISTED) -> str:
    """The first names, and how many more there are."""
    more = len(names) - most
    return ', '.join(names[:most]) + (f' and {more} more' if more > 0 else '')


def listed(failures: Sequence[str], what: str) -> str:
    """One line for one or more failures: the only one, or their number, the first ten, and how many more there are.

    Args:
        failures: each says what has failed, and why.
        what: name of the failures, in the plural.
    """
    if len(failures) == 1:
        return failures[0]
    more = len(failures) - _MOST_LISTED
    return f'{len(failures)} {what}: {"; ".join(failures[:_MOST_LISTED])}' + (f'; and {more} more' if more > 0 else '')


class StoppedError(BaseException):
    """Stopped from outside with everything saved, so that the same command can resume. Its message is one line.

    A signal raises it wherever the process is, as Ctrl-C raises `KeyboardInterrupt`. So it is no `Exception`: code that
    takes any of these for a damaged file must not take it for one.
    """
