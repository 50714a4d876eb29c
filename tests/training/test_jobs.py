"""Jobs of several real processes on this machine, started as users start them."""

import contextlib
import signal
import time

import numpy as np
import pytest

from nsr_jax.evaluation.validation import open_validation
from nsr_jax.trained import load_model
from nsr_jax.training.loop import train
from tests.processes import SLURM_PORT, free_port


def by_flags(count):
    """The arguments and the environment of each process of a job that flags describe."""
    address = f'--coordinator_address=127.0.0.1:{free_port()}'
    return [((address, f'--num_processes={count}', f'--process_id={index}'), {}) for index in range(count)]


def by_slurm(count):
    """The same job as described by Slurm's `srun`."""
    job = {
        'SLURM_JOB_ID': str(free_port() - SLURM_PORT), 'SLURM_STEP_NODELIST': '127.0.0.1',
        'SLURM_NTASKS': str(count), 'SLURM_STEP_NUM_NODES': '1',
    }  # fmt: skip
    places = [{'SLURM_PROCID': str(index), 'SLURM_LOCALID': str(index)} for index in range(count)]
    return [(('--distributed',), job | place) for place in places]


@contextlib.contextmanager
def start(job, config, folder, starts, held=None):
    """Start the processes of a job in `folder`/run; their standard errors go to `folder`/0.log, 1.log …

    `held`: as `Job.start` takes it, for the first process, which writes the metrics.
    """
    with contextlib.ExitStack() as files:
        processes = []
        for index, (arguments, environment) in enumerate(starts):
            log, holding = files.enter_context((folder / f'{index}.log').open('w')), None if index else held
            processes.append(job.start(config, folder / 'run', *arguments, log=log, held=holding, **environment))
        try:
            yield processes
        finally:
            for process in processes:
                process.kill()


def logs_of(folder, count):
    return [(folder / f'{index}.log').read_text(encoding='utf-8') for index in range(count)]


@pytest.fixture(scope='module')
def scored_config(make_config):
    config = make_config()
    config.validation.images = ('0.png',)
    config.evaluation.metrics = 'psnr'
    return config


def train_alone(config, workdir):
    """What the processes of a job are compared with."""
    validation = open_validation(config)
    train(config, workdir, validation.evaluate, validation.measured_on)


def assert_same_numbers(metrics, expected):
    assert [list(line) for line in metrics] == [list(line) for line in expected]
    for line, expected_line in zip(metrics, expected, strict=True):
        np.testing.assert_allclose(list(line.values()), list(expected_line.values()), rtol=1e-5)


def assert_one_set_of_logs(folder, count):
    for log in logs_of(folder, count)[1:]:
        assert 'continuing' not in log
        assert 'step/s' not in log
        assert 'psnr' not in log


@pytest.mark.slow
def test_four_processes_over_both_axes_train_as_one(tmp_path, scored_config, job, metrics_of):
    scored_config = scored_config.copy_and_resolve_references()
    scored_config.mesh.update(data=2, fsdp=2)
    with start(job, scored_config, tmp_path, by_flags(4)) as processes:
        assert [process.wait(timeout=900) for process in processes] == [0] * 4, logs_of(tmp_path, 4)
    train_alone(scored_config, tmp_path / 'alone')
    assert_same_numbers(metrics_of(tmp_path / 'run'), metrics_of(tmp_path / 'alone'))
    assert_one_set_of_logs(tmp_path, 4)
    assert len(list((tmp_path / 'run' / 'tensorboard').iterdir())) == 1
    load_model(tmp_path / 'run')


def wait_until_held(folder, processes):
    while not (folder / 'held').exists():
        assert all(process.poll() is None for process in processes), logs_of(folder, len(processes))
        time.sleep(0.05)


def test_two_processes_train_as_one_stop_as_one_and_resume(tmp_path, scored_config, job, metrics_of):
    """Slurm starts them; one receives a SIGTERM, and both stop. Flags start them again; one dies, the other stops."""
    with start(job, scored_config, tmp_path, by_slurm(2), held={'hold': [3, str(tmp_path)]}) as processes:
        wait_until_held(tmp_path, processes)
        processes[1].send_signal(signal.SIGTERM)
        (tmp_path / 'go').touch()
        assert [process.wait(timeout=900) for process in processes] == [75, 75], logs_of(tmp_path, 2)
    assert_one_set_of_logs(tmp_path, 2)
    step = metrics_of(tmp_path / 'run')[-1]['step']
    assert f'stopped: as asked at step {step}' in logs_of(tmp_path, 2)[0]
    assert load_model(tmp_path / 'run').step == step

    for name in ('held', 'go'):
        (tmp_path / name).unlink()
    with start(job, scored_config, tmp_path, by_flags(2), held={'hold': [9, str(tmp_path)]}) as processes:
        wait_until_held(tmp_path, processes)
        processes[1].kill()
        processes[1].wait()
        (tmp_path / 'go').touch()
        assert processes[0].wait(timeout=900) == 75, logs_of(tmp_path, 2)
    assert_one_set_of_logs(tmp_path, 2)
    first = logs_of(tmp_path, 2)[0]
    assert f'continuing from step {step}' in first
    assert 'stopped: another process of the job is gone' in first

    train_alone(scored_config, tmp_path / 'alone')
    expected = [line for line in metrics_of(tmp_path / 'alone') if line['step'] <= 9]
    assert any('validation/sr-y/x2/psnr' in line for line in expected)
    assert_same_numbers(metrics_of(tmp_path / 'run'), expected)


def test_flags_that_do_not_describe_a_job_are_refused(tmp_path, commands):
    code, error, _ = commands('train.py', '--config=configs/sr.py', f'--workdir={tmp_path}', '--num_processes=2')
    assert code == 2
    assert error.splitlines()[-1] == (
        'error: a job of several processes that is described by flags needs --coordinator_address, --process_id too'
    )
    code, error, _ = commands('train.py', '--config=configs/sr.py', f'--workdir={tmp_path}', '--distributed')
    assert code == 2
    assert 'error: the processes of the job do not find each other: ' in error
