"""Standard streams that are closed, broken or know few characters."""

import io
import json
import os
import pathlib
import subprocess
import sys

import pytest

from nsr_jax import streams
from nsr_jax.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]

COMMAND = """
import json, os, pathlib, signal, sys
from nsr_jax import command_line, streams
from nsr_jax.errors import UserError
from nsr_jax.restoring.restore_files import _read

def main(argv):
    if argv[1] == 'interrupted':
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()
    numbers = [os.open(argv[1], os.O_RDWR | os.O_CREAT)]
    said = []
    for use in (lambda: streams.print_text('text'), lambda: _read(None, 100)):
        try:
            use()
        except UserError as error:
            said.append(str(error))
    sys.stderr.write('nobody hears it')
    pathlib.Path(argv[1]).write_text(json.dumps([*numbers, *said]))
    raise UserError('nor this')

command_line.run(main)
"""


def start(argument, **options):
    environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'JAX_COMPILATION_CACHE_DIR': '', 'PYTHONPATH': str(ROOT)}
    return subprocess.Popen([sys.executable, '-c', COMMAND, str(argument)], env=environment, **options)


def test_closed_streams_and_ctrl_c(tmp_path):
    """A file never gets the number of a standard stream; Ctrl-C is one line and exit code 130."""
    interrupted = start('interrupted', stderr=subprocess.PIPE, text=True)
    closed = start(tmp_path / 'file', preexec_fn=lambda: [os.close(number) for number in range(3)])
    _, error = interrupted.communicate(timeout=300)
    assert (interrupted.returncode, error.splitlines()[-1]) == (130, 'stopped: by Ctrl-C')
    assert 'Traceback' not in error
    assert closed.wait(timeout=300) == 2
    number, *said = json.loads((tmp_path / 'file').read_text())
    assert number > 2
    assert said == [
        'standard output: cannot be written: Bad file descriptor',
        'standard input: cannot be read: Bad file descriptor',
    ]


def test_output_that_nobody_reads(monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, 'wb', buffering=0) as pipe:
        monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(io.BufferedWriter(pipe), write_through=True))
        with pytest.raises(UserError, match=r'^standard output: cannot be written: Broken pipe$'):
            streams.print_text('text')
        monkeypatch.undo()


def test_a_character_that_an_encoding_does_not_have_becomes_an_escape(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(written, 'ascii'))
    streams.prepare()
    streams.print_text('37.1 dB × Größe\udcff\n')
    assert written.getvalue() == b'37.1 dB \\xd7 Gr\\xf6\\xdfe\\udcff\n'


BURYING = """
import os, sys, threading, time
from nsr_jax import streams

def write_on():
    while True:
        print('in a thread of its own', file=sys.stderr, flush=True)

threading.Thread(target=write_on, daemon=True).start()
time.sleep(0.1)
streams.write_last('what the user should read\\n')
time.sleep(0.1)
os._exit(0)
"""


def test_the_last_line_is_the_last_though_another_thread_still_writes():
    command = [sys.executable, '-c', BURYING]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=True)
    assert done.stderr.splitlines()[-1].endswith('what the user should read')
