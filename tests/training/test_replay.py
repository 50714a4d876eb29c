import json

import numpy as np
import pytest
from PIL import Image

from nsr_jax.errors import UserError
from nsr_jax.training.loop import train
from nsr_jax.training.replay import replay


@pytest.fixture(scope='module')
def config(make_config):
    config = make_config()
    config.update(log_every_steps=1, gate_warmup_steps=11)
    return config


@pytest.fixture(scope='module')
def workdir(tmp_path_factory, config):
    """A run that logs each step and has checkpoints of steps 5, 10 and 12."""
    train(config, tmp_path_factory.mktemp('replay'))
    return tmp_path_factory.getbasetemp() / 'replay0'


@pytest.mark.parametrize(('batch', 'start'), [(0, 0), (7, 5), (10, 10)])
def test_a_batch_gives_the_numbers_that_training_logged(workdir, config, batch, start):
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()]
    logged = next(line for line in lines if line['step'] == batch + 1)
    text = replay(config, workdir, batch)
    assert text == (workdir / 'replay' / f'batch_{batch}.md').read_text(encoding='utf-8')
    head, _, *rows = (line for line in text.splitlines()[2:])
    assert f'weights of step {batch}, computed from those of step {start}. Loss {logged["loss"]:.5g}' in text
    norm = float(text.split('gradient norm ')[1].split('.\n')[0])
    np.testing.assert_allclose(norm, logged['gradient_norm'], rtol=1e-4)
    assert head.startswith('| sample | image |')
    assert len(rows) == config.batch_size
    with Image.open(workdir / 'replay' / f'batch_{batch}.png') as picture:
        assert picture.size == (3 * 24 + 2 * 4, 4 * 24 + 3 * 4)
        pixels = np.asarray(picture)
    # The patch lies at the place in the table; a sample may be flipped, which keeps its mean.
    name, place = (rows[0].split('|')[index].strip() for index in (2, 3))
    row, column = (2 * int(number) for number in place.split(','))
    with Image.open(f'{config.data.source}/{name}') as image:
        whole = np.asarray(image)
    whole = whole if whole.shape[0] <= whole.shape[1] else whole.swapaxes(0, 1)
    expected = whole[row : row + 24, column : column + 24]
    np.testing.assert_allclose(pixels[:24, 56:80].mean(axis=(0, 1)), expected.mean(axis=(0, 1)), atol=0.01)


def test_there_is_no_batch_after_the_last(workdir, config):
    with pytest.raises(UserError, match=r'there is no batch 12: config\.num_steps is 12'):
        replay(config, workdir, 12)
