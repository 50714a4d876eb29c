"""Multi-Adds against those of the traced network, and against sums by hand."""

import math

import jax
import jax.numpy as jnp
import pytest

from nsr_jax.models.cost import MultiAdds, count_multi_adds, count_parameters, parameter_shapes
from nsr_jax.models.network import RestorationNetwork

PLAIN = {'scale': 2, 'channels': 3, 'num_blocks': 2, 'features': 6}
SPARSE = PLAIN | {'features': 8, 'groups': 3, 'cardinality': 4}
ARCHITECTURES = {
    'plain': PLAIN,
    'plain wide x3': PLAIN | {'scale': 3, 'width_multiplier': 4},
    'plain gray': PLAIN | {'scale': 1, 'channels': 1},
    'sparse': SPARSE,
    'sparse wide x3': SPARSE | {'scale': 3, 'num_blocks': 1, 'width_multiplier': 2, 'cardinality': 2},
    'sparse gray': SPARSE | {'scale': 1, 'channels': 1, 'num_blocks': 3, 'cardinality': 8},
}


def traced_multi_adds(network, height, width):
    """Multiply-accumulates of every convolution, matrix product and mixing in the traced network, loops unrolled."""
    image = jax.ShapeDtypeStruct((1, height, width, network.channels), jnp.float32)
    variables = {'params': parameter_shapes(network)}
    return _count(jax.make_jaxpr(network.apply)(variables, image).jaxpr)


def _count(jaxpr):
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == 'conv_general_dilated':
            kernel, out = equation.invars[1].aval, equation.outvars[0].aval
            output_axis = equation.params['dimension_numbers'].rhs_spec[0]
            total += out.size * kernel.size // kernel.shape[output_axis]
            continue
        if equation.primitive.name == 'dot_general':
            (contracted, _), _ = equation.params['dimension_numbers']
            lengths = (equation.invars[0].aval.shape[axis] for axis in contracted)
            total += equation.outvars[0].aval.size * math.prod(lengths)
            continue
        if equation.primitive.name == 'mul' and 'mix' in str(equation.source_info.name_stack):
            total += equation.outvars[0].aval.size
            continue
        if equation.primitive.name == 'cond':  # the forms of different platforms: the same work
            counts = {_count(branch.jaxpr) for branch in equation.params['branches']}
            assert len(counts) == 1
            total += counts.pop()
            continue
        times = equation.params.get('length', 1) if equation.primitive.name == 'scan' else 1
        inner = [sub for value in equation.params.values() for sub in _jaxprs(value)]
        total += times * sum(map(_count, inner))
    return total


def _jaxprs(value):
    """The jaxpr that an equation's parameter is, closed or not, if it is one."""
    value = getattr(value, 'jaxpr', value)
    return [value] if hasattr(value, 'eqns') else []


@pytest.mark.parametrize('name', ARCHITECTURES)
def test_total_is_that_of_the_traced_network(name):
    network = RestorationNetwork(**ARCHITECTURES[name])
    height, width = 5, 7
    cost = count_multi_adds(network, (height * network.scale, width * network.scale))
    assert cost.total == traced_multi_adds(network, height, width)


@pytest.mark.parametrize('name', ['sparse', 'sparse wide x3', 'sparse gray'])
def test_sparse_convolutions_cost_what_plain_ones_do(name):
    sparse = ARCHITECTURES[name]
    plain = {field: value for field, value in sparse.items() if field not in ('groups', 'cardinality')}
    sparse_cost, plain_cost = (count_multi_adds(RestorationNetwork(**fields)) for fields in (sparse, plain))
    assert sparse_cost.convolutions == plain_cost.convolutions == plain_cost.total
    assert plain_cost.mixing == plain_cost.gates == 0


def test_edsr_s_by_hand():
    # head, 32 block convolutions, tail to 2 * 2 * 3 channels and the 5x5 skip, on 640x360 pixels
    per_pixel = 9 * 3 * 64 + 32 * 9 * 64 * 64 + 9 * 64 * 12 + 25 * 3 * 12
    convolutions = 640 * 360 * per_pixel
    fields = {'scale': 2, 'channels': 3, 'num_blocks': 16, 'features': 64}
    assert count_multi_adds(RestorationNetwork(**fields)) == MultiAdds(convolutions, 0, 0)
    # 4 groups: each of the 32 banks is summed once for an image, filters and biases; 4 * 16 logits of 64 means
    mixing, gates = 32 * 4 * (9 * 64 * 64 + 64), 32 * 64 * 4 * 16
    cost = count_multi_adds(RestorationNetwork(**fields, groups=4, cardinality=16))
    assert cost == MultiAdds(convolutions, mixing, gates)
    assert cost.total == convolutions + mixing + gates


def test_a_wide_block_mixes_and_gates_by_its_own_widths():
    network = RestorationNetwork(1, 1, 1, 4, width_multiplier=3, groups=2, cardinality=2)
    cost = count_multi_adds(network, (10, 10))
    assert cost.convolutions == 100 * 9 * (1 * 4 + 4 * 12 + 12 * 4 + 4 * 1)
    assert cost.mixing == 2 * (9 * 4 * 12 + 12) + 2 * (9 * 12 * 4 + 4)
    assert cost.gates == 4 * 4 + 12 * 4


def test_a_scale_that_does_not_divide_the_output():
    network = RestorationNetwork(scale=3, channels=1, num_blocks=1, features=2)
    per_pixel = 9 * (2 + 2 * 2 + 2 * 2 + 2 * 9) + 25 * 9
    # 1280 is no multiple of 3: the field counts 1280 * 720 / 9 = 102,400 input pixels.
    assert count_multi_adds(network).convolutions == 102_400 * per_pixel
    assert count_multi_adds(network, (10, 11)).convolutions == 110 * per_pixel / 9


def test_shapes_are_of_the_tree_that_init_makes():
    network = RestorationNetwork(**SPARSE | {'num_blocks': 1})
    parameters = jax.jit(network.init)(jax.random.key(0, impl='rbg'), jnp.zeros((1, 4, 4, 3)))['params']
    assert jax.tree.map(jnp.shape, parameters) == jax.tree.map(jnp.shape, parameter_shapes(network))
    assert count_parameters(network) == sum(leaf.size for leaf in jax.tree.leaves(parameters))
