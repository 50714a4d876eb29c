"""A network beside baselines, down to the files of eval.py."""

import csv
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from configs.sr import get_config
from nsr_jax.data.sources import open_source
from nsr_jax.errors import UserError
from nsr_jax.evaluation.comparison import check_architecture, compare
from nsr_jax.evaluation.evaluate import bicubic, find_baselines
from nsr_jax.evaluation.inference import predict
from nsr_jax.evaluation.protocols import PROTOCOLS, find_protocols, score
from nsr_jax.evaluation.tables import from_json
from nsr_jax.models.build import build_network
from nsr_jax.training.checkpoints import save_model

ROOT = pathlib.Path(__file__).parents[2]
TINY = {'num_blocks': 1, 'features': 8, 'groups': 2, 'cardinality': 2}


@pytest.fixture(scope='module')
def tfds_dir(tmp_path_factory):
    return tmp_path_factory.mktemp('tfds')


@pytest.fixture(scope='module')
def photos(tfds_dir):
    return open_source('photos', '', 2, tfds_dir=tfds_dir)


def test_pictures_are_of_the_largest_gains(photos, tmp_path):
    def better_on_coffee(image):
        exact = photos[1].hr / 255
        return exact if image.shape == photos[1].lr.shape else bicubic(2, image)

    scores = compare(
        ('cheat', better_on_coffee), find_baselines(['bicubic'], 2), [photos], find_protocols(['sr-y']), 2, tmp_path, 1
    )
    assert [(each.model, each.image) for each in scores] == [
        (model, image) for model in ('bicubic', 'cheat') for image in ('chelsea.png', 'coffee.png')
    ]
    assert scores[3].psnr == np.inf and scores[2].psnr == scores[0].psnr
    assert from_json((tmp_path / 'scores.json').read_text()) == scores
    assert [path.name for path in (tmp_path / 'pictures').iterdir()] == ['photos_x2_coffee.png']


def test_two_datasets_of_one_name(photos, tmp_path):
    with pytest.raises(UserError, match='photos'):
        compare(None, find_baselines(['bicubic'], 2), [photos, photos], find_protocols(['sr-y']), 2, tmp_path, 0)


def test_architectures():
    check_architecture({'scale': 2, 'gate': 'softmax'}, {'gate': 'softmax', 'scale': 2}, 'runs/x2')
    with pytest.raises(UserError, match=r'runs/x2: scale 4 against 2; groups 1 against 4$'):
        check_architecture({'scale': 4, 'groups': 1}, {'scale': 2, 'groups': 4}, 'runs/x2')
    with pytest.raises(UserError, match='depth missing against 3'):
        check_architecture({}, {'depth': 3}, 'runs/x2')


def run_script(*arguments):
    return subprocess.run(
        [sys.executable, 'eval.py', '--config=configs/sr.py:scale=2,preset=edsr_s_nsr', *arguments],
        cwd=ROOT, env=os.environ | {'JAX_PLATFORMS': 'cpu'}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_script(tfds_dir, photos, tmp_path):
    with get_config('scale=2,preset=edsr_s_nsr').unlocked() as config:
        config.model.update(TINY)
    network = build_network(config.model)
    params = jax.jit(network.init)(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))['params']
    save_model(tmp_path / 'model', params, config, step=7)
    output = tmp_path / 'eval'
    result = run_script(
        *(f'--config.model.{name}={value}' for name, value in TINY.items()),
        f'--config.data.tfds_dir={tfds_dir}', f'--checkpoint={tmp_path / "model"}', '--datasets=photos',
        '--baselines=bicubic', '--protocol=sr-y,sr-rgb', f'--output={output}',
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    scores = from_json((output / 'scores.json').read_text())
    assert len(scores) == len(list(csv.DictReader((output / 'scores.csv').open()))) == 8
    assert f'{tmp_path / "model"}, step 7, tiling authors' in (output / 'scores.md').read_text()
    for each in scores:
        example = photos[photos.names.index(each.image)]
        if each.model == 'bicubic':
            prediction = bicubic(2, example.lr)
        else:
            prediction = predict(network, params, example.lr, tiling='authors')
        expected = score(PROTOCOLS[each.protocol], prediction, example.hr, 2)
        assert (each.psnr, each.ssim) == pytest.approx(expected, abs=1e-3)
    (picture,) = (output / 'pictures').iterdir()
    assert Image.open(picture).size[0] > 1000


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['--datasets=photos,set55', '--baselines=bicubic'], 'set55'),
        (['--datasets=photos'], 'nothing to score'),
        (['--datasets=photos', '--checkpoint=/no/such/folder'], '/no/such/folder'),
    ],
)
def test_script_refuses_mistakes_in_one_line(tmp_path, tfds_dir, arguments, message):
    output = tmp_path / 'eval'
    result = run_script(*arguments, f'--output={output}', f'--config.data.tfds_dir={tfds_dir}')
    assert result.returncode == 2
    error = [line for line in result.stderr.splitlines() if line.startswith('error: ')]
    assert len(error) == 1 and message in error[0]
    assert 'Traceback' not in result.stderr
    assert not output.exists() or not list(output.iterdir())
