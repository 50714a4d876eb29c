"""Training that is really killed, or asked to stop, and started again."""

import random
import signal
import time

import jax
import pytest

from nsr_jax.training.checkpoints import load_model


@pytest.fixture(scope='module')
def long_config(make_config):
    """Checkpoints so often that a kill is likely to come in the middle of one."""
    config = make_config()
    config.update(num_steps=120, log_every_steps=7, checkpoint_every_steps=3, steps_per_call=2, checkpoints_to_keep=2)
    return config


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory, long_config, job):
    workdir = tmp_path_factory.mktemp('uninterrupted')
    code, error = job.run(long_config, workdir)
    assert code == 0, error
    return workdir


def lines_of(workdir):
    path = workdir / 'metrics.jsonl'
    return path.read_bytes().count(b'\n') if path.exists() else 0


def wait_for_lines(process, workdir, count):
    """Wait until that many more lines of metrics are written."""
    wanted = lines_of(workdir) + count
    while process.poll() is None and lines_of(workdir) < wanted:
        time.sleep(0.01)


def assert_same_run(workdir, uninterrupted, metrics_of, step):
    assert metrics_of(workdir) == metrics_of(uninterrupted)
    assert_same_weights(workdir, uninterrupted, step)


def assert_same_weights(workdir, uninterrupted, step):
    params, expected = (load_model(path / 'checkpoints' / str(step)).params for path in (workdir, uninterrupted))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), params, expected))


def kill_and_restart(config, workdir, job, kills, seed):
    """Kill at random moments, early and late in a process's life, then let it end; returns how many kills came."""
    moments, killed = random.Random(seed), 0
    for _ in range(kills):
        process = job.start(config, workdir)
        wait_for_lines(process, workdir, moments.randrange(4))
        time.sleep(moments.uniform(0, 0.2))
        process.kill()
        killed += process.wait() == -signal.SIGKILL
    code, error = job.run(config, workdir)
    assert code == 0, error
    return killed


def test_killed_three_times_equals_uninterrupted(tmp_path, long_config, uninterrupted, job, metrics_of):
    assert kill_and_restart(long_config, tmp_path, job, kills=3, seed=0) == 3
    assert_same_run(tmp_path, uninterrupted, metrics_of, long_config.num_steps)


@pytest.mark.slow
def test_killed_thirty_times_equals_uninterrupted(tmp_path, long_config, job, metrics_of):
    long_config = long_config.copy_and_resolve_references()
    long_config.num_steps = 900
    assert job.run(long_config, tmp_path / 'uninterrupted')[0] == 0
    assert kill_and_restart(long_config, tmp_path / 'killed', job, kills=30, seed=1) == 30
    assert_same_run(tmp_path / 'killed', tmp_path / 'uninterrupted', metrics_of, long_config.num_steps)


def test_sigterm_saves_and_ends_with_its_own_exit_code(tmp_path, long_config, uninterrupted, job, metrics_of):
    log = (tmp_path / 'log').open('w+')
    workdir = tmp_path / 'run'
    process = job.start(long_config, workdir, log=log)
    wait_for_lines(process, workdir, 2)
    process.terminate()
    assert process.wait(timeout=60) == 75
    log.seek(0)
    last = log.read().splitlines()[-1]
    assert last.startswith('stopped: as asked to at step '), last
    step = int(last.removeprefix('stopped: as asked to at step ').split(',')[0])
    assert (workdir / 'checkpoints' / str(step)).is_dir()
    assert metrics_of(workdir)[-1]['step'] == step

    code, error = job.run(long_config, workdir)
    assert code == 0, error
    assert_same_weights(workdir, uninterrupted, long_config.num_steps)


def test_a_second_sigterm_ends_at_once(tmp_path, long_config, job):
    """The first call of so many steps would take minutes."""
    long_config = long_config.copy_and_resolve_references()
    long_config.update(num_steps=10**6, log_every_steps=10**5, checkpoint_every_steps=10**5, steps_per_call=10**5)
    with (tmp_path / 'log').open('w+') as log:
        process = job.start(long_config, tmp_path / 'run', log=log)
        time.sleep(1)
        while 'SIGTERM: saves, then stops' not in (tmp_path / 'log').read_text():
            assert process.poll() is None
            if (tmp_path / 'run' / 'config.json').exists():
                time.sleep(3)
                process.terminate()
                time.sleep(1)
        process.terminate()
        assert process.wait(timeout=20) == -signal.SIGTERM
