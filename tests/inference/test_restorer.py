"""Restoring in Python: every kind of image, against predictions made and rounded apart."""

import copy
import itertools
import os
import pathlib
import pickle
import signal
import subprocess
import sys

import flax.linen as nn
import jax
import numpy as np
import PIL.Image
import pytest

import nsr_jax
from nsr_jax import shipped
from nsr_jax.errors import UserError
from nsr_jax.evaluation.protocols import round_prediction
from nsr_jax.images.reading import read_image
from nsr_jax.inference.prediction import predict
from nsr_jax.inference.restorer import Restorer, make_tiling
from nsr_jax.inference.tiling import Tiling
from nsr_jax.models.residual import RestorationNetwork
from nsr_jax.ops.enlarge import enlarge
from nsr_jax.ops.imresize import imresize
from nsr_jax.restoring.plan import Job
from nsr_jax.restoring.restore_files import restore_files
from nsr_jax.training.checkpoints import save_model
from tests.oracle import self_ensemble

ROOT = pathlib.Path(__file__).parents[2]
FEATHERED = Tiling('feathered', 96, 16)


def identity(channels, change=0.0, scale=1):
    """A network that adds a constant to each channel, and its parameters."""
    network = RestorationNetwork(scale=scale, channels=channels, num_blocks=1, features=2)
    parameters = jax.tree.map(np.zeros_like, network.init(jax.random.key(0), np.zeros((1, 8, 8, channels)))['params'])
    parameters['tail']['bias'] = parameters['tail']['bias'] + np.float32(change)
    for conv in (parameters['head'], parameters['tail'], *parameters['block_00'].values()):
        conv['direction'] = np.ones_like(conv['direction'])  # its norm is divided by
    return network, parameters


@pytest.fixture
def pair(random_model):
    """A network of colours x2 with random weights that gates matter in, and its parameters."""
    config, parameters = random_model('sr', 2, 3)
    for conv in parameters['block_00'].values():
        conv['gate']['kernel'] *= 100
    return RestorationNetwork(**config.model.to_dict()), parameters


def random_image(shape, dtype=np.uint8, seed=0):
    values = np.random.RandomState(seed).random_sample(shape)
    return values.astype(dtype) if np.dtype(dtype).kind == 'f' else (values * np.iinfo(dtype).max).round().astype(dtype)


@pytest.mark.parametrize(('channels', 'network_channels'), [(1, 1), (1, 3), (3, 3)])
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_identity_network_gives_back_every_value(channels, network_channels, dtype):
    largest = np.iinfo(dtype).max
    side = 16 if dtype == np.uint8 else 256
    image = np.arange((largest + 1) * channels).reshape(side, side, channels).astype(dtype)
    for change, added in ((0.3, 0), (0.7, 1), (-0.7, -1)):
        restored = Restorer([identity(network_channels, change / largest)], 'denoise')(image)
        assert restored.dtype == dtype
        np.testing.assert_array_equal(restored, (image.astype(int) + added).clip(0, largest))


@pytest.mark.parametrize(('mode', 'shape'), [('L', (9, 7)), ('LA', (9, 7, 2)), ('RGB', (9, 7, 3)), ('RGBA', (9, 7, 4))])
def test_an_image_of_pillow_is_restored_as_its_pixels(mode, shape):
    image = random_image(shape)
    restorer = Restorer([identity(3)], 'denoise')
    np.testing.assert_array_equal(restorer(PIL.Image.fromarray(image, mode)), restorer(image))
    deep = random_image((9, 7), np.uint16)
    np.testing.assert_array_equal(restorer(PIL.Image.fromarray(deep)), deep)


