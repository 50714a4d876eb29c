"""Multi-Adds against sums over the layers by hand."""

import jax
import jax.numpy as jnp
import pytest

from nsr_jax.models.cost import MultiAdds, count_multi_adds, count_parameters, parameter_shapes
from nsr_jax.models.residual import RestorationNetwork

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


def conv(kernel_size, inputs, outputs):
    return kernel_size**2 * inputs * outputs


@pytest.mark.parametrize('name', ARCHITECTURES)
def test_total_is_the_sum_over_the_layers(name):
    network = RestorationNetwork(**ARCHITECTURES[name])
    outputs = network.scale**2 * network.channels
    pairs = [(network.features, network.hidden), (network.hidden, network.features)] * network.num_blocks
    per_pixel = conv(3, network.channels, network.features) + conv(3, network.features, outputs)
    per_pixel += conv(5, network.channels, outputs) if outputs != network.channels else 0
    per_pixel += sum(conv(3, *pair) for pair in pairs)
    once = 0
    if network.groups > 1:
        once += sum(network.groups * (conv(3, *pair) + pair[1]) for pair in pairs)  # mixed kernels and biases
        once += sum(inputs * network.groups * network.cardinality for inputs, _ in pairs)  # logits of the gates
    cost = count_multi_adds(network, (5 * network.scale, 7 * network.scale))
    assert cost == MultiAdds(5 * 7 * per_pixel, once)


@pytest.mark.parametrize('name', ['sparse', 'sparse wide x3', 'sparse gray'])
def test_sparse_convolutions_cost_what_plain_ones_do(name):
    sparse = ARCHITECTURES[name]
    plain = {field: value for field, value in sparse.items() if field not in ('groups', 'cardinality')}
    sparse_cost, plain_cost = (count_multi_adds(RestorationNetwork(**fields)) for fields in (sparse, plain))
    assert sparse_cost.convolutions == plain_cost.convolutions == plain_cost.total
    assert plain_cost.once == 0


def test_edsr_s_by_hand():
    # head, 32 block convolutions, tail to 2 * 2 * 3 channels and the 5x5 skip, on 640x360 pixels
    per_pixel = 9 * 3 * 64 + 32 * 9 * 64 * 64 + 9 * 64 * 12 + 25 * 3 * 12
    convolutions = 640 * 360 * per_pixel
    fields = {'scale': 2, 'channels': 3, 'num_blocks': 16, 'features': 64}
    assert count_multi_adds(RestorationNetwork(**fields)) == MultiAdds(convolutions, 0)
    # 4 groups: each of the 32 banks is summed once for an image, filters and biases; 4 * 16 logits of 64 means
    mixing, gates = 32 * 4 * (9 * 64 * 64 + 64), 32 * 64 * 4 * 16
    cost = count_multi_adds(RestorationNetwork(**fields, groups=4, cardinality=16))
    assert cost == MultiAdds(convolutions, mixing + gates)
    assert cost.total == convolutions + mixing + gates


def test_a_wide_block_mixes_and_gates_by_its_own_widths():
    network = RestorationNetwork(1, 1, 1, 4, width_multiplier=3, groups=2, cardinality=2)
    cost = count_multi_adds(network, (10, 10))
    assert cost.convolutions == 100 * 9 * (1 * 4 + 4 * 12 + 12 * 4 + 4 * 1)
    assert cost.once == 2 * (9 * 4 * 12 + 12) + 2 * (9 * 12 * 4 + 4) + 4 * 4 + 12 * 4


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


# Of one block of 8 features with 3 groups: parameters and Multi-Adds that are added to those of the plain network.
BANKS = 2 * 2 * (9 * 8 * 8 + 8 + 8)  # two more kernels, with their scales and biases, in both convolutions
GATES = 2 * (8 + 1) * 3 * 4  # from 8 means to 3 groups at 4 positions
LOGITS, MIXING = 2 * 8 * 3 * 4, 2 * 3 * (9 * 8 * 8 + 8)
CONSTRAINTS = {
    'softmax': ({'groups': 3, 'cardinality': 4}, BANKS + GATES, LOGITS + MIXING),
    'gumbel': ({'groups': 3, 'cardinality': 4, 'gate': 'gumbel'}, BANKS + GATES, LOGITS),
    'hard': ({'groups': 3, 'cardinality': 4, 'gate': 'hard'}, BANKS + GATES, LOGITS),
    'se': ({'gate': 'se'}, 2 * (8 + 1) * 8, 2 * (8 * 8 + 9 * 8 * 8 + 8)),
    'pruned': ({'groups': 3, 'pruning': 'random'}, BANKS, 0),
    'pruned by magnitude': ({'groups': 3, 'cardinality': 4, 'pruning': 'magnitude'}, BANKS, 0),
    'soft thresholds': ({'threshold': 'soft'}, 8, 0),
}


@pytest.mark.parametrize('name', CONSTRAINTS)
def test_what_a_constraint_costs(name):
    fields, parameters, once = CONSTRAINTS[name]
    plain = PLAIN | {'features': 8, 'num_blocks': 1}
    network, reference = RestorationNetwork(**plain | fields), RestorationNetwork(**plain)
    assert count_parameters(network) - count_parameters(reference) == parameters
    cost, expected = count_multi_adds(network), count_multi_adds(reference)
    assert cost == MultiAdds(expected.convolutions, once)
