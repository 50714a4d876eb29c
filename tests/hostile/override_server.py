"""Checks train.py's command lines one after another: a JSON list of arguments a line in, a JSON object a line out.

    python -m tests.hostile.override_server WORKDIR

Each is parsed and checked as the command does it, up to the point where work would begin.
"""

import contextlib
import io
import json
import sys
import traceback

from absl import flags

import train
from nsr_jax import command_line
from nsr_jax.errors import UserError
from nsr_jax.training.run import check_run


def answer(arguments, workdir):
    """Exit code, standard error, and the traceback of what was not foreseen."""
    for name in [name for name in flags.FLAGS if name.startswith('config.')]:
        delattr(flags.FLAGS, name)  # what the last one has overridden
    flags.FLAGS.unparse_flags()
    for name in ('config', 'workdir'):
        flags.FLAGS[name].unparse()
    sys.argv = ['train.py', f'--workdir={workdir}', *arguments]
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            try:
                command_line.parse_flags(list(sys.argv))
                command_line.check_config(train.base.check, flags.FLAGS.config)
                check_run(flags.FLAGS.config, workdir)
                train.open_validation(flags.FLAGS.config)
                code = 0
            except UserError as error:
                code = 2
                sys.stderr.write(f'error: {error}\n')
            except SystemExit as error:
                code = error.code
    except Exception:  # any is a failure of the test, which shows this traceback
        return {'code': 1, 'error': errors.getvalue(), 'traceback': traceback.format_exc()}
    return {'code': code, 'error': errors.getvalue(), 'traceback': ''}


if __name__ == '__main__':
    folder = sys.argv[1]
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(json.loads(line), folder)) + '\n')
        sys.stdout.flush()
