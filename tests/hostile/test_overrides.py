"""What can be typed behind `--config`: answered by exit code 2 and one line, or accepted, before any work."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.base import get_base
from tests.hostile.changes import examples, is_one_line

ROOT = pathlib.Path(__file__).parents[2]


def fields_of(config, prefix=''):
    for name, value in config.items():
        if hasattr(value, 'items'):
            yield from fields_of(value, f'{prefix}{name}.')
        else:
            yield prefix + name


# Of these, values are folders to read and write; what else there is, is a value.
FOLDERS = {'data.data_dir', 'data.tfds_dir', 'data.store_dir'}
FIELDS = sorted(set(fields_of(get_base())) - FOLDERS) + ['model', 'data', 'model.kernel_sizes', 'nothing', 'Model']
CONFIGS = [f'configs/{name}' for name in ('sr.py', 'denoise.py', 'jpeg.py', 'quickstart.py', 'shipped.py')]
ARGUMENTS = (
    '', 'scale=3', 'scale=', 'scale=1e309', 'scale=-1', 'scale=2,scale=2', 'scale==2', 'scale=٣', 'preset=vdsr',
    'preset=', 'preset=dncnn', 'sigma=nan', 'sigma=inf', 'sigma=-1', 'quality=0', 'quality=1e9',
    'quality=99999999999999999999', 'blind=maybe', 'channels=2', 'model=../../x', '=,=', ',,,', 'é☃', '\x1b[31m',
    'a' * 300,
)  # fmt: skip
VALUES = (
    '', '0', '-0', '1', '2', '-1', '1.5', '1e309', '-1e309', '1e-400', 'nan', 'inf', '1e400j', '2147483648', '9' * 30,
    '0x10', '1_000', 'x', 'é☃', '\x1b[31m', 'None', 'True', 'false', '()', '(1,2)', '(1,', '(nan,nan)', '(5,1)',
    '("a","b")', '[1]', '{}', "'a'", '../../x', '%s', 'photos,', ',', 'a' * 300,
    '__import__("os").system("touch SENTINEL")',
)  # fmt: skip
SENTINEL = 'SENTINEL'


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    """A function from arguments of train.py to its answer; one process answers all, in a folder of its own."""
    folder = tmp_path_factory.mktemp('overrides')
    (folder / 'configs').symlink_to(ROOT / 'configs')
    environment = {name: value for name, value in os.environ.items() if name != 'NSR_DATA_DIR'}
    environment |= {'JAX_PLATFORMS': 'cpu', 'TFDS_DATA_DIR': str(folder / 'datasets'), 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, '-W', 'ignore', '-m', 'tests.hostile.override_server', str(folder / 'run')]
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE}
    with subprocess.Popen(command, cwd=folder, env=environment, text=True, **pipes) as process:

        def ask(*arguments):
            process.stdin.write(json.dumps(arguments) + '\n')
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()
    assert not list(folder.rglob(SENTINEL))
    assert not list(folder.glob('run/*'))


def check(answer):
    """Whether it was accepted; a refusal is one line and exit code 2."""
    assert not answer['traceback'], answer['traceback']
    if answer['code'] == 0:
        return True
    assert answer['code'] == 2
    assert answer['error'].startswith('error: ')
    assert is_one_line(answer['error'].removesuffix('\n'))
    return False


def fuzz_overrides(number):
    overrides = st.lists(st.tuples(st.sampled_from(FIELDS), st.sampled_from(VALUES)), min_size=1, max_size=2)
    config = st.tuples(st.sampled_from(CONFIGS), st.one_of(st.just(''), st.sampled_from(ARGUMENTS)))

    @examples(number)
    @given(config, overrides, st.booleans())
    def test(server, config, overrides, evaluates):
        flags = [f'--config.{name}={value}' for name, value in overrides]
        if not evaluates:
            flags.append('--config.validation.fraction=0.0')
        name, argument = config
        check(server(f'--config={name}:{argument}' if argument else f'--config={name}', *flags))

    return test


test_every_override_is_accepted_or_refused_in_one_line = fuzz_overrides(250)
test_every_override_is_accepted_or_refused_in_one_line_long = pytest.mark.slow(fuzz_overrides(10_000))

QUICK = ('--config=configs/quickstart.py', '--config.validation.fraction=0.0')


def test_what_is_right_is_accepted(server):
    for flags in ((), ('--config.batch_size=8', '--config.learning_rate=2e-3', '--config.data.margin=0')):
        assert check(server(*QUICK, *flags))


@pytest.mark.parametrize(
    'flags',
    [
        ('--config.seed.x=1',),
        ('--config.nothing.x=1',),
        ('--config.=1',),
        ('--config.model.=1',),
        ('--config.batch_size=\n',),
        ('--config.model={}',),
        ('--config=README.md',),
        ('--config=configs/none.py', '--config.batch_size=1'),
        ('--config=', '--config.batch_size=1'),
        ('--config=configs',),
        ('--config.learning_rate=inf',),
        ('--config.learning_rate_factor=nan',),
        ('--config.learning_rate_factor=-1',),
        ('--config.learning_rate_drops=x',),
        ('--config.learning_rate_drops=(nan,nan)',),
        ('--config.seed=99999999999999999999999',),
        ('--config.num_steps=99999999999999999999999',),
        ('--config.model.num_blocks=1000000000',),
        ('--config.model.features=1000000000',),
        ('--config.nothing=1',),
        ('--config.learning_rate=nan',),
        ('--config.warm_start=' + 'a' * 300,),
        ('--config.microbatch_size=-1',),
        ('--config.microbatch_size=5',),
        ('--config.batch_size=0',),
        ('--config.data.margin=-1',),
        ('--config=/dev/null',),
        ('--config=configs/presets.py',),
    ],
    ids=' '.join,
)
def test_what_is_wrong_is_refused(server, flags):
    assert not check(server(*QUICK, *flags))
