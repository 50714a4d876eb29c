"""The page on the layer: its code runs in order, and does what the text says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.documentation.printed import ROOT, python_blocks


@pytest.fixture(scope='module')
def names():
    names = {}
    for block in python_blocks('docs/layer.md'):
        exec(block, names)
    return names


def test_a_network_of_flax_linen(names):
    assert names['logits'].shape == (8, 3)
    assert names['weights'].shape == (8, 4, 4)
    np.testing.assert_allclose(names['weights'].sum(axis=1), 1, rtol=1e-5)
    assert names['outputs'].shape == (8, 32, 32, 32)


def test_kernels_strides_and_dilation(names):
    sides = {key: shape[1:3] for key, shape in names['shapes'].items()}
    assert sides == {(1, 1, 1): (32, 32), (3, 2, 1): (16, 16), (5, 1, 2): (32, 32), (7, 2, 2): (16, 16)}


def test_a_module_of_flax_nnx(names):
    """The bridge's parameters are those of Linen: they give its outputs, and they learn."""
    block, x = names['block'], names['x']
    assert names['bank'].shape == (3, 3, 16, 4, 4, 4)
    assert np.abs(names['gradients']['conv']['gate']['kernel'][...]).max() > 0
    layer = names['SparseConv'](16, groups=4, cardinality=4)
    state = nnx.to_pure_dict(nnx.state(block.conv, nnx.Param))
    np.testing.assert_allclose(block.conv(x), layer.apply({'params': state}, x), rtol=0, atol=1e-6)
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype('float32')}


def test_extents(names):
    np.testing.assert_allclose(names['padded'][0, :20, :32], names['alone'][0], rtol=0, atol=1e-5)


def test_printed_costs(names):
    text = (ROOT / 'docs' / 'layer.md').read_text(encoding='utf-8')
    for number in (*names['plain'], *names['sparse']):
        assert f'{number:,}' in text
    assert names['sparse'][0] / names['plain'][0] == pytest.approx(1.004, abs=5e-4)
