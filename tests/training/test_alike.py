"""If the processes of a job were not started alike, all end with one line that names the difference, and none trains.

Functions whose names end in `_in_job` run in each process of a job.
"""

import os
import pathlib
import shutil

import jax
import numpy as np
import pytest

from nsr_jax import agreement
from nsr_jax.errors import UserError
from nsr_jax.images.writing import write_image
from nsr_jax.models.build import build_network
from nsr_jax.models.cost import parameter_shapes
from nsr_jax.training.checkpoints import save_model
from nsr_jax.training.loop import train
from tests.processes import free_port, run_together
from tests.training.conftest import tiny_config


def told(monkeypatch, *values):
    """The error of the first process when the processes give these values; None if there is none."""
    monkeypatch.setattr(agreement, 'gather', lambda own: list(values))
    try:
        agreement.check_alike(values[0])
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ('other', 'difference'),
    [
        ({'config.seed': 3, '--levels': ['10']}, None),
        ({'config.seed': 4, '--levels': ['10']}, 'config.seed is 3 in process 0, 4 in process 2'),
        ({'config.seed': 3}, "--levels is ['10'] in process 0, nothing in process 2"),
        ({'config.seed': 3, '--levels': ['10'], '--new': 1}, '--new is nothing in process 0, 1 in process 2'),
        ({'config.seed': 3.0, '--levels': ['10']}, 'config.seed is 3 in process 0, 3.0 in process 2'),
        ({'config.seed': 3, '--levels': ['10'], 'config.data.data_dir': '/data'}, None),
    ],
)
def test_the_first_difference_is_named(monkeypatch, other, difference):
    same = {'config.seed': 3, '--levels': ['10']}
    message = told(monkeypatch, same, same, other)
    assert message == (difference and f'the processes of the job must be started alike: {difference}')


def message_of(config, workdir, **named):
    try:
        train(config, workdir, **named)
    except UserError as error:
        return str(error)
    return None


def start_differently_in_job(folder):
    """The errors of runs in which the second process has a different config, images, weights or workdir."""
    folder, own = pathlib.Path(folder), f'{jax.process_index()}'
    os.chdir(folder / own)
    made = []

    def make():
        config = tiny_config(folder / 'same', folder / 'datasets')
        made.append(folder / f'run{len(made)}')
        return config, made[-1]

    messages = {}
    config, workdir = make()
    config.learning_rate *= 1 + jax.process_index()
    messages['config'] = message_of(config, workdir)
    config, workdir = make()
    config.data.update(source='set', data_dir=str(folder / own))
    messages['images'] = message_of(config, workdir)
    config, workdir = make()
    config.warm_start = 'weights'
    messages['weights'] = message_of(config, workdir)
    config, workdir = make()
    messages['scores'] = message_of(config, workdir, measured_on={'images': own})
    config, workdir = make()
    messages['workdir'] = message_of(config, workdir / own)
    return messages


def test_no_process_trains_where_one_is_started_differently(tmp_path, image_folder):
    shutil.copytree(image_folder, tmp_path / 'same')
    config = tiny_config(tmp_path / 'same', tmp_path / 'datasets')
    shapes = parameter_shapes(build_network(config.model))
    for index, make in enumerate((np.zeros, np.ones)):
        shutil.copytree(image_folder, tmp_path / str(index) / 'train' / 'set')
        params = jax.tree.map(lambda leaf, make=make: make(leaf.shape, 'f'), shapes)
        save_model(tmp_path / str(index) / 'weights', params, config)
    write_image(tmp_path / '1' / 'train' / 'set' / '2.png', np.zeros((64, 80, 3), np.uint8))
    expected = {
        'config': 'config.learning_rate is 0.001 in process 0, 0.002 in process 1',
        'images': "what is trained on is '4 images set_",
        'weights': 'what config.warm_start holds is ',
        'scores': "what scores are measured on.images is '0' in process 0, '1' in process 1",
        'workdir': '.lock holds is ',
    }
    first, second = (answer.value for answer in run_together(start_differently_in_job, 2, str(tmp_path)))
    for name, difference in expected.items():
        assert first[name].startswith('the processes of the job must be started alike: ')
        assert difference in first[name]
        assert name == 'workdir' or second[name] == first[name]
    assert not [*tmp_path.glob('run*/**/metrics.jsonl'), *tmp_path.glob('run*/**/checkpoints/*')]


def test_a_command_says_so_before_long_work(tmp_path, config, job):
    address = f'--coordinator_address=127.0.0.1:{free_port()}'
    started = []
    for index in range(2):
        log = (tmp_path / f'{index}.log').open('w')
        config.learning_rate = 0.001 * (1 + index)
        arguments = (address, '--num_processes=2', f'--process_id={index}')
        started.append(job.start(config, tmp_path / 'run', *arguments, log=log))
        log.close()
    assert [process.wait(timeout=900) for process in started] == [2, 2]
    line = 'error: the processes of the job must be started alike: config.learning_rate is 0.001 in process 0, 0.002'
    for index in range(2):
        assert (tmp_path / f'{index}.log').read_text().splitlines()[-1] == f'{line} in process 1'
    assert not (tmp_path / 'run').exists()
