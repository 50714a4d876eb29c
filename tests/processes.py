"""Jobs of several real processes on this machine's CPU, which find each other over the loopback address."""

import concurrent.futures
import contextlib
import json
import pathlib
import random
import socket
import subprocess
import sys
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).parents[1]
SLURM_PORT = 2**16 - 2**12  # a job of number n uses this port + n, modulo 2**12

CODE = """
import json, sys
import jax
address, count, index, devices, module, name, arguments = sys.argv[1:]
jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', int(devices))
if int(count) > 1:
    jax.distributed.initialize(address, int(count), int(index))
function = getattr(__import__(module, fromlist=[name]), name)
print(json.dumps(function(*json.loads(arguments))))
"""


class Answer(NamedTuple):
    """What a function returned in one process, as JSON has it, and what stood on standard error."""

    value: Any
    stderr: str


def free_port():
    """A free one that no outgoing connection takes meanwhile, as it may take one that the system itself gives."""
    for port in random.sample(range(SLURM_PORT, 2**16), 100):
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(('127.0.0.1', port))
            return port
    raise OSError('no free port')


def run_together(function, count, *arguments, devices=1):
    """Call a function of a test module in each of `count` new processes of one job, with `devices` devices each."""
    address = f'127.0.0.1:{free_port()}'
    called = [str(devices), function.__module__, function.__name__, json.dumps(arguments)]

    def start(index):
        command = [sys.executable, '-c', CODE, address, str(count), str(index), *called]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)

    with concurrent.futures.ThreadPoolExecutor(count) as threads:
        ended = list(threads.map(start, range(count)))
    for process in ended:
        assert process.returncode == 0, '\n\n'.join(each.stderr[-3000:] for each in ended)
    return [Answer(json.loads(process.stdout.splitlines()[-1]), process.stderr) for process in ended]
