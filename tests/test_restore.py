"""Restoring files: what is written, what is refused, and what a mistake says."""

import os
import re
import subprocess
import sys

import jax
import ml_collections
import numpy as np
import PIL.Image
import pytest

from nsr_jax import restore
from nsr_jax.data.images import read_image
from nsr_jax.errors import UserError
from nsr_jax.evaluation.inference import predict
from nsr_jax.evaluation.tiling import Tiling
from nsr_jax.models.cost import parameter_shapes
from nsr_jax.models.network import RestorationNetwork
from nsr_jax.training.checkpoints import save_model

MODEL = {
    'scale': 2, 'channels': 3, 'num_blocks': 1, 'features': 4, 'width_multiplier': 1, 'groups': 2, 'cardinality': 2,
    'gate': 'softmax',
}  # fmt: skip


def random_parameters(network):
    generator = np.random.RandomState(5)
    return jax.tree.map(lambda leaf: generator.normal(0, 0.3, leaf.shape).astype(np.float32), parameter_shapes(network))


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp('model')
    config = ml_collections.ConfigDict({'task': 'sr', 'model': MODEL})
    save_model(folder, random_parameters(RestorationNetwork(**MODEL)), config)
    return folder


def write(path, shape, seed=0):
    pixels = np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)
    path.parent.mkdir(exist_ok=True)
    PIL.Image.fromarray(pixels).save(path)
    return pixels


@pytest.mark.parametrize(('channels', 'network_channels'), [(1, 1), (1, 3), (3, 3)])
def test_identity_network_gives_back_all_256_values(channels, network_channels):
    network = RestorationNetwork(scale=1, channels=network_channels, num_blocks=1, features=2)
    parameters = random_parameters(network)
    parameters['tail']['scale'][:] = 0  # the body's answer is its bias alone
    parameters['tail']['bias'][:] = 0.3 / 255
    image = np.arange(256 * channels).reshape(16, 16, channels).astype(np.uint8)
    np.testing.assert_array_equal(restore.restore_image(network, parameters, image), image)
    parameters['tail']['bias'][:] = 0.7 / 255
    above = np.minimum(image.astype(int) + 1, 255)
    np.testing.assert_array_equal(restore.restore_image(network, parameters, image), above)


def test_gray_image_is_the_mean_of_the_colours():
    network = RestorationNetwork(**MODEL)
    parameters = random_parameters(network)
    gray = np.random.RandomState(1).randint(100, 140, (9, 8, 1)).astype(np.uint8)
    colours = predict(network, parameters, gray.repeat(3, axis=-1), tiling=Tiling('whole'))
    assert np.ptp(colours, axis=-1).max() > 0.01
    expected = np.rint(colours.astype(np.float64).mean(axis=-1, keepdims=True) * 255).clip(0, 255)
    np.testing.assert_array_equal(restore.restore_image(network, parameters, gray), expected)


def test_large_images_are_seen_by_feathered_tiles():
    network = RestorationNetwork(**MODEL)
    parameters = random_parameters(network)
    image = np.random.RandomState(2).randint(0, 256, (192, 193, 3)).astype(np.uint8)
    image[:96] //= 4
    for conv in parameters['block_00'].values():
        conv['gate']['kernel'] *= 100  # what a gate pools over matters
    whole, patches = (predict(network, parameters, image, tiling=Tiling(name)) for name in ('whole', 'feathered'))
    assert np.abs(whole - patches).max() > 0.02
    expected = np.rint(patches.astype(np.float64) * 255).clip(0, 255)
    np.testing.assert_array_equal(restore.restore_image(network, parameters, image), expected)


def test_values_that_are_not_finite_are_no_image():
    network = RestorationNetwork(**MODEL)
    parameters = random_parameters(network)
    parameters['tail']['bias'][0] = np.nan
    with pytest.raises(UserError, match='not finite'):
        restore.restore_image(network, parameters, np.zeros((8, 8, 3), np.uint8))


