"""Gates: how a sample chooses among the sparsity groups (Fan et al., section 3.2).

All of them read the same two parameters, so a network trained with one can be run with another. `GATES` holds them by
name: `config.model.gate`.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from nsr_jax.errors import UserError
from nsr_jax.nn.initializers import uniform_by_fan_in

Activation = Callable[[jax.Array], jax.Array]


def softmax(logits: jax.Array) -> jax.Array:
    """The paper's relaxation of a 1-of-k choice: `(B, k, d)` to `(B, k, d)`, sums to one over k."""
    return jax.nn.softmax(logits, axis=-2)


def sigmoid(logits: jax.Array) -> jax.Array:
    """Independent weights of the groups, as in CondConv (Yang et al., 2019): `(B, k, d)` to `(B, k, d)`."""
    return jax.nn.sigmoid(logits)


def uniform(logits: jax.Array) -> jax.Array:
    """No adaptivity: every group counts 1/k for every input."""
    return jnp.full_like(logits, 1 / logits.shape[-2])


def hard(logits: jax.Array) -> jax.Array:
    """The group of the largest logit alone, a true 1-of-k choice, for inference: it has no useful gradient."""
    return jax.nn.one_hot(jnp.argmax(logits, axis=-2), logits.shape[-2], axis=-2, dtype=logits.dtype)


GATES: dict[str, Activation] = {'softmax': softmax, 'sigmoid': sigmoid, 'uniform': uniform, 'hard': hard}


def find_gate(name: str) -> Activation:
    """The gate of this name.

    Raises:
        UserError: there is none.
    """
    if name not in GATES:
        raise UserError(f'unknown gate {name!r}: one of {", ".join(GATES)}, or that of a --plugin')
    return GATES[name]


class Gate(nn.Module):
    """Weights of the groups from the mean of the features over the whole image; float32 throughout.

    Attributes:
        groups: k.
        cardinality: d.
        activation: logits `(B, k, d)` to weights `(B, k, d)`.
    """

    groups: int
    cardinality: int
    activation: Activation = softmax

    @nn.compact
    def __call__(self, x: jax.Array, inside: jax.Array | None = None) -> jax.Array:
        """Map features `(B, H, W, Cin)` to weights gamma `(B, k, d)`; `inside` is as in `ops.extents`."""
        shape = (self.groups, self.cardinality)
        initializer = uniform_by_fan_in(x.shape[-1])
        kernel = self.param('kernel', initializer, (x.shape[-1], *shape), jnp.float32)
        bias = self.param('bias', initializer, shape, jnp.float32)
        pooled = jnp.mean(x, axis=(1, 2), dtype=jnp.float32, where=inside)
        gamma = self.activation(jnp.einsum('bc,ckd->bkd', pooled, kernel) + bias[None])
        self.sow('intermediates', 'gamma', gamma)  # kept only where a caller asks for intermediates
        return gamma
