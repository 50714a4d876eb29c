"""Tiles of one image on many devices and in several processes: the pixels of one device.

Functions whose names end in `_in_job` run in each process of a job.
"""

import hashlib
import os
import re

import jax
import ml_collections
import numpy as np
import PIL.Image
import pytest
from absl import flags

from nsr_jax import restore
from nsr_jax.errors import UserError
from nsr_jax.images.reading import read_photo
from nsr_jax.inference import prediction
from nsr_jax.inference.devices import apply_on_mesh, mesh_of, replicate
from nsr_jax.inference.prediction import predict
from nsr_jax.inference.restorer import Restorer
from nsr_jax.inference.tiling import Tiling, authors_tiles, feathered_tiles
from nsr_jax.models.build import build_network
from nsr_jax.models.cost import parameter_shapes
from nsr_jax.ops.arrays import View
from nsr_jax.restoring import restore_files
from nsr_jax.training.checkpoints import save_model
from tests.processes import run_together

CONFIG = {
    'task': 'sr',
    'model': {
        'scale': 2, 'channels': 3, 'num_blocks': 1, 'features': 4, 'width_multiplier': 1, 'groups': 2, 'cardinality': 2,
        'gate': 'softmax',
    },
}  # fmt: skip
TILINGS = {'feathered': Tiling('feathered', 32, 8), 'authors': Tiling('authors')}


def make_network():
    """Random, and its gates matter."""
    config = ml_collections.ConfigDict(CONFIG)
    network, random = build_network(config.model), np.random.RandomState(5)
    params = jax.tree.map(lambda leaf: random.normal(0, 0.3, leaf.shape).astype('f'), parameter_shapes(network))
    for conv in params['block_00'].values():
        conv['gate']['kernel'] *= 100
    return network, params, config


def random_image(height, width, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)


def digest_of(pixels):
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


class Looked(View):
    """An image that counts how often a tile of it is cut."""

    def __init__(self, pixels):
        super().__init__(pixels.shape, self.cut)
        self.pixels, self.dtype, self.count = pixels, pixels.dtype, 0

    def cut(self, place):
        self.count += 1
        return self.pixels[place]


def predict_in_job(height, width, names):
    """How predictions of all devices differ from those of one, and what each device and process did for them."""
    network, params, _ = make_network()
    mesh, image, batches, answers = mesh_of(jax.devices()), random_image(height, width), [], {}

    def watched(function, network, params, arrays, mesh):
        outputs = apply_on_mesh(function, network, params, arrays, mesh)
        batches.append([len(arrays[0]), outputs.shape[0]])
        return outputs

    prediction.apply_on_mesh = watched
    for name in names:
        tiling = TILINGS[name]
        one, looked = predict(network, params, image, tiling=tiling, tile_batch=2), Looked(image)
        assert not batches
        many = predict(network, replicate(params, mesh), looked, tiling=tiling, tile_batch=2, mesh=mesh)
        answers[name] = {'difference': float(np.abs(many - one).max()), 'is_same': bool((many == one).all())}
        answers[name] |= {'batches': list(batches), 'cut': looked.count, 'digest': digest_of(many)}
        batches.clear()
        small = image[:32, :40]  # two tiles or one: not worth several devices
        one = predict(network, params, small, tiling=tiling, tile_batch=2)
        many = predict(network, replicate(params, mesh), small, tiling=tiling, tile_batch=2, mesh=mesh)
        assert (one == many).all() and not batches
    return answers


@pytest.mark.parametrize(
    ('count', 'devices', 'size', 'names'),
    [
        (1, 8, (200, 193), ['authors']),
        (2, 2, (100, 193), ['feathered']),
        pytest.param(4, 2, (900, 700), ['authors', 'feathered'], marks=pytest.mark.slow),
    ],
)
def test_all_devices_give_the_pixels_of_one(count, devices, size, names):
    answers = [answer.value for answer in run_together(predict_in_job, count, *size, names, devices=devices)]
    tiles = {'authors': authors_tiles(*size, 2), 'feathered': feathered_tiles(*size, 2, 32, 8)}
    for name in names:
        filled = -(-len(tiles[name]) // (2 * count * devices)) * 2 * count * devices
        for answer in answers:
            assert answer[name]['difference'] <= 1e-5
            assert answer[name]['is_same']  # on a CPU even bit for bit
            assert answer[name]['digest'] == answers[0][name]['digest']
            batch = [2 * devices, 2 * devices * count]
            assert answer[name]['batches'] == [batch] * (filled // batch[1])
            assert answer[name]['cut'] == filled // count  # each process cuts its own tiles alone


def restore_in_job(folder):
    """The command over a folder with a large, a small, a broken image and one whose output cannot be written."""
    os.chdir(folder)
    if jax.process_index() == 1:
        restore.plan = None  # it would look at the folders when the first process has written already
    writes = []

    def write_photo(target, strips, **about):
        writes.append(target.name)
        if target.name == 'full.png':
            next(strips)
            raise UserError(f'{target}: cannot be written: No space left on device')
        return write_really(target, strips, **about)

    write_really, restore_files.write_photo = restore_files.write_photo, write_photo
    restore.define_flags()
    with pytest.raises(UserError, match='must be started alike: weights is'):
        restore.main(flags.FLAGS(['restore', 'in', '--output=out', f'--model=model{jax.process_index() or ""}']))
    code = restore.main(flags.FLAGS(['restore', 'in', '--output=out', '--model=model', '--tile=32']))
    image = np.asarray(PIL.Image.open('in/large.png'))
    return code, writes, digest_of(Restorer.load('model', tile=32)(image))


def test_processes_restore_files_together(tmp_path):
    network, params, config = make_network()
    save_model(tmp_path / 'model', params, config)
    save_model(tmp_path / 'model1', jax.tree.map(np.zeros_like, params), config)
    (tmp_path / 'in').mkdir()
    images = {'full.png': random_image(150, 90), 'large.png': random_image(180, 150), 'small.png': random_image(20, 9)}
    for name, image in images.items():
        PIL.Image.fromarray(image).save(tmp_path / 'in' / name)
    (tmp_path / 'in' / 'broken.png').write_bytes((tmp_path / 'in' / 'large.png').read_bytes()[:500])
    first, second = run_together(restore_in_job, 2, str(tmp_path), devices=2)
    restorer = Restorer([(network, params)], 'sr', Tiling('feathered', 32, 16))
    expected = {name: restorer(images[name]) for name in ('large.png', 'small.png')}
    assert first.value == [1, ['full.png', 'large.png', 'small.png'], digest_of(expected['large.png'])]
    assert second.value == [1, [], digest_of(expected['large.png'])]
    errors = re.findall(r'^error: (.*)$', first.stderr, re.MULTILINE)
    assert len(errors) == 2 and 'in/broken.png' in errors[0] and 'No space left' in errors[1]
    assert 'error: ' not in second.stderr
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == sorted(expected)
    for name, pixels in expected.items():
        np.testing.assert_array_equal(read_photo(tmp_path / 'out' / name).pixels, pixels)
