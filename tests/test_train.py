"""What a user sees who types train.py's command wrongly: real processes, one clear line each."""

import os

import numpy as np
import pytest

from nsr_jax.images.writing import write_image
from tests.forks import forking

SR = 'configs/sr.py:scale=2,preset=edsr_s_nsr'

CASES = {
    'unknown key': ([f'--config={SR}', '--config.batchsize=32'], 'batchsize'),
    'unknown preset': (['--config=configs/sr.py:preset=edsr'], "unknown preset 'edsr': one of edsr_s, "),
    'unknown argument': (['--config=configs/sr.py:size=2'], "cannot read 'size=2' after the colon"),
    'scale of another task': (['--config=configs/sr.py:scale=5'], 'scale must be 2, 3 or 4, not 5'),
    'wrong type': ([f'--config={SR}', '--config.batch_size=many'], 'many'),
    'argument for none': (['--config=configs/quickstart.py:fast'], 'get_config() takes 0 positional arguments'),
    'no config': ([], 'give a config: --config=configs/denoise.py:sigma=25.0,blind=False,channels=1,'),
    'no such config': (['--config=configs/sharpen.py'], '--config=configs/sharpen.py: no such file'),
    'no workdir': ([f'--config={SR}', '--workdir='], '--workdir is empty: a file or folder must be named'),
    'not an option': ([f'--config={SR}', 'now'], "unexpected argument 'now'"),
    'does not fit': (
        [f'--config={SR}', '--config.model.cardinality=5'],
        'features 64 must be a multiple of cardinality 5',
    ),
    'remat without blocks': (
        ['--config=configs/sr.py:preset=vdsr', '--config.remat=true'],
        "config.remat needs residual blocks, which architecture 'chain' does not have",
    ),
    'time without a unit': (
        [f'--config={SR}', '--stop_after=90'],
        '--stop_after=90 must be a time above zero',
    ),
    'no steps to trace': ([f'--config={SR}', '--profile=-1'], '--profile=-1'),
    'small evaluation image': (
        [f'--config={SR}', '--config.validation.source={folder}/small', '--config.data.tfds_dir={folder}/prepared'],
        '3 images cannot be scored: small, 0.png: 12x40 pixels are too few for protocol sr-y',
    ),
    'no data': ([f'--config={SR}', '--config.data.source=nowhere'], "'nowhere'"),
    'no DIV2K': ([f'--config={SR}', '--config.validation.fraction=0.0'], 'DIV2K_train_HR.zip'),
    'a change of a plan': (
        [f'--config={SR}', '--compile_for=v9:2x2', '--change=batch_size'],
        '--change is for training, not for --profile, --replay_step and --compile_for',
    ),
    'unknown chips': ([f'--config={SR}', '--compile_for=v9:2x2'], '--compile_for=v9:2x2 names no chips'),
}


@pytest.fixture(scope='module')
def answers(tmp_path_factory):
    """How every case ended."""
    folder = tmp_path_factory.mktemp('train')
    environment = {name: value for name, value in os.environ.items() if name != 'NSR_DATA_DIR'}
    environment |= {'JAX_PLATFORMS': 'cpu', 'TFDS_DATA_DIR': str(folder / 'datasets')}
    for number in range(3):
        write_image(folder / 'small' / f'{number}.png', np.zeros((40, 12, 3), np.uint8))
    results = {}
    modules = ('nsr_jax.evaluation.validation', 'nsr_jax.planning.compiled_step', 'nsr_jax.training.loop')
    with forking(*modules, environment=environment) as run:
        for number, (name, (arguments, _)) in enumerate(CASES.items()):
            arguments = [argument.format(folder=folder) for argument in arguments]
            results[name] = run('train.py', f'--workdir={folder}/run{number}', *arguments)
    return folder, results


@pytest.mark.parametrize('name', CASES)
def test_a_mistake_gets_one_clear_line(answers, name):
    code, error, _ = answers[1][name]
    assert code == 2
    assert CASES[name][1] in error
    assert 'Traceback' not in error
    lines = [line for line in error.splitlines() if CASES[name][1] in line]
    assert len(lines) == 1


def test_nothing_is_left_behind(answers):
    folder, _ = answers
    assert not (folder / 'datasets').exists()
    assert {path.name for path in folder.glob('run*/*')} <= {'.lock'}
