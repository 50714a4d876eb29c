"""Pictures of validation images: the same middle of input, prediction and truth."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from nsr_jax.data.sources import Example
from nsr_jax.evaluation.samples import make_sampler
from nsr_jax.ops.imresize import imresize
from nsr_jax.tasks import Degradation, find_protocols


@dataclasses.dataclass(frozen=True)
class Repeats:
    """A network that repeats pixels and multiplies them by its parameter."""

    scale: int
    channels: int
    has_parts: bool = False
    is_gated: bool = False

    def apply(self, variables, x, extents=None):
        return variables['params']['gain'] * jnp.repeat(jnp.repeat(x, self.scale, axis=1), self.scale, axis=2)


def images_of(channels, *sizes):
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (*size, channels), np.uint8) for size in sizes]
    return [Example(f'{index}.png', image, imresize(image, 0.5)) for index, image in enumerate(images)]


def test_input_prediction_and_truth_stand_side_by_side():
    source = images_of(3, (220, 202), (40, 60), (40, 40))
    (protocol,) = find_protocols('sr', ['sr-y'])
    draw = make_sampler(Repeats(2, 3), source, protocol, Degradation('sr', 2), count=2)
    pictures = draw({'gain': jnp.float32(0.5)})
    assert {name: picture.shape for name, picture in pictures.items()} == {
        'validation/sample_0': (192, 3 * 192, 3),
        'validation/sample_1': (40, 3 * 60, 3),
    }
    given, prediction, truth = np.split(pictures['validation/sample_0'], 3, axis=1)
    lr = source[0].lr[7 : 7 + 96, 2 : 2 + 96]
    np.testing.assert_array_equal(given, lr.repeat(2, axis=0).repeat(2, axis=1))
    np.testing.assert_allclose(prediction, given / 2, atol=0.5)
    np.testing.assert_array_equal(truth, source[0].hr[14 : 14 + 192, 4 : 4 + 192])
    np.testing.assert_array_equal(pictures['validation/sample_1'][:, 120:], source[1].hr)


@pytest.mark.filterwarnings('error')  # of a cast of NaN, whose result depends on the processor
@pytest.mark.parametrize('gain', [1.0, np.nan])
def test_gray_images_and_predictions_without_numbers(gain):
    source = images_of(1, (48, 48))
    (protocol,) = find_protocols('denoise', ['denoise'])
    draw = make_sampler(Repeats(1, 1), source, protocol, Degradation('denoise', 25), count=5)
    (picture,) = draw({'gain': jnp.float32(gain)}).values()
    assert picture.shape == (48, 144, 3) and picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[:, 96:], source[0].hr.repeat(3, axis=2))
    noise = picture[:, :48].astype(float) - picture[:, 96:]
    assert 10 < noise.std() < 25  # clipped
    if np.isnan(gain):
        assert (picture[:, 48:96] == 0).all()
    else:
        np.testing.assert_array_equal(picture[:, 48:96], picture[:, :48])
