"""Training processes that are killed, or stopped by a signal, and started again."""

import random
import signal
import time

import jax
import pytest

from nsr_jax.trained import load_model


@pytest.fixture(scope='module')
def long_config(make_config):
    """A config with so many checkpoints that a kill probably interrupts one."""
    config = make_config()
    config.update(num_steps=120, log_every_steps=7, checkpoint_every_steps=3, steps_per_call=2, checkpoints_to_keep=2)
    return config


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory, long_config, job):
    workdir = tmp_path_factory.mktemp('uninterrupted')
    code, error = job.run(long_config, workdir)
    assert code == 0, error
    return workdir


def wait_for(condition, process):
    """Wait until the condition holds, while the process runs."""
    while not condition():
        assert process.poll() is None
        time.sleep(0.01)


def assert_same_run(workdir, uninterrupted, metrics_of, step):
    assert metrics_of(workdir) == metrics_of(uninterrupted)
    assert_same_weights(workdir, uninterrupted, step)


def assert_same_weights(workdir, uninterrupted, step):
    params, expected = (load_model(path / 'checkpoints' / str(step)).params for path in (workdir, uninterrupted))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), params, expected))


def kill_and_restart(config, workdir, job, kills, seed):
    """Kill runs at random moments, early and late in a process's life, then let the last one end."""
    moments = random.Random(seed)
    for _ in range(kills):
        moment = [moments.randrange(1, 150), moments.uniform(0, 0.05)]
        code, error = job.run(config, workdir, held={'kill': moment})
        assert code == -signal.SIGKILL, error
    code, error = job.run(config, workdir)
    assert code == 0, error


def test_killed_three_times_equals_uninterrupted(tmp_path, long_config, uninterrupted, job, metrics_of):
    kill_and_restart(long_config, tmp_path, job, kills=3, seed=0)
    assert_same_run(tmp_path, uninterrupted, metrics_of, long_config.num_steps)


@pytest.mark.slow
def test_killed_thirty_times_equals_uninterrupted(tmp_path, long_config, job, metrics_of):
    long_config = long_config.copy_and_resolve_references()
    long_config.num_steps = 900
    assert job.run(long_config, tmp_path / 'uninterrupted')[0] == 0
    kill_and_restart(long_config, tmp_path / 'killed', job, kills=30, seed=1)
    assert_same_run(tmp_path / 'killed', tmp_path / 'uninterrupted', metrics_of, long_config.num_steps)


@pytest.fixture
def held(tmp_path, long_config, job):
    """A process that received a SIGTERM in the middle of a run and waits for the file `go` before its next step."""
    with (tmp_path / 'log').open('w') as log:
        process = job.start(long_config, tmp_path / 'run', log=log, held={'hold': [14, str(tmp_path)]})
        try:
            wait_for((tmp_path / 'held').exists, process)
            process.terminate()
            wait_for(lambda: 'SIGTERM: saves, then stops' in (tmp_path / 'log').read_text(encoding='utf-8'), process)
            yield process
        finally:
            process.kill()
            process.wait()


def test_sigterm_saves_and_ends_with_its_own_exit_code(tmp_path, held, long_config, uninterrupted, job, metrics_of):
    (tmp_path / 'go').touch()
    assert held.wait(timeout=300) == 75
    last = (tmp_path / 'log').read_text(encoding='utf-8').splitlines()[-1]
    assert last.startswith('stopped: as asked at step '), last
    step = int(last.removeprefix('stopped: as asked at step ').split(',')[0])
    workdir = tmp_path / 'run'
    assert (workdir / 'checkpoints' / str(step)).is_dir()
    assert metrics_of(workdir)[-1]['step'] == step

    code, error = job.run(long_config, workdir)
    assert code == 0, error
    assert_same_weights(workdir, uninterrupted, long_config.num_steps)


def test_a_second_sigterm_ends_at_once(held):
    """The process is held between two steps, where the first SIGTERM has no effect yet."""
    held.terminate()
    assert held.wait(timeout=300) == -signal.SIGTERM
