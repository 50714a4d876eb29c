"""Makes a command's standard input, output and error safe to use, even if they are closed when it starts."""

import contextlib
import io
import os
import sys

from nsr_jax.errors import UserError


def prepare() -> None:
    """Make the standard streams safe to use.

    A closed stream's number would be given to the next file that is opened, and messages would be written into that.
    It is given here to a device that cannot be read or written, so that using the stream is an error (a closed standard
    error stays silent). A character that a stream's encoding lacks is written as an escape.
    """
    for number, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # gets the lowest free number, which is this one
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, 'w', closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, 'w', closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a test may have put something else in its place
            stream.reconfigure(errors='backslashreplace')


def print_text(text: str) -> None:
    """Write to standard output and flush it.

    Raises:
        UserError: standard output is closed, nobody reads it any more, or its disk is full.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        raise UserError(f'standard output: cannot be written: {error.strerror}') from error


def flush() -> None:
    """Flush standard output and error as far as possible."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def write_last(line: str) -> None:
    """Write a line to standard error as its last one: what other threads still write there goes nowhere.

    Libraries report in threads of their own what failed there too, such as a save on a full disk, and would bury it.
    """
    own = os.dup(2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    with contextlib.suppress(OSError):  # closed, or nobody reads it any more
        os.write(own, line.encode(sys.stderr.encoding, errors='backslashreplace'))
