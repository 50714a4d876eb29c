"""The pixel shuffle against PyTorch's order, spelled out in loops."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from nsr_jax.ops.pixel_shuffle import pixel_shuffle


@pytest.mark.parametrize(('scale', 'channels'), [(1, 3), (2, 3), (3, 1), (4, 2)])
def test_pytorchs_order(scale, channels):
    height, width = 2, 3
    x = np.random.default_rng(0).normal(size=(2, height, width, channels * scale**2)).astype(np.float32)
    expected = np.full((2, height * scale, width * scale, channels), np.nan, np.float32)
    # torch.nn.PixelShuffle: out[b, c, h * s + i, w * s + j] = x[b, c * s * s + i * s + j, h, w]
    for h, w, c, i, j in itertools.product(*map(range, (height, width, channels, scale, scale))):
        expected[:, h * scale + i, w * scale + j, c] = x[:, h, w, c * scale * scale + i * scale + j]
    np.testing.assert_array_equal(pixel_shuffle(jnp.asarray(x), scale), expected)


def test_channels_that_do_not_fit_the_scale():
    with pytest.raises(ValueError, match=r'6 channels .* scale 2: not a multiple of 4'):
        pixel_shuffle(jnp.zeros((1, 2, 2, 6)), 2)
