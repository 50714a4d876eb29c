"""Standard input, output and error of a command, whatever state they are in when it starts."""

import contextlib
import io
import os
import sys

from nsr_jax.errors import UserError


def prepare() -> None:
    """Make the standard streams safe to use; of those that are closed, standard error then says nothing.

    The number of a closed stream would be given to the next file that is opened, and messages would be written into it.
    Here it goes to a device that cannot be read or written, so that whoever uses the stream gets an error. A character
    that a stream's encoding does not have becomes an escape.
    """
    for number, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # gets the lowest number that is free, which is this one
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, 'w', closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, 'w', closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a program or a test has put in its place need not be one
            stream.reconfigure(errors='backslashreplace')


def print_text(text: str) -> None:
    """Write to standard output, at once.

    Raises:
        UserError: it cannot be written: nobody reads it any more, its disk is full, or it is closed.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        raise UserError(f'standard output: cannot be written: {error.strerror}') from error


def flush() -> None:
    """Write what is left of standard output and error, where they still can be written."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
