"""How every command of the project starts and how it fails."""

import logging as standard_logging
import pathlib
import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging
from ml_collections import config_flags

import nsr_jax
from nsr_jax.errors import UserError

EXIT_USER_ERROR = 2


def run(main: Callable[[Sequence[str]], int | None]) -> None:
    """Parse absl flags and call `main(argv)`; its return value is the exit code (`None` is 0).

    A `UserError`, a wrong flag or a wrong config is printed as one line on standard error, without a traceback, and
    ends the process with exit code 2. Any other exception is a defect and keeps its traceback.
    """

    def guarded(argv: Sequence[str]) -> int | None:
        logging.set_verbosity(logging.INFO)
        logging.get_absl_handler().addFilter(_is_worth_reading)
        try:
            return main(argv)
        except UserError as error:
            return _report(error)

    app.run(guarded, flags_parser=_parse_flags)


def _parse_flags(argv: Sequence[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
        if 'config' in flags.FLAGS:
            _check_config_file()
        return rest
    except UserError as error:
        sys.exit(_report(error))
    except AttributeError as error:  # an override of a field that the config does not have
        sys.exit(_report(f'--config has no such field: {" ".join(str(error.args[0].args[0]).split())}'))
    except flags.Error as error:
        sys.exit(_report(_origin(error) if 'Error whilst parsing config file' in str(error) else error))


def _check_config_file() -> None:
    """ml_collections puts the error of a missing file off until the config is read."""
    try:
        flags.FLAGS.config.lock()
    except OSError as error:
        path = config_flags.get_config_filename(flags.FLAGS['config'])
        raise UserError(f'--config={path}: no such file; the configs of the project are in configs/') from error


def _origin(error: BaseException) -> BaseException:
    """What went wrong first, before libraries wrapped it in text of their own."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def _report(error: BaseException | str) -> int:
    sys.stderr.write(f'error: {error}\n')
    return EXIT_USER_ERROR


def _is_worth_reading(record: standard_logging.LogRecord) -> bool:
    """Warnings of everyone, and what this project itself has to say: libraries report each of their steps."""
    package = pathlib.Path(nsr_jax.__file__).parent
    source = pathlib.Path(record.pathname)
    return record.levelno >= standard_logging.WARNING or package in source.parents or source.parent == package.parent