def test_a_bar_counts_images_and_moves_with_their_tiles(capfd):
    restorer = Restorer([identity(1)], 'denoise')
    image = random_image((20, 250))
    restorer([image, image])
    assert capfd.readouterr().err == ''
    restorer([image, image], progress=True)
    error = capfd.readouterr().err
    assert '0.00 of 2 images' in error and '2.00 of 2 images' in error


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('size', [(20, 31), (60, 250)])
def test_8_bits_are_the_rounded_prediction(pair, channels, size):
    image = random_image((*size, channels))
    image[:, :100] //= 4
    prediction = predict(*pair, image, tiling=FEATHERED)
    restored = Restorer([pair], 'sr')(image)
    np.testing.assert_array_equal(restored, round_prediction(prediction, channels))
    if max(size) > 96:  # and what a network sees at once matters here
        assert np.abs(prediction - predict(*pair, image, tiling=Tiling('whole'))).max() > 0.02


@pytest.mark.parametrize('dtype', [np.uint16, np.float16, np.float32, np.float64])
def test_other_dtypes_are_restored_in_their_own_precision(pair, dtype):
    image = random_image((20, 31, 3), dtype)
    largest = np.iinfo(dtype).max if dtype == np.uint16 else 1
    expected = predict(*pair, (image / largest).astype(np.float32), tiling=FEATHERED).clip(0, 1)
    assert 0.05 < (expected % 1 == 0).mean() < 0.95  # some of it is clipped
    restored = Restorer([pair], 'sr')(image)
    assert restored.dtype == dtype
    error = np.abs(restored / largest - expected).max()
    assert error <= {np.uint16: 0.51 / 65535, np.float16: 2**-11}.get(dtype, 1e-6)


def test_shapes_are_kept_and_lists_are_restored_one_by_one(pair):
    model = Restorer([pair], 'sr')
    shapes = [(5, 7), (8, 6, 1), (6, 6, 2), (120, 3, 3), (9, 9, 4)]
    images = [random_image(shape, seed=i) for i, shape in enumerate(shapes)]
    restored = model(images)
    assert [each.shape for each in restored] == [(10, 14), (16, 12, 1), (12, 12, 2), (240, 6, 3), (18, 18, 4)]
    for image, each in zip(images, restored, strict=True):
        np.testing.assert_array_equal(model(image), each)
    np.testing.assert_array_equal(model(images[0][..., None])[..., 0], restored[0])


def test_gray_image_is_the_mean_of_the_colours(pair):
    gray = random_image((9, 8, 1)) // 8 + 110
    colours = predict(*pair, gray.repeat(3, axis=-1), tiling=Tiling('whole'))
    assert np.ptp(colours, axis=-1).max() > 0.01
    expected = np.rint(colours.astype(np.float64).mean(axis=-1, keepdims=True) * 255).clip(0, 255)
    np.testing.assert_array_equal(Restorer([pair], 'sr')(gray), expected)


def test_a_restorer_shows_itself_in_one_line():
    networks = identity(1), identity(3)
    gray, colour = (f'{sum(leaf.size for leaf in jax.tree.leaves(params)):,}' for _, params in networks)
    assert repr(Restorer(networks, 'denoise', ensemble=True)) == (
        f'Restorer(task denoise, scale 1, gray network of {gray} parameters and RGB network of {colour} parameters, '
        'tiling feathered 96/16, ensemble of 8)'
    )
    assert repr(Restorer([identity(3, scale=2)], 'sr', Tiling('whole'))).startswith('Restorer(task sr, scale 2, RGB ')


