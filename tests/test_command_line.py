"""What every command does before its own work: real processes that share a compilation cache."""

import functools
import json
import os
import pathlib
import socket
import stat
import subprocess
import sys

import pytest
from absl import flags

from nsr_jax import command_line
from nsr_jax.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]

COMMAND = """
import json
import jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from nsr_jax import command_line
from nsr_jax.ops.conv import sample_conv

events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event.rpartition('/')[-1]))

def main(argv):
    mesh = jax.make_mesh((2,), ('data',), axis_types=(AxisType.Auto,))
    over_batch = NamedSharding(mesh, PartitionSpec('data'))
    x, kernels = (jax.device_put(jnp.arange(n) / n, over_batch).reshape(4, 3, 3, -1) for n in (72.0, 144.0))
    convolve = jax.jit(lambda x, kernels: sample_conv(x, kernels.reshape(4, 3, 3, 2, 2), jnp.zeros((4, 2))))
    result = convolve(x, kernels).tolist()
    print(json.dumps([events.count('cache_hits'), result]))

command_line.run(main)
"""


def start(**environment):
    """The command in a process of its own; JAX keeps every program, however fast it was compiled."""
    kept = {name: value for name, value in os.environ.items() if name not in ('JAX_COMPILATION_CACHE_DIR', 'XLA_FLAGS')}
    kept |= {'JAX_PLATFORMS': 'cpu', 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0', 'PYTHONPATH': str(ROOT)}
    kept['XLA_FLAGS'] = '--xla_force_host_platform_device_count=2'
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE}
    return subprocess.Popen([sys.executable, '-c', COMMAND], env=kept | environment, text=True, **pipes)


def finish(process):
    """How many programs came from the cache, the result, and the lines on standard error."""
    output, error = process.communicate(timeout=900)
    assert process.returncode == 0, error
    return *json.loads(output), error.splitlines()


@pytest.fixture(scope='module')
def answers(tmp_path_factory):
    """One command that fills a cache; then others, side by side, each with its own place for it."""
    folder = tmp_path_factory.mktemp('command')
    (folder / 'file').write_text('')
    places = {
        'asked for': {'JAX_COMPILATION_CACHE_DIR': str(folder / 'caches/nsr_jax/compilation')},
        'off': {'JAX_COMPILATION_CACHE_DIR': ''},
        'not writable': {'JAX_COMPILATION_CACHE_DIR': str(folder / 'file/cache')},
    }
    first = finish(start(XDG_CACHE_HOME=str(folder / 'caches')))
    entries = {path: path.stat().st_mtime_ns for path in (folder / 'caches').rglob('*-cache')}
    processes = {name: start(HOME=str(folder), **place) for name, place in places.items()}
    return folder, first, entries, {name: finish(process) for name, process in processes.items()}


def test_the_second_command_does_not_compile_again(answers):
    folder, (hits, result, lines), entries, later = answers
    assert hits == 0
    (cache,) = {path.parent for path in entries}
    assert cache.is_relative_to(folder / 'caches/nsr_jax/compilation')
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700  # native code that others must not exchange
    assert len(lines) == 1
    assert lines[0].endswith(f'compiled programs are kept in {cache}')
    hits_later, result_later, lines_later = later['asked for']
    assert hits_later == len(entries) > 0
    assert result_later == result
    assert len(lines_later) == 1  # and nothing of XLA's about another machine
    assert lines_later[0].endswith(f'compiled programs are kept in {cache}')
    assert {path: path.stat().st_mtime_ns for path in cache.glob('*-cache')} == entries


@pytest.mark.parametrize(
    ('place', 'reason'),
    [('off', 'switched off by the environment'), ('not writable', 'cannot be written into: Not a directory')],
)
def test_a_command_works_without_a_cache(answers, place, reason):
    folder, (_, result, _), _, later = answers
    hits, result_without, lines = later[place]
    assert (hits, result_without) == (0, result)
    (line,) = lines
    assert 'compiled programs are not kept: ' in line
    assert reason in line
    assert not (folder / '.cache').exists()


WRONG = {
    'JAX_NUM_CPU_DEVICES=0': 'JAX_NUM_CPU_DEVICES=0: the number of CPU devices must be at least 1',
    'JAX_NUM_CPU_DEVICES=two': 'JAX rejects the environment: Invalid value "two" for JAX flag',
    'JAX_ENABLE_X64=maybe': "JAX rejects the environment: invalid truth value 'maybe' for environment",
    'JAX_PLATFORMS=cuda': 'JAX finds no device by JAX_PLATFORMS=cuda: ',
    'JAX_PLATFORMS=nonsense': "JAX finds no device by JAX_PLATFORMS=nonsense: Unable to initialize backend 'nonsense'",
    '--coordinator_address=127.0.0.1:{taken}': '--coordinator_address=127.0.0.1:{taken}: this process cannot listen ',
    '--coordinator_address=localhost': '--coordinator_address=localhost must be HOST:PORT, with a port from 1 to 65535',
    '--coordinator_address=localhost:99999': '--coordinator_address=localhost:99999 must be HOST:PORT, ',
    '--process_id=2': '--process_id=2 must be below --num_processes=2: the first process is 0',
}


@pytest.fixture(scope='module')
def refusals():
    """What commands answer, side by side, to each wrong variable of the environment or flag."""
    with socket.create_server(('', 0)) as server:
        taken = server.getsockname()[1]
        started = {}
        for wrong in WRONG:
            given = {'--coordinator_address': '127.0.0.1:1', '--num_processes': '2', '--process_id': '0'}
            name, _, value = wrong.format(taken=taken).partition('=')
            is_flag = name.startswith('--')
            arguments = [f'{flag}={text}' for flag, text in (given | {name: value}).items()] if is_flag else []
            environment = os.environ | {'PYTHONPATH': str(ROOT)} | ({} if is_flag else {name: value})
            code = 'from nsr_jax import command_line; command_line.run(lambda argv: print("ran"))'
            pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
            started[wrong] = subprocess.Popen([sys.executable, '-c', code, *arguments], env=environment, **pipes)
        answers = {wrong: (*process.communicate(timeout=600), process.returncode) for wrong, process in started.items()}
    return taken, answers


@pytest.mark.parametrize('wrong', WRONG)
def test_what_no_run_can_start_with_gets_one_line(refusals, wrong):
    taken, answers = refusals
    output, error, code = answers[wrong]
    (line,) = error.splitlines()
    assert line.startswith(f'error: {WRONG[wrong].format(taken=taken)}')
    assert (output, code) == ('', 2)


def test_without_a_config_the_answer_lists_them(monkeypatch):
    values = flags.FlagValues()
    flags.DEFINE_string('config', None, '', values)
    monkeypatch.setattr(flags, 'FLAGS', values)
    monkeypatch.setattr(flags, 'register_validator', functools.partial(flags.register_validator, flag_values=values))
    command_line.require_config(lambda: ['configs/a.py:scale=2', 'configs/b.py'])
    with pytest.raises(UserError, match=r'^give a config: --config=configs/a\.py:scale=2 or --config=configs/b\.py$'):
        values(['train.py'])
    values(['train.py', '--config=configs/b.py'])


def test_a_torn_entry_costs_a_compilation_alone(answers):
    folder, (_, result, _), entries, _ = answers
    for path in entries:
        path.write_bytes(path.read_bytes()[:-20])  # as a process leaves it that is killed while it writes
    hits, result_again, lines = finish(start(XDG_CACHE_HOME=str(folder / 'caches')))
    assert (hits, result_again) == (0, result)
    assert any('Error reading persistent compilation cache entry' in line for line in lines)
