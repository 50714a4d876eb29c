"""Which nodes of a bank are kept for all inputs, for comparison with gates, which choose for each input.

A node is an output channel of one of k groups; one group is kept for each channel. `PRUNINGS` holds the choices by
their names in `config.model.pruning`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

# From kernels (kh, kw, Cin, k, Cout) and the layer's name to the kept groups, int32 (Cout,) from 0 to k - 1.
Pruning = Callable[[jax.Array, str], jax.Array]


def at_random(kernels: jax.Array, name: str) -> jax.Array:
    """A choice that depends on the layer's name alone; the weights that are kept differ with the seed of a run."""
    groups, features = kernels.shape[-2:]
    return jnp.asarray(np.random.default_rng(list(name.encode())).integers(groups, size=features, dtype=np.int32))


def by_magnitude(kernels: jax.Array, name: str) -> jax.Array:
    """The kernel with the largest sum of absolute weights (Li et al., 2017), at each step anew."""
    del name
    return jnp.argmax(jnp.sum(jnp.abs(kernels), axis=(0, 1, 2)), axis=0).astype(jnp.int32)


PRUNINGS: dict[str, Pruning] = {'random': at_random, 'magnitude': by_magnitude}
