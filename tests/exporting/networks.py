"""Small networks with random weights, for tests of what leaves the package."""

import jax
import ml_collections
import numpy as np

from nsr_jax.models.build import build_network
from nsr_jax.models.cost import parameter_shapes

GATED = {'scale': 2, 'channels': 3, 'num_blocks': 2, 'features': 8, 'groups': 3, 'cardinality': 2, 'gate': 'softmax'}
PLAIN = {'scale': 1, 'channels': 1, 'num_blocks': 1, 'features': 4}
CHAIN = {'architecture': 'chain', 'scale': 3, 'channels': 1, 'kernel_sizes': (3, 3), 'features': (4,)}
CHAIN |= {'adds_input': True}


def make_network(model, task='sr'):
    """A config, its network and random parameters, with gates that tell inputs well apart."""
    config = ml_collections.ConfigDict({'task': task, 'model': model})
    network, generator = build_network(config.model), np.random.RandomState(5)

    def draw(path, leaf):
        spread = 3 if 'gate' in jax.tree_util.keystr(path) else 0.5
        return generator.normal(0, spread, leaf.shape).astype(np.float32)

    return config, network, jax.tree.map_with_path(draw, parameter_shapes(network))


def random_images(channels, size):
    return np.random.RandomState(sum(size)).rand(*size, channels).astype(np.float32)


def apply(network, params, images):
    return np.asarray(jax.jit(network.apply)({'params': params}, images))
