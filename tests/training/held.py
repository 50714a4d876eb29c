"""Run train.py, and hold or kill it at a moment that a test chooses, however fast or slow the machine is.

    python -m tests.training.held JSON --config=… --workdir=…

JSON: {"hold": [STEP, FOLDER]}         at the first log of STEP or later, make FOLDER/held and wait for FOLDER/go
      {"kill": [NUMBER, SECONDS]}      SECONDS after the workdir was touched for the NUMBERth time, kill the process
"""

import json
import os
import pathlib
import runpy
import signal
import sys
import time

from nsr_jax.training import loop

_TOUCHES = {'open', 'os.mkdir', 'os.remove', 'os.rename', 'os.rmdir', 'os.scandir', 'os.truncate'}


def hold(step, folder):
    """Hold the process between two steps, in the thread that receives signals."""
    folder, write = pathlib.Path(folder), loop.MetricsWriter.write

    def write_and_wait(self, at, **numbers):
        write(self, at, **numbers)
        if at >= step:
            (folder / 'held').touch()
            while not (folder / 'go').exists():
                time.sleep(0.01)

    loop.MetricsWriter.write = write_and_wait


def kill(number, seconds):
    """Kill the process early or late, possibly during a checkpoint: other threads write while this one sleeps."""
    (workdir,) = (each.removeprefix('--workdir=') for each in sys.argv if each.startswith('--workdir='))
    left = [None] * number

    def count(event, arguments):
        if event in _TOUCHES and left and isinstance(arguments[0], str) and arguments[0].startswith(f'{workdir}/'):
            left.pop()
            if not left:
                time.sleep(seconds)
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


if __name__ == '__main__':
    for name, arguments in json.loads(sys.argv.pop(1)).items():
        {'hold': hold, 'kill': kill}[name](*arguments)
    runpy.run_path('train.py', run_name='__main__')
