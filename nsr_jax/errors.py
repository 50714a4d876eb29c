"""The exceptions that mean: nothing is wrong with the program; and the lines that they say."""

from collections.abc import Sequence

_MOST_LISTED = 10  # failures in one line


class UserError(ValueError):
    """A mistake in what was asked for: its message is one line that names the value and what would be accepted.

    Characters that would break the line, or that a terminal would obey, are shown as escapes: messages name files, and
    quote what is in them.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


def printable(text: str) -> str:
    """A text, such as the name of a file, with escapes for all that is no character of a line, so that it is UTF-8."""
    return ''.join(each if each.isprintable() else each.encode('unicode_escape').decode() for each in text)


def listed(failures: Sequence[str], what: str) -> str:
    """One line of one failure or more: that itself; or how many, the first of them and how many more there are.

    Args:
        failures: each names what has failed, and says why.
        what: they are, in the plural.
    """
    if len(failures) == 1:
        return failures[0]
    more = len(failures) - _MOST_LISTED
    return f'{len(failures)} {what}: {"; ".join(failures[:_MOST_LISTED])}' + (f'; and {more} more' if more > 0 else '')


class StoppedError(Exception):
    """Stopped from outside with everything saved: the same command goes on from there. Its message is one line."""
