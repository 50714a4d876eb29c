"""Gates whose weights are the same for all inputs, folded into plain convolutions."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from nsr_jax.models.build import Network
from nsr_jax.models.residual import RestorationNetwork
from nsr_jax.nn import gates
from nsr_jax.nn.layers import normalize_weights
from nsr_jax.nn.pruning import PRUNINGS
from nsr_jax.ops.conv import mix

# Fields of a `RestorationNetwork` without gates.
PLAIN = {'groups': 1, 'cardinality': 1, 'gate': 'softmax', 'pruning': ''}


def convolutions(network: Any) -> Iterator[tuple[str, str]]:
    """The convolutions in the blocks of a `RestorationNetwork`, as the two keys of their parameters."""
    return ((f'block_{block:02}', f'conv_{conv}') for block in range(network.num_blocks) for conv in (1, 2))


def fold_gates(
    network: Network, params: Mapping[str, Any], gammas: Mapping[tuple[str, str], jax.Array]
) -> tuple[Network, dict[str, Any]]:
    """The network of plain convolutions whose kernels are mixed by the same weights for all inputs.

    Args:
        network: a `RestorationNetwork` with gates or pruning.
        params: its parameters.
        gammas: the weights, `(k, d)`, by the keys of `convolutions`.

    Returns:
        A network without gates, which has an equal output wherever the gates' weights are `gammas`, and its parameters.
    """
    folded: dict[str, Any] = {name: dict(part) for name, part in params.items()}
    for block, conv in convolutions(network):
        given, gamma = params[block][conv], gammas[block, conv][None]
        kernel = mix(normalize_weights(given['direction'], given['scale']), gamma)[0]
        norm = jnp.sqrt(jnp.sum(jnp.square(kernel), axis=(0, 1, 2)))
        # A filter of zeros has no direction.
        direction = jnp.where(norm[None, None, None] == 0, jnp.ones_like(kernel), kernel)
        bias = mix(given['bias'][None, None, None], gamma)[0, 0, 0, 0]
        folded[block][conv] = {'direction': direction, 'scale': norm, 'bias': bias}
    return network.clone(**PLAIN), folded


def fold_known_gates(network: Network, params: Mapping[str, Any]) -> tuple[Network, Mapping[str, Any]]:
    """As `fold_gates` where the architecture alone says how kernels are mixed: pruning, and gate 'uniform'.

    Other networks stay as they are.
    """
    if not isinstance(network, RestorationNetwork) or network.groups == 1:
        return network, params
    gammas = {}
    for block, conv in convolutions(network):
        given = params[block][conv]
        *_, groups, positions, _ = given['direction'].shape
        if network.pruning:
            kernels = normalize_weights(given['direction'], given['scale'])
            kept = PRUNINGS[network.pruning](kernels[..., 0], f'{block}/{conv}')
            gammas[block, conv] = jax.nn.one_hot(kept, groups, axis=0)
        elif gates.find_gate(network.gate) is gates.uniform:
            gammas[block, conv] = jnp.full((groups, positions), 1 / groups)
        else:
            return network, params
    return fold_gates(network, params, gammas)
