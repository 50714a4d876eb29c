"""The self-ensemble against identities and against loops by hand."""

import collections
import functools

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from nsr_jax.inference.image_ensemble import self_ensemble
from nsr_jax.inference.prediction import predict
from nsr_jax.inference.tiling import Tiling

SIZES = [(5, 8, 3), (7, 7, 1), (1, 4, 3), (6, 3, 1)]


def random_image(shape):
    return np.random.default_rng(0).uniform(0, 1, shape).astype(np.float32)


@pytest.mark.parametrize('shape', SIZES)
def test_an_equivariant_predictor_is_left_exactly_as_it_is(shape):
    """Enlarging by nearest neighbours plus a sum over four neighbours, which are added in a fixed order of values."""

    def predictor(image):
        padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
        neighbours = np.sort([padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]], axis=0)
        y = image + neighbours[0] + neighbours[1] + neighbours[2] + neighbours[3]
        return y.repeat(2, axis=0).repeat(2, axis=1)

    image = random_image(shape)
    result = self_ensemble(predictor, image)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, predictor(image))


@pytest.mark.parametrize('shape', SIZES)
def test_any_other_predictor_against_rotations_by_hand(shape):
    """The eight transforms as four rotations with and without a mirror, in a loop, undone pixel by pixel."""

    def predictor(image):
        rows, columns = np.mgrid[: 2 * image.shape[0], : 2 * image.shape[1]]
        return image.repeat(2, axis=0).repeat(2, axis=1) * (1 + rows + 10 * columns)[..., None] + rows[..., None] ** 2

    image = random_image(shape)
    # Where each output pixel comes from is followed through the transforms by its number.
    numbers = np.arange(4 * shape[0] * shape[1]).reshape(2 * shape[0], 2 * shape[1])
    total = np.zeros((2 * shape[0], 2 * shape[1], shape[2]))
    for turns in range(4):
        for mirror in (False, True):

            def move(array, turns=turns, mirror=mirror):
                turned = np.rot90(array, turns)
                return turned[:, ::-1] if mirror else turned

            prediction, moved = predictor(move(image)), move(numbers)
            for place in np.ndindex(moved.shape):
                row, column = divmod(int(moved[place]), 2 * shape[1])
                total[row, column] += prediction[place]
    result = self_ensemble(predictor, image)
    np.testing.assert_allclose(result, total / 8, rtol=1e-6)
    assert np.abs(result - predictor(image)).max() > 1


class Position(nn.Module):
    """Not equivariant: multiplies by the row."""

    scale: int = 1
    channels: int = 1
    groups: int = 1
    traced = collections.Counter()  # noqa: RUF012

    def __call__(self, x):
        """Map (B, H, W, C) to the same."""
        self.traced[x.shape] += 1
        return x * jnp.arange(x.shape[1], dtype=x.dtype)[None, :, None, None]


def test_whole_images_compile_two_shapes():
    predictor = functools.partial(predict, Position(), {}, tiling=Tiling('whole'))
    image = random_image((5, 9, 1))
    rows, columns = np.mgrid[:5, :9, :1][:2]
    expected = image * (rows + (4 - rows) + columns + (8 - columns)) / 4
    np.testing.assert_allclose(self_ensemble(predictor, image), expected, rtol=1e-6)
    assert Position.traced == {(1, 5, 9, 1): 1, (1, 9, 5, 1): 1}


def test_the_predictor_is_given_the_image_as_it_came():
    seen = []

    def predictor(image):
        seen.append(image.copy())
        return image / 255

    image = np.random.default_rng(1).integers(0, 256, (4, 6, 3), np.uint8)
    np.testing.assert_array_equal(self_ensemble(predictor, image), (image / 255).astype(np.float32))
    assert len(seen) == 8 and all(each.dtype == np.uint8 for each in seen)
    assert len({(each.shape, each.tobytes()) for each in seen}) == 8
