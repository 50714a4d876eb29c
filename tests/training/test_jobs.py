"""Jobs of several real processes on this machine, started as users start them."""

import contextlib
import json
import signal
import time

import numpy as np
import pytest

from nsr_jax.trained import load_model
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
def start(job, config, folder, starts):
    """Start the processes of a job in `folder`/run; their standard errors go to `folder`/0.log, 1.log …"""
    with contextlib.ExitStack() as files:
        processes = []
        for index, (arguments, environment) in enumerate(starts):
            log = files.enter_context((folder / f'{index}.log').open('w'))
            processes.append(job.start(config, folder / 'run', *arguments, log=log, **environment))
        try:
            yield processes
        finally:
            for process in processes:
                process.kill()


def run_together(job, config, folder, starts):
    with start(job, config, folder, starts) as processes:
        codes = [process.wait(timeout=900) for process in processes]
    assert codes == [0] * len(starts), [
        (folder / f'{index}.log').read_text(encoding='utf-8')[-3000:] for index in range(len(starts))
    ]


@pytest.fixture(scope='module')
def scored_config(make_config, image_folder):
    config = make_config()
    config.evaluation.update(datasets=str(image_folder), protocol='sr-y')
    return config


@pytest.fixture(scope='module')
def one_process(tmp_path_factory, scored_config, job):
    workdir = tmp_path_factory.mktemp('one') / 'run'
    code, error = job.run(scored_config, workdir)
    assert code == 0, error
    return workdir


def assert_same_numbers(metrics, expected):
    assert [list(line) for line in metrics] == [list(line) for line in expected]
    for line, expected_line in zip(metrics, expected, strict=True):
        np.testing.assert_allclose(list(line.values()), list(expected_line.values()), rtol=1e-5)


def check(job, config, folder, starts, one_process, metrics_of):
    run_together(job, config, folder, starts)
    assert_same_numbers(metrics_of(folder / 'run'), metrics_of(one_process))
    for index in range(1, len(starts)):  # one set of logs
        log = (folder / f'{index}.log').read_text(encoding='utf-8')
        assert 'going on' not in log
        assert 'step/s' not in log
        assert 'psnr' not in log
    assert len(list((folder / 'run' / 'tensorboard').iterdir())) == 1
    load_model(folder / 'run')


def test_two_processes_that_slurm_starts_train_as_one(tmp_path, scored_config, job, one_process, metrics_of):
    check(job, scored_config, tmp_path, by_slurm(2), one_process, metrics_of)


@pytest.mark.slow
def test_four_processes_over_both_axes_train_as_one(tmp_path, scored_config, job, one_process, metrics_of):
    scored_config = scored_config.copy_and_resolve_references()
    scored_config.mesh.update(data=2, fsdp=2)
    check(job, scored_config, tmp_path, by_flags(4), one_process, metrics_of)


def last_step(workdir):
    """The step of the last checkpoint; 0 if there is none."""
    names = (path.name for path in (workdir / 'checkpoints').glob('*'))
    return max((int(name) for name in names if name.isdigit()), default=0)


def wait_for_step(step, folder, processes):
    """Wait for a checkpoint of that step or a later one, as older ones are removed."""
    while last_step(folder / 'run') < step:
        assert all(process.poll() is None for process in processes), (folder / '0.log').read_text(encoding='utf-8')
        time.sleep(0.05)


def test_a_process_that_loses_another_stops_and_the_job_resumes(tmp_path, scored_config, job, metrics_of):
    config = scored_config.copy_and_resolve_references()
    config.update(num_steps=10**9, checkpoint_every_steps=5, evaluate_every_steps=10**9)
    with start(job, config, tmp_path, by_flags(2)) as processes:
        wait_for_step(10, tmp_path, processes)
        processes[1].kill()
        assert processes[0].wait(timeout=900) == 75
    assert 'stopped: another process of the job is gone' in (tmp_path / '0.log').read_text(encoding='utf-8')

    step = last_step(tmp_path / 'run')
    with start(job, config, tmp_path, by_flags(2)) as processes:
        wait_for_step(step + 5, tmp_path, processes)
        processes[1].send_signal(signal.SIGTERM)  # one receives it, both agree to stop
        assert [process.wait(timeout=900) for process in processes] == [75, 75]
    taken = [line['step'] for line in metrics_of(tmp_path / 'run')]
    assert taken == sorted(set(taken))
    assert f'continuing from step {step}' in (tmp_path / '0.log').read_text(encoding='utf-8')
    assert json.loads((tmp_path / 'run' / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()[0])['step'] == 3


def test_flags_that_do_not_describe_a_job_are_refused(tmp_path, config, job):
    code, error = job.run(config, tmp_path, '--num_processes=2')
    assert code == 2
    assert error.splitlines()[-1] == (
        'error: a job of several processes that is described by flags needs --coordinator_address, --process_id too'
    )
    code, error = job.run(config, tmp_path, '--distributed')
    assert code == 2
    assert 'error: the processes of the job do not find each other: ' in error