def test_each_image_takes_its_own_network_for_denoising():
    model = Restorer([identity(1, 10 / 255), identity(3, 20 / 255)], 'denoise')
    assert np.unique(model(np.full((8, 8), 100, np.uint8))) == 110
    colours = np.full((8, 8, 3), [100, 50, 0], np.uint8)
    np.testing.assert_array_equal(model(colours), colours + 20)
    opaque = np.concatenate([colours, np.full((8, 8, 1), 255, np.uint8)], axis=-1)
    np.testing.assert_array_equal(model(opaque)[..., :3], colours + 20)


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize('has_alpha', [False, True])
def test_gray_stored_as_colours_is_restored_as_gray(dtype, has_alpha):
    """By the gray network, bit by bit, and in three equal channels; one pixel of colour makes it a colour image."""
    gray = random_image((20, 30, 2), dtype)
    model = Restorer([identity(1, 10 / 255), identity(3, 20 / 255)], 'denoise')
    image = gray[..., [0, 0, 0, 1] if has_alpha else [0, 0, 0]]
    expected = model(gray if has_alpha else gray[..., :1])
    restored = model(image)
    assert restored.shape == image.shape and restored.dtype == dtype
    np.testing.assert_array_equal(restored, expected[..., [0, 0, 0, 1] if has_alpha else [0, 0, 0]])
    largest = 1 if np.dtype(dtype).kind == 'f' else np.iinfo(dtype).max
    image[19, 29] = np.asarray([largest, 0, 0, largest])[: image.shape[-1]]
    assert not np.isclose(model(image)[0, 0, 0], restored[0, 0, 0], atol=largest / 100)


def test_files_of_gray_stored_as_colours_are_restored_as_gray(package, tmp_path):
    package('denoise_gray', 'denoise_colour')
    model = Restorer.load('denoise')
    gray = random_image((20, 30))
    PIL.Image.fromarray(gray.repeat(3).reshape(20, 30, 3)).save(tmp_path / 'a.png')
    PIL.Image.fromarray(gray.repeat(3).reshape(20, 30, 3)).save(tmp_path / 'b.jpg', quality=75)
    jobs = [Job(tmp_path / name, tmp_path / 'out' / f'{name}.png') for name in ('a.png', 'b.jpg')]
    assert restore_files(jobs, model, output_format='PNG')[0] == []
    for given, job in zip((gray, np.asarray(PIL.Image.open(tmp_path / 'b.jpg'))[..., 1]), jobs, strict=True):
        restored = np.asarray(PIL.Image.open(job.target))
        np.testing.assert_array_equal(restored, model(given)[..., None].repeat(3, axis=-1))


def test_gray_stays_gray_in_a_network_of_colours(pair):
    """Whose channels answer gray differently: their mean is the result, as that of a gray image."""
    gray = random_image((20, 31, 1)) // 8 + 110
    model = Restorer([pair], 'sr')
    restored = model(gray.repeat(3, axis=-1))
    np.testing.assert_array_equal(restored, model(gray).repeat(3, axis=-1))
    np.testing.assert_array_equal(np.concatenate(list(model.strips(gray.repeat(3, axis=-1)))), restored)


def test_a_gray_network_for_jpeg_changes_y_alone(random_model):
    """Against Pillow's JFIF colours, apart from their rounding."""
    config, parameters = random_model('jpeg', 1, 1)
    network = RestorationNetwork(**config.model.to_dict())
    image = random_image((100, 40, 3)) // 2 + 64
    to_ycc = [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
    y, cb, cr = exact = np.moveaxis(image @ np.transpose(to_ycc), -1, 0) + np.array([0, 128, 128])[:, None, None]
    of_pillow = np.asarray(PIL.Image.fromarray(image).convert('YCbCr')).astype(np.float64)
    assert np.abs(np.moveaxis(exact, 0, -1) - of_pillow).max() <= 1
    restored_y = predict(network, parameters, (y / 255)[..., None], tiling=FEATHERED)[..., 0] * 255
    assert np.abs(restored_y - y).max() > 20
    red, blue = restored_y + 1.402 * (cr - 128), restored_y + 1.772 * (cb - 128)
    green = restored_y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128)
    expected = np.stack([red, green, blue], axis=-1).clip(0, 255)
    assert np.abs(Restorer([(network, parameters)], 'jpeg')(image) - expected).max() < 0.501


