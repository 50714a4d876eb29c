"""The exceptions that mean: nothing is wrong with the program."""


class UserError(ValueError):
    """A mistake in what was asked for: its message is one line that names the value and what would be accepted."""


class StoppedError(Exception):
    """Stopped from outside with everything saved: the same command goes on from there. Its message is one line."""
