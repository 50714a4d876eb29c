"""How every command of the project starts and how it fails."""

import logging as standard_logging
import pathlib
import sys
from collections.abc import Callable, Sequence

from absl import app, logging

import nsr_jax
from nsr_jax.errors import UserError

EXIT_USER_ERROR = 2


def run(main: Callable[[Sequence[str]], int | None]) -> None:
    """Parse absl flags and call `main(argv)`; its return value is the exit code (`None` is 0).

    A `UserError` is printed as one line on standard error, without a traceback, and ends the process with
    exit code 2. Any other exception is a defect and keeps its traceback.
    """

    def guarded(argv: Sequence[str]) -> int | None:
        logging.set_verbosity(logging.INFO)
        logging.get_absl_handler().addFilter(_is_worth_reading)
        try:
            return main(argv)
        except UserError as error:
            sys.stderr.write(f'error: {error}\n')
            return EXIT_USER_ERROR

    app.run(guarded)


def _is_worth_reading(record: standard_logging.LogRecord) -> bool:
    """Warnings of everyone, and what this project itself has to say: libraries report each of their steps."""
    package = pathlib.Path(nsr_jax.__file__).parent
    source = pathlib.Path(record.pathname)
    return record.levelno >= standard_logging.WARNING or package in source.parents or source.parent == package.parent