def test_command_restores_what_it_can(tmp_path, model):
    """One run over files, a folder, a JPEG, a gray image and a broken file, as a user would start it."""
    colour = write(tmp_path / 'colour.png', (7, 9, 3))
    gray = write(tmp_path / 'folder' / 'gray.bmp', (7, 9))
    write(tmp_path / 'folder' / 'photo.JPG', (7, 9, 3))
    broken = tmp_path / 'folder' / 'broken.png'
    broken.write_bytes((tmp_path / 'colour.png').read_bytes()[:100])
    (tmp_path / 'folder' / 'notes.txt').write_text('not an image')
    output = tmp_path / 'new' / 'out'
    arguments = ['colour.png', 'folder/', '--output=new/out', f'--model={model}']
    environment = os.environ | {'PYTHONPATH': os.getcwd()}
    run = subprocess.run(
        [sys.executable, '-m', 'nsr_jax.restore', *arguments],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 1, run.stderr
    assert re.search(r'^error: .*folder/broken\.png', run.stderr, re.MULTILINE)
    assert 'Traceback' not in run.stderr
    assert sorted(path.name for path in output.iterdir()) == ['colour.png', 'gray.png', 'photo.png']

    network = RestorationNetwork(**MODEL)
    parameters = random_parameters(network)
    np.testing.assert_array_equal(read_image(output / 'colour.png'), restore.restore_image(network, parameters, colour))
    np.testing.assert_array_equal(
        read_image(output / 'gray.png'), restore.restore_image(network, parameters, gray[:, :, None])
    )
    assert read_image(output / 'photo.png').shape == (14, 18, 3)
    np.testing.assert_array_equal(read_image(tmp_path / 'colour.png'), colour)


def test_mistakes_are_told_before_work(tmp_path, model):
    write(tmp_path / 'a.png', (4, 4, 3))
    write(tmp_path / 'more' / 'a.jpg', (4, 4, 3))
    (tmp_path / 'empty').mkdir()
    output = tmp_path / 'out'
    mistakes = [
        ([], output, model, 'nothing to restore'),
        ([tmp_path / 'a.png', tmp_path / 'absent.png'], output, model, 'absent.png: no such'),
        ([tmp_path / 'empty'], output, model, 'empty: no image'),
        ([tmp_path / 'a.png', tmp_path / 'more'], output, model, r'a\.png and .*a\.jpg would both become'),
        ([tmp_path / 'a.png'], tmp_path, model, 'would overwrite the input'),
        ([tmp_path / 'a.png'], tmp_path / 'a.png' / 'out', model, 'cannot be written into'),
        ([tmp_path / 'a.png'], tmp_path / 'a.png', model, 'cannot be written into'),
        ([tmp_path / 'a.png'], output, tmp_path / 'no_model', 'no_model'),
    ]
    before = (tmp_path / 'a.png').read_bytes()
    for inputs, out, directory, message in mistakes:
        with pytest.raises(UserError, match=message) as caught:
            restore.restore_files(inputs, out, directory)
        assert '\n' not in str(caught.value)
        assert not output.exists()
    assert (tmp_path / 'a.png').read_bytes() == before


def test_an_input_behind_another_name_is_not_overwritten(tmp_path):
    write(tmp_path / 'in' / 'a.png', (4, 4, 3))
    (tmp_path / 'link').symlink_to(tmp_path / 'in')
    with pytest.raises(UserError, match='would overwrite the input'):
        restore.plan([tmp_path / 'in' / 'a.png'], tmp_path / 'link')
    assert restore.plan([tmp_path / 'link'], tmp_path / 'out') == [
        (tmp_path / 'link' / 'a.png', tmp_path / 'out' / 'a.png')
    ]


def test_gray_network_refuses_colours_by_name(tmp_path, capsys):
    architecture = MODEL | {'scale': 1, 'channels': 1}
    config = ml_collections.ConfigDict({'task': 'denoise', 'model': architecture})
    save_model(tmp_path / 'model', random_parameters(RestorationNetwork(**architecture)), config)
    write(tmp_path / 'in' / 'colour.png', (8, 8, 3))
    write(tmp_path / 'in' / 'gray.png', (8, 8))
    assert restore.restore_files([tmp_path / 'in'], tmp_path / 'out', tmp_path / 'model') == 1
    assert 'colour.png: a network for gray images' in capsys.readouterr().err
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['gray.png']
