"""The self-ensemble against identities and against loops by hand."""

import collections

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nsr_jax.inference.prediction import predict
from nsr_jax.inference.tiling import Tiling
from nsr_jax.models.cost import parameter_shapes
from nsr_jax.models.residual import RestorationNetwork
from tests import oracle

WHOLE = Tiling('whole')


def random_image(shape):
    return np.random.default_rng(0).uniform(0, 1, shape).astype(np.float32)


@pytest.fixture(scope='module')
def pair():
    """A network that is not equivariant, for its kernels are random."""
    network = RestorationNetwork(2, 3, num_blocks=1, features=4, groups=2, cardinality=2)
    generator = np.random.RandomState(1)
    shapes = parameter_shapes(network)
    return network, jax.tree.map(lambda leaf: generator.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)


class Position(nn.Module):
    """Not equivariant: enlarges, and multiplies by the row."""

    scale: int = 2
    channels: int = 1
    groups: int = 1
    traced = collections.Counter()  # noqa: RUF012

    def __call__(self, x):
        """Map (B, H, W, C) to (B, 2 H, 2 W, C)."""
        self.traced[x.shape] += 1
        x = x.repeat(2, axis=1).repeat(2, axis=2)
        return x * jnp.arange(x.shape[1], dtype=x.dtype)[None, :, None, None]


@pytest.mark.parametrize('shape', [(5, 8, 1), (7, 7, 1), (1, 4, 1)])
def test_what_depends_on_the_place_against_a_formula(shape):
    rows, columns = np.mgrid[: 2 * shape[0], : 2 * shape[1], :1][:2]
    height, width = 2 * shape[0] - 1, 2 * shape[1] - 1
    image = random_image(shape)
    expected = image.repeat(2, axis=0).repeat(2, axis=1) * (rows + (height - rows) + columns + (width - columns)) / 4
    np.testing.assert_allclose(predict(Position(), {}, image, tiling=WHOLE, ensemble=True), expected, rtol=1e-6)
    assert Position.traced[1, *shape] <= 2  # compiled once, for both orientations of a shape


@pytest.mark.parametrize('shape', [(5, 8, 3), (48, 48, 3), (60, 31, 1)])
def test_an_image_seen_whole_against_eight_predictions_of_it(pair, shape):
    """In arrays that it fills, and in larger ones."""
    image = random_image(shape)
    expected = oracle.self_ensemble(lambda given: predict(*pair, given, tiling=WHOLE), image)
    found = predict(*pair, image, tiling=WHOLE, ensemble=True)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert np.abs(found - predict(*pair, image, tiling=WHOLE)).max() > 1e-3


def test_the_authors_tiles_turn_one_by_one(pair):
    """In a square of this side all their patches lie in one grid, so that turning each is turning the image."""
    authors, image = Tiling('authors'), random_image((200, 200, 3))
    expected = oracle.self_ensemble(lambda given: predict(*pair, given, tiling=authors), image)
    found = predict(*pair, image, tiling=authors, ensemble=True)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert np.abs(found - predict(*pair, image, tiling=authors)).max() > 1e-3
    assert np.abs(found - predict(*pair, image, tiling=WHOLE, ensemble=True)).max() > 1e-4


@pytest.mark.parametrize('tiling', [Tiling('whole'), Tiling('feathered', 32, 8), Tiling('authors')], ids=str)
def test_an_equivariant_network_is_left_as_it_is(tiling):
    network = RestorationNetwork(1, 1, num_blocks=1, features=2, groups=2, cardinality=1, gate='uniform')
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), parameter_shapes(network))
    image = random_image((200, 193, 1))
    found, expected = (predict(network, params, image, tiling=tiling, ensemble=each) for each in (True, False))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
