"""The one exception that means: the user can mend this."""


class UserError(ValueError):
    """A mistake in what was asked for: its message is one line that names the value and what would be accepted."""