def test_chroma_of_jpeg_files_is_restored_where_a_network_has_colours(package, tmp_path):
    """Without one Cb and Cr stay; gray files are the gray network's in any case."""
    colour, gray = random_image((20, 30, 3)) // 2 + 64, random_image((20, 30))
    for name, pixels in (('colour', colour), ('gray', gray)):
        PIL.Image.fromarray(pixels).save(tmp_path / f'{name}.jpg', quality=40)
    stored = {name: np.asarray(PIL.Image.open(tmp_path / f'{name}.jpg')) for name in ('colour', 'gray')}

    def restored(name, folder):
        job = Job(tmp_path / f'{name}.jpg', tmp_path / folder / f'{name}.png')
        assert restore_files([job], Restorer.load('jpeg'), output_format='PNG')[0] == []
        return np.asarray(PIL.Image.open(job.target))

    package('jpeg_gray')
    changes = restored('colour', 'before').astype(int) - stored['colour']
    kept = np.ptp(changes, axis=-1)[(restored('colour', 'before') % 255 > 0).all(axis=-1)]  # where nothing is clipped
    assert kept.size > 100 and kept.max() <= 1 and np.abs(changes).max() > 20
    package('jpeg_colour')
    np.testing.assert_array_equal(restored('colour', 'after'), Restorer.load('jpeg_colour')(stored['colour']))
    assert np.ptp(restored('colour', 'after').astype(int) - stored['colour'], axis=-1).max() > 20
    np.testing.assert_array_equal(restored('gray', 'after'), Restorer.load('jpeg_gray')(stored['gray']))


def test_a_gray_network_for_noise_refuses_colours():
    with pytest.raises(UserError, match='a network for gray images cannot restore a colour image'):
        Restorer([identity(1)], 'denoise')(random_image((8, 8, 3)))


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize('size', [(12, 10), (130, 20)])
def test_alpha_is_enlarged_and_full_alpha_changes_nothing(pair, dtype, size):
    model = Restorer([pair], 'sr')
    image = random_image((*size, 4), dtype)
    largest = 1 if np.dtype(dtype).kind == 'f' else np.iinfo(dtype).max
    restored = model(image)
    expected = imresize(image[..., 3].astype(np.float64), 2).clip(0, largest)
    assert np.abs(restored[..., 3] - expected).max() <= (2e-5 if dtype == np.float32 else 0.51)
    image[..., 3] = largest
    opaque = model(image)
    assert (opaque[..., 3] == largest).all()
    np.testing.assert_array_equal(opaque[..., :3], model(image[..., :3]))


def test_alpha_is_kept_where_the_size_is():
    image = random_image((16, 16, 2))
    image[..., 1] = np.arange(256).reshape(16, 16)
    restored = Restorer([identity(1)], 'denoise')(image)
    np.testing.assert_array_equal(restored[..., 1], image[..., 1])
    np.testing.assert_array_equal(restored[1:, :, 0], image[1:, :, 0])


def test_ensemble_of_one_tile_is_that_of_the_image(pair):
    image = random_image((20, 31, 3))
    expected = self_ensemble(lambda given: predict(*pair, given, tiling=FEATHERED), image)
    plain, mean = (Restorer([pair], 'sr', ensemble=ensemble)(image / 255) for ensemble in (False, True))
    np.testing.assert_allclose(mean, expected.clip(0, 1), atol=2e-6)
    assert np.abs(plain - mean).max() > 0.05


def test_ensemble_of_tiles_turns_with_the_image(pair):
    """97 = 96 + 1 pixels: two tiles on each side, which a turn maps onto one another."""
    image = random_image((97, 97, 1), np.float64)
    model = Restorer([pair], 'sr', ensemble=True)
    turned = model(np.rot90(image))
    np.testing.assert_allclose(np.rot90(model(image)), turned, atol=1e-5)
    assert np.abs(turned - np.rot90(Restorer([pair], 'sr')(image))).max() > 0.05


