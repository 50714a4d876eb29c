"""Commands in processes of their own, which a process forks that has imported what they need: imports take seconds.

    python -m tests.forks MODULE…

A line in, a JSON object with a program (a script, or a module's name), its arguments, its folder and its standard input
in base64, gives a JSON object out.
"""

import base64
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
    output: bytes


@contextlib.contextmanager
def forking(*modules, environment=None):
    """A function from a program and its arguments to how it ended; `modules` are imported once, before the first.

    The function also takes the folder in which the program is run, and the bytes of its standard input.
    """
    command = [sys.executable, '-m', 'tests.forks', *modules]
    environment = (os.environ if environment is None else environment) | {'PYTHONPATH': str(ROOT)}
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes) as process:

        def run(program, *arguments, folder=ROOT, given=b''):
            asked = {'command': [program, *map(str, arguments)], 'folder': str(folder)}
            process.stdin.write(json.dumps(asked | {'given': base64.b64encode(given).decode()}) + '\n')
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            return Ended(answer['code'], answer['error'], base64.b64decode(answer['output']))

        yield run
        process.stdin.close()


def become(command, folder, streams):
    """Turn this process into a command whose standard streams are files."""
    for number, file in enumerate(streams):
        os.dup2(file.fileno(), number)
    os.chdir(folder)
    program, *sys.argv[1:] = command
    sys.argv[0] = program
    if program.endswith('.py'):
        runpy.run_path(os.path.abspath(program), run_name='__main__')  # as Python names it itself
    else:
        runpy.run_module(program, run_name='__main__', alter_sys=True)


def answer(line):
    """Run a command in a fork, to its end."""
    asked = json.loads(line)
    with contextlib.ExitStack() as stack:
        streams = given, output, error = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
        given.write(base64.b64decode(asked['given']))
        given.seek(0)
        child = os.fork()
        if not child:
            become(asked['command'], asked['folder'], streams)
            sys.exit()  # past the loop that reads lines
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        error.seek(0)
        return {'code': code, 'error': error.read().decode(), 'output': base64.b64encode(output.read()).decode()}


if __name__ == '__main__':
    for name in sys.argv[1:]:
        importlib.import_module(name)
    for each in sys.stdin:
        sys.stdout.write(json.dumps(answer(each)) + '\n')
        sys.stdout.flush()
