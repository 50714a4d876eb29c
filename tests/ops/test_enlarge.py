import numpy as np
import pytest

from nsr_jax.ops.enlarge import enlarge
from nsr_jax.ops.imresize import imresize


@pytest.mark.parametrize('scale', [1, 2, 3, 4])
def test_equals_imresize_without_rounding(scale):
    images = np.random.default_rng(scale).random((2, 9, 1, 3))
    expected = np.stack([imresize(image, scale) for image in images])
    np.testing.assert_allclose(enlarge(images.astype('f'), scale), expected, rtol=0, atol=1e-6)