def test_strips_are_the_image_and_no_strip_is_large(pair):
    image = random_image((400, 20, 3))
    model = Restorer([pair], 'sr')
    strips = list(model.strips(image))
    assert len(strips) > 3
    assert max(map(len, strips)) <= 2 * 96
    np.testing.assert_array_equal(np.concatenate(strips), model(image))


def test_an_answer_that_is_not_finite_is_no_image(pair):
    pair[1]['tail']['bias'][0] = np.nan
    with pytest.raises(UserError, match='not finite'):
        Restorer([pair], 'sr')(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        ([1, 2], 'must be a NumPy array, not int'),
        (None, 'must be a NumPy array, not NoneType'),
        (np.ndarray, 'must be a NumPy array, not type'),
        (PIL.Image.new('P', (4, 4)), 'an image of Pillow must be L, LA, RGB, RGBA, I;16, not P: convert it'),
        (np.array([[None]]), 'array of numbers, not of object'),
        (np.zeros((4, 4), complex), 'not complex128'),
        (jax.numpy.zeros((4, 4), jax.numpy.bfloat16), 'not bfloat16'),
        ('photo.png', 'must be a NumPy array, not str'),
        (np.zeros((4, 4), np.int64), 'must be uint8, .* not int64'),
        (np.zeros((4, 4), bool), 'not bool'),
        (np.zeros(4, np.uint8), r'not \(4,\)'),
        (np.zeros((4, 4, 5), np.uint8), r'not \(4, 4, 5\)'),
        (np.zeros((1, 4, 4, 3), np.uint8), r'not \(1, 4, 4, 3\)'),
        (np.zeros((0, 4, 3), np.uint8), r'not \(0, 4, 3\)'),
        (np.full((4, 4), 255.0), r'must be on \[0, 1\], not from 255 to 255'),
        (np.full((4, 4), np.nan), r'must be on \[0, 1\]'),
        (np.full((4, 4), np.inf, np.float16), r'must be on \[0, 1\]'),
    ],
)
def test_what_is_no_image_is_said(pair, image, message):
    with pytest.raises(UserError, match=message):
        Restorer([pair], 'sr')(image)


class Tensor:
    """As of another library: NumPy can ask it for an array."""

    def __init__(self, values):
        self._values = values

    def __array__(self, dtype=None, copy=None):
        return self._values


GIVEN = {
    'matrix': np.matrix,
    'masked array with nothing masked': np.ma.array,
    'jax.Array': jax.numpy.asarray,
    'tensor': Tensor,
    'Fortran order': np.asfortranarray,
    'negative strides': lambda image: np.ascontiguousarray(image[::-1, ::-1])[::-1, ::-1],
    'every second': lambda image: image.repeat(2, axis=0).repeat(2, axis=1)[::2, ::2],
    'swapped bytes': lambda image: image.astype(image.dtype.newbyteorder()),
    'read-only': lambda image: np.frombuffer(image.tobytes(), image.dtype).reshape(image.shape),
}


@pytest.mark.parametrize('name', GIVEN)
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
@pytest.mark.filterwarnings('ignore:the matrix subclass')
def test_arrays_of_all_kinds_are_restored_as_plain_ones(pair, name, dtype):
    model = Restorer([pair], 'sr')
    shape = (20, 31) if name == 'matrix' else (20, 31, 3)
    image = random_image(shape, dtype)
    restored = model(GIVEN[name](image))
    assert type(restored) is np.ndarray and restored.dtype == dtype
    np.testing.assert_array_equal(restored, model(image))


def test_masked_values_are_refused(pair):
    image = np.ma.array(random_image((8, 8)), mask=np.eye(8, dtype=bool))
    with pytest.raises(UserError, match='masked values'):
        Restorer([pair], 'sr')(image)


