"""The exceptions that mean: nothing is wrong with the program."""


class UserError(ValueError):
    """A mistake in what was asked for: its message is one line that names the value and what would be accepted.

    Characters that would break the line, or that a terminal would obey, are shown as escapes: messages name files, and
    quote what is in them.
    """

    def __str__(self) -> str:
        text = super().__str__()
        return ''.join(each if each.isprintable() else each.encode('unicode_escape').decode() for each in text)


class StoppedError(Exception):
    """Stopped from outside with everything saved: the same command goes on from there. Its message is one line."""
