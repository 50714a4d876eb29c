"""Commands in processes of their own, which a process forks that has imported what they need: imports take seconds.

    python -m tests.forks MODULE…

A line in, a JSON list of a program (a script, or a module's name) and its arguments, gives a JSON object out.
"""

import contextlib
import importlib
import json
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]


class Ended(NamedTuple):
    """The exit code of a command and what stood on standard error and standard output."""

    code: int
    error: str
    output: str


@contextlib.contextmanager
def forking(*modules, cwd=ROOT, environment=None):
    """A function from a program and its arguments to how it ended; `modules` are imported once, before the first."""
    command = [sys.executable, '-m', 'tests.forks', *modules]
    environment = (os.environ if environment is None else environment) | {'PYTHONPATH': str(ROOT)}
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE}
    with subprocess.Popen(command, cwd=cwd, env=environment, text=True, **pipes) as process:

        def run(program, *arguments):
            process.stdin.write(json.dumps([program, *map(str, arguments)]) + '\n')
            process.stdin.flush()
            return Ended(**json.loads(process.stdout.readline()))

        yield run
        process.stdin.close()


def become(program, arguments, output, error):
    """Turn this process into a command whose standard streams are files."""
    with open(os.devnull, encoding='utf-8') as nothing:
        for file, number in ((nothing, 0), (output, 1), (error, 2)):
            os.dup2(file.fileno(), number)
    sys.argv = [program, *arguments]
    if program.endswith('.py'):
        runpy.run_path(os.path.abspath(program), run_name='__main__')  # as Python names it itself
    else:
        runpy.run_module(program, run_name='__main__', alter_sys=True)


def answer(line):
    """Run a command line in a fork, to its end."""
    program, *arguments = json.loads(line)
    with (
        tempfile.TemporaryFile('w+', encoding='utf-8') as output,
        tempfile.TemporaryFile('w+', encoding='utf-8') as error,
    ):
        child = os.fork()
        if not child:
            become(program, arguments, output, error)
            sys.exit()  # past the loop that reads lines
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        error.seek(0)
        return {'code': code, 'error': error.read(), 'output': output.read()}


if __name__ == '__main__':
    for name in sys.argv[1:]:
        importlib.import_module(name)
    for each in sys.stdin:
        sys.stdout.write(json.dumps(answer(each)) + '\n')
        sys.stdout.flush()
