import jax
import numpy as np
import pytest
import scipy.signal
from ml_collections import ConfigDict

from configs.base import get_base
from configs.presets import CHAINS, set_model
from nsr_jax.errors import UserError
from nsr_jax.models.build import build_network
from nsr_jax.models.chain import ChainNetwork
from nsr_jax.models.cost import count_multi_adds, count_parameters
from nsr_jax.ops.imresize import imresize


def convolve(image, kernel, bias):
    """(H, W, Cin), (kh, kw, Cin, Cout) -> (H, W, Cout), one plane after another."""
    planes = [
        sum(scipy.signal.correlate2d(image[..., i], kernel[..., i, o], mode='same') for i in range(image.shape[-1]))
        for o in range(kernel.shape[-1])
    ]
    return np.stack(planes, axis=-1) + bias


def by_definition(network, params, x):
    """(H, W, C) to (scale H, scale W, C) in float64."""
    image = y = imresize(x.astype(float), network.scale)
    last = len(network.features)
    for index in range(last + 1):
        layer = params[f'conv_{index:02}']
        y = convolve(y, np.asarray(layer['kernel'], float), np.asarray(layer['bias'], float))
        y = np.maximum(y, 0) if index < last else y
    return y + image if network.adds_input else y


@pytest.mark.parametrize(('scale', 'adds_input'), [(2, True), (1, True), (1, False)])
def test_forward_is_the_definition(scale, adds_input):
    network = ChainNetwork(scale, 2, kernel_sizes=(5, 3, 1), features=(4, 3), adds_input=adds_input)
    x = np.random.default_rng(0).random((1, 7, 6, 2)).astype('f')
    params = jax.jit(network.init)(jax.random.key(0, impl='rbg'), x)['params']
    params = jax.tree.map(lambda leaf: leaf + 0.01, params)  # biases that matter
    actual = network.apply({'params': params}, x)
    np.testing.assert_allclose(actual[0], by_definition(network, params, x[0]), rtol=0, atol=2e-6)


@pytest.mark.parametrize(('scale', 'adds_input'), [(3, True), (1, False)])
def test_what_is_beside_an_image_changes_nothing(scale, adds_input):
    """Each image is enlarged and convolved as if it were alone."""
    network = ChainNetwork(scale, 2, kernel_sizes=(9, 3, 5), features=(4, 3), adds_input=adds_input)
    x = np.random.default_rng(0).random((3, 12, 10, 2)).astype('f')
    params = jax.jit(network.init)(jax.random.key(0, impl='rbg'), x)['params']
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)  # biases that matter
    extents = [(7, 9), (1, 10), (12, 3)]
    together = jax.jit(network.apply)({'params': params}, x, np.array(extents, np.int32))
    for image, restored, (height, width) in zip(x, together, extents, strict=True):
        alone = by_definition(network, params, image[:height, :width])
        kept = restored[: scale * height, : scale * width]
        np.testing.assert_allclose(kept, alone, rtol=0, atol=1e-5 * max(1, np.abs(alone).max()))


@pytest.mark.parametrize(
    ('name', 'weights', 'biases'),
    # As published for VDSR and ARCNN; DnCNN counted without its batch normalisation.
    [('vdsr', 664_704, 19 * 64 + 1), ('dncnn', 554_112, 16 * 64 + 1), ('arcnn', 106_448, 113)],
)
def test_parameters(name, weights, biases):
    config = get_base()
    set_model(config, name, scale=1, channels=1)
    network = build_network(config.model)
    assert count_parameters(network) == weights + biases
    assert count_multi_adds(network, (10, 20)).total == weights * 200


def test_configs_of_chains_are_checked():
    for name in CHAINS:
        config = get_base()
        set_model(config, name, scale=2, channels=1)
        assert isinstance(hash(build_network(config.model)), int)  # compiled functions take networks as keys
    with pytest.raises(UserError, match=r'odd whole numbers.*\(3, 4\)'):
        ChainNetwork(1, 1, kernel_sizes=(3, 4), features=(8,), adds_input=True)
    with pytest.raises(UserError, match='3 convolutions need 2 numbers of features, not 1'):
        ChainNetwork(1, 1, kernel_sizes=(3, 3, 3), features=(8,), adds_input=True)
    with pytest.raises(UserError, match="'num_blocks' is none of scale, channels, kernel_sizes, features, adds"):
        build_network(ConfigDict({'architecture': 'chain', 'num_blocks': 3}))
