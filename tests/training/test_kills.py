"""Training processes that are killed, or stopped by a signal, and started again."""

import contextlib
import os
import random
import shutil
import signal
import time

import jax
import pytest

from nsr_jax.trained import load_model
from nsr_jax.training.loop import train


@pytest.fixture(scope='module')
def long_config(make_config):
    """A config with so many checkpoints that a kill probably interrupts one."""
    config = make_config()
    config.update(num_steps=60, log_every_steps=7, checkpoint_every_steps=3, steps_per_call=2, checkpoints_to_keep=2)
    return config


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory, long_config):
    workdir = tmp_path_factory.mktemp('uninterrupted')
    train(long_config, workdir)
    return workdir


def wait_for(condition, process):
    """Wait until the condition holds, while the process runs."""
    while not condition():
        assert process.poll() is None
        time.sleep(0.01)


def assert_same_weights(workdir, uninterrupted, step):
    params, expected = (load_model(path / 'checkpoints' / str(step)).params for path in (workdir, uninterrupted))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), params, expected))


def kill(config, workdir, job, kills, seed, *arguments):
    """Kill runs at random moments, early and late in a process's life."""
    moments, cache = random.Random(seed), workdir.parent / 'compiled'
    shutil.copytree(os.environ['JAX_COMPILATION_CACHE_DIR'], cache)  # a kill may tear an entry
    for _ in range(kills):
        moment = [moments.randrange(1, 150), moments.uniform(0, 0.05)]
        options = {'held': {'kill': moment}, 'JAX_COMPILATION_CACHE_DIR': str(cache)}
        code, error = job.run(config, workdir, *arguments, **options)
        assert code == -signal.SIGKILL, error


@contextlib.contextmanager
def held(folder, config, job):
    """A process that received a SIGTERM in the middle of a run and waits for the file `go` before its next step."""
    with (folder / 'log').open('w') as log:
        process = job.start(config, folder / 'run', log=log, held={'hold': [14, str(folder)]})
        try:
            wait_for((folder / 'held').exists, process)
            process.terminate()
            wait_for(lambda: 'SIGTERM: saves, then stops' in (folder / 'log').read_text(encoding='utf-8'), process)
            yield process
        finally:
            process.kill()
            process.wait()


def test_killed_twice_and_stopped_by_sigterm_equals_uninterrupted(
    tmp_path, long_config, uninterrupted, job, metrics_of
):
    workdir = tmp_path / 'run'
    kill(long_config, workdir, job, kills=2, seed=0)
    with held(tmp_path, long_config, job) as process:
        (tmp_path / 'go').touch()
        assert process.wait(timeout=300) == 75
    last = (tmp_path / 'log').read_text(encoding='utf-8').splitlines()[-1]
    assert last.startswith('stopped: as asked at step '), last
    step = int(last.removeprefix('stopped: as asked at step ').split(',')[0])
    assert step < long_config.num_steps
    assert (workdir / 'checkpoints' / str(step)).is_dir()
    assert metrics_of(workdir)[-1]['step'] == step

    code, error = job.run(long_config, workdir)
    assert code == 0, error
    assert_same_weights(workdir, uninterrupted, long_config.num_steps)
    lines, expected = metrics_of(workdir), metrics_of(uninterrupted)
    steps = [line['step'] for line in lines]
    assert steps == sorted(set(steps))  # none twice
    assert len([line for line in lines if line not in expected]) <= 2  # the line of the stop, and one that begins there
    assert len([line for line in expected if line not in lines]) <= 1


@pytest.mark.slow
def test_killed_thirty_times_equals_uninterrupted(tmp_path, long_config, job, metrics_of):
    long_config = long_config.copy_and_resolve_references()
    long_config.num_steps = 900
    assert job.run(long_config, tmp_path / 'uninterrupted')[0] == 0
    kill(long_config, tmp_path / 'killed', job, kills=30, seed=1)
    assert job.run(long_config, tmp_path / 'killed')[0] == 0
    assert metrics_of(tmp_path / 'killed') == metrics_of(tmp_path / 'uninterrupted')
    assert_same_weights(tmp_path / 'killed', tmp_path / 'uninterrupted', long_config.num_steps)


def test_a_second_sigterm_ends_at_once(tmp_path, long_config, job):
    """The process is held between two steps, where the first SIGTERM has no effect yet."""
    with held(tmp_path, long_config, job) as process:
        process.terminate()
        assert process.wait(timeout=300) == -signal.SIGTERM


@pytest.mark.slow
def test_killed_while_it_is_made_longer_equals_uninterrupted(tmp_path, long_config, job, metrics_of):
    config = long_config.copy_and_resolve_references()
    config.update(learning_rate_schedule='constant', num_steps=84)
    assert job.run(config, tmp_path / 'whole')[0] == 0
    config.num_steps = 42  # a multiple of both periods, so that the last step of the short run is no special one
    assert job.run(config, tmp_path / 'killed')[0] == 0
    config.num_steps = 84
    kill(config, tmp_path / 'killed', job, 5, 2, '--change=num_steps')
    code, error = job.run(config, tmp_path / 'killed', '--change=num_steps')
    assert code == 0, error
    assert_same_weights(tmp_path / 'killed', tmp_path / 'whole', 84)
    assert metrics_of(tmp_path / 'killed') == metrics_of(tmp_path / 'whole')
