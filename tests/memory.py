"""Processes that must not fill the memory: what they hold is measured, however much their threads have reserved."""

import pathlib
import re
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[1]

_CODE = """
import {module}
from tests.memory import resident
before = resident('self', 'VmHWM')  # ru_maxrss would begin with what the parent held
{module}.{name}()
print('grown', resident('self', 'VmHWM') - before)
"""
_TOO_MUCH = 6 * 2**30  # of a process that fails its test anyway, and is ended before it takes the machine's memory


def resident(process, kind='VmRSS'):
    """Bytes in memory of a process: now, or at most so far ('VmHWM'); 0 of one that has ended."""
    try:
        status = pathlib.Path(f'/proc/{process}/status').read_text(encoding='utf-8')
    except ProcessLookupError:
        return 0
    found = re.search(rf'{kind}:\s+(\d+) kB', status)
    return int(found[1]) * 1024 if found else 0


def run_within(function, most):
    """The lines that a function of a test module prints in a process of its own, which may grow by so many bytes."""
    command = [sys.executable, '-c', _CODE.format(module=function.__module__, name=function.__name__)]
    with tempfile.TemporaryFile('w+', encoding='utf-8') as output, tempfile.TemporaryFile('w+') as errors:
        with subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=errors) as process:
            while process.poll() is None:
                if resident(process.pid) > _TOO_MUCH:
                    process.kill()
                time.sleep(0.02)
        output.seek(0)
        errors.seek(0)
        lines = output.read().splitlines()
        assert process.returncode == 0, f'{lines[-1:]} {errors.read()[-3000:]}'
    name, grown = lines.pop().split()
    assert (name, int(grown) <= most) == ('grown', True), f'by {int(grown) / 2**20:.0f} MiB'
    return lines