def test_strips_say_what_they_take(pair):
    model = Restorer([pair], 'sr')
    for pixels, alpha, message in [
        (np.zeros((4, 4), np.uint8), None, r'height, width, 1 or 3\), not \(4, 4\)'),
        (np.zeros((4, 4, 4), np.uint8), None, r'not \(4, 4, 4\)'),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), np.uint8), r'not uint8 \(4, 5\)'),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint16), r'uint8 \(4, 4\), not uint16'),
    ]:
        with pytest.raises(UserError, match=message):
            model.strips(pixels, alpha)


@pytest.mark.parametrize('is_copied', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_restores_the_same(package, is_copied):
    package('denoise_gray', 'denoise_colour')
    model = Restorer.load('denoise', tile=np.int64(40))
    copied = is_copied(model)
    for shape in ((10, 12), (12, 9, 3)):
        np.testing.assert_array_equal(copied(random_image(shape)), model(random_image(shape)))
    assert (copied.task, copied.tiling, copied.mesh) == ('denoise', Tiling('feathered', 40, 16), model.mesh)
    other = is_copied(Restorer([identity(1)], 'jpeg', ensemble=True))
    assert (other.task, other.ensemble, other.mesh) == ('jpeg', True, None)


@pytest.mark.filterwarnings('ignore:os.fork')
@pytest.mark.skipif(not hasattr(os, 'fork'), reason='there is no fork here')
def test_a_forked_process_is_told_instead_of_waiting_for_ever(package):
    package('sr_x2')
    model = Restorer.load('sr_x2')
    image = random_image((8, 8, 3))
    model(image)
    pickled = pickle.dumps(model)
    for function in (lambda: model(image), lambda: Restorer.load('sr_x2'), lambda: pickle.loads(pickled)):
        child = os.fork()
        if child == 0:
            signal.alarm(60)  # of a process that hangs
            try:
                function()
            except UserError as error:
                os._exit(7 if 'forked' in str(error) else 8)
            finally:
                os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_three_lines(package, tmp_path):
    """What the documentation shows, by a shipped name and by a folder."""
    package('sr_x2')
    model = nsr_jax.Restorer.load('sr_x2')
    image = random_image((10, 12, 3))
    output = model(image)
    assert output.shape == (20, 24, 3)
    assert model.task == 'sr'
    packed = shipped.load_shipped('sr_x2')
    save_model(tmp_path / 'same', packed.params, packed.config)
    np.testing.assert_array_equal(Restorer.load(tmp_path / 'same')(image), output)


def test_what_is_asked_for_is_done(package, monkeypatch):
    package('sr_x2', 'denoise_gray', 'denoise_colour')
    model = Restorer.load('sr_x2', tile=40, ensemble=True, dtype='bfloat16', device='cpu')
    assert str(model.tiling) == 'feathered 40/16'
    assert str(Restorer.load('sr_x2', tile=8).tiling) == 'feathered 8/4'
    image = random_image((10, 12, 3), np.float32)
    exact = Restorer.load('sr_x2', ensemble=True)(image)
    assert 1e-4 < np.abs(model(image) - exact).max() < 0.1
    assert [network.channels for network, _ in Restorer.load('denoise').networks] == [1, 3]
    assert [device.platform for device in model.mesh.devices] == ['cpu'] * jax.device_count('cpu')


def test_mistakes_are_told_before_weights_are_read(package, monkeypatch, tmp_path):
    package('sr_x2')
    monkeypatch.setattr(shipped, 'load_shipped', None)
    mistakes = [
        ('sr_x3', {}, 'no weights called sr_x3 come with the package; there are: sr_x2'),
        ('denoise', {}, 'no weights called denoise_colour come with the package; there are: sr_x2'),
        ('jpeg', {}, 'no weights called jpeg_colour come with the package; there are: sr_x2'),
        (tmp_path / 'absent', {}, 'absent: there is no such folder'),
        ('sr_x2', {'which': 'first'}, "which checkpoint must be best or last, not 'first'"),
        ('sr_x2', {'tile': 1}, 'tile'),
        ('sr_x2', {'tile': 9.5}, 'tile'),
        ('sr_x2', {'tile': True}, 'tile'),
        ('sr_x2', {'tile': np.float32(40)}, 'tile'),
        ('sr_x2', {'tile': None}, 'tile'),
        (None, {}, 'a model must be a name or the path of a folder, not None'),
        (b'sr_x2', {}, "a model must be a name or the path of a folder, not b'sr_x2'"),
        ('x' * 300, {}, 'xxx: neither a folder nor weights'),
        ('a\0b', {}, 'contains a character that no path can have'),
        ('sr_x2', {'ensemble': 'no'}, "ensemble must be True or False, not 'no'"),
        ('sr_x2', {'dtype': ['float32']}, 'unknown dtype'),
        ('sr_x2', {'device': 0}, "a device must be the name of a platform, such as 'cpu', not 0"),
        ('sr_x2', {'dtype': 'int8'}, "unknown dtype 'int8': one of float32, bfloat16"),
        ('sr_x2', {'device': 'abacus'}, "no device 'abacus' here; there is cpu"),
    ]
    for name, options, message in mistakes:
        with pytest.raises(UserError, match=message) as caught:
            Restorer.load(name, **options)
        assert '\n' not in str(caught.value)


def test_importing_the_package_loads_nothing_else():
    code = (
        'import sys, nsr_jax; assert not {"jax", "numpy", "flax"} & sys.modules.keys(), "loaded"; '
        'from nsr_jax import Restorer; assert Restorer.__module__ == "nsr_jax.inference.restorer"; '
        'assert not hasattr(nsr_jax, "Restore")'
    )
    command = [sys.executable, '-c', code]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def excess_at_borders(image, borders, reach):
    """How much larger jumps between neighbouring columns are at these columns than between those beside them."""
    jumps = np.abs(np.diff(image.astype(np.float64), axis=1)).mean(axis=(0, 2))  # jumps[c] is from c to c + 1
    beside = [np.delete(jumps[border - reach : border - 1 + reach], reach - 1).mean() for border in borders]
    return np.mean([jumps[border - 1] for border in borders]) - np.mean(beside)


class PoolingNetwork(nn.Module):
    """Enlarges, and adds what depends on all that it is given: the worst that gates could do to neighbouring tiles."""

    scale: int = 2
    channels: int = 3
    groups: int = 2

    def __call__(self, x):
        """Map (B, H, W, C) to (B, 2 H, 2 W, C)."""
        return enlarge(x, self.scale) + 0.3 * (x.mean(axis=(1, 2, 3), keepdims=True) - 0.5)


def test_no_seams_in_photographs(data_dir):
    """Jumps at the borders of tiles exceed those inside by less than 1 of 255; without fading it is 2.

    More than they do in the photograph itself, that is: blocks of JPEG end where tiles do.
    """
    models = {'pooling': Restorer([(PoolingNetwork(), {})], 'sr', make_tiling(32))}
    models |= {name: Restorer.load(name, tile=32) for name in shipped.shipped_names()[:1]}
    photographs = [read_image(path)[:160, :160] for path in sorted((data_dir / 'test' / 'Set14' / 'HR').iterdir())[:3]]
    starts = [round(place) for place in np.linspace(0, 160 - 32, 9)]  # of tiles that share 16 pixels or a little more
    for name, model in models.items():
        borders = [model.scale * (first + 32 + second) // 2 for first, second in itertools.pairwise(starts)]
        excesses = []
        for photograph in photographs:
            restored, plain = model(photograph), imresize(photograph, model.scale)
            for image, sign in ((restored, 1), (plain, -1)):
                sides = image, image.swapaxes(0, 1)
                excesses += [2 * sign * excess_at_borders(side, borders, 6) for side in sides]
        assert abs(np.mean(excesses)) < 1, name
