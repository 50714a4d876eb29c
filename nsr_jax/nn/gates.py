"""Gates, by which a sample chooses among the sparsity groups (Fan et al., section 3.2).

All of them have the same two parameters, so a network trained with one can run with another, except with `se`. `GATES`
holds them by their names in `config.model.gate`.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from nsr_jax.errors import UserError
from nsr_jax.nn.initializers import uniform_by_fan_in
from nsr_jax.ops.settings import fixed_bits

Activation = Callable[[jax.Array], jax.Array]
Pooling = Callable[[jax.Array, jax.Array | None], jax.Array]

SMALL = 1e-6  # keeps square roots and divisors away from zero


def softmax(logits: jax.Array) -> jax.Array:
    """The paper's relaxation of a 1-of-k choice: `(B, k, d)` to `(B, k, d)`, sums to one over k."""
    return jax.nn.softmax(logits, axis=-2)


def sigmoid(logits: jax.Array) -> jax.Array:
    """Independent weights of the groups, as in CondConv (Yang et al., 2019): `(B, k, d)` to `(B, k, d)`."""
    return jax.nn.sigmoid(logits)


def uniform(logits: jax.Array) -> jax.Array:
    """No adaptivity: every group has weight 1/k for every input."""
    return jnp.full_like(logits, 1 / logits.shape[-2])


def hard(logits: jax.Array) -> jax.Array:
    """Only the group of the largest logit, a true 1-of-k choice, with the gradient of softmax (straight-through)."""
    choice = jax.nn.one_hot(jnp.argmax(logits, axis=-2), logits.shape[-2], axis=-2, dtype=logits.dtype)
    soft = softmax(logits)
    return choice + (soft - lax.stop_gradient(soft))


def gumbel(logits: jax.Array) -> jax.Array:
    """As `hard`, but in training `Gate` adds noise to the logits (Jang et al. and Maddison et al., 2017)."""
    return hard(logits)


def squeeze_excitation(logits: jax.Array) -> jax.Array:
    """A weight on (0, 1) for each channel (Hu et al., 2018): of k = 1 group there is nothing to choose."""
    return sigmoid(logits)


GATES: dict[str, Activation] = {
    'softmax': softmax,
    'sigmoid': sigmoid,
    'gumbel': gumbel,
    'hard': hard,
    'uniform': uniform,
    'se': squeeze_excitation,
}
ONE_HOT = (hard, gumbel)  # their weights are zeros and ones


def find_gate(name: str) -> Activation:
    """The gate of this name. Raises `UserError` for an unknown one."""
    if name not in GATES:
        raise UserError(f'unknown gate {name!r}: one of {", ".join(GATES)}, or that of a --plugin')
    return GATES[name]


def mean(x: jax.Array, inside: jax.Array | None) -> jax.Array:
    """The paper's pooling: the mean of each feature over the image, `(B, H, W, C)` to `(B, C)`."""
    return jnp.mean(x, axis=(1, 2), dtype=jnp.float32, where=inside)


def normalized_mean(x: jax.Array, inside: jax.Array | None) -> jax.Array:
    """The means divided by their root mean square over the features, so that all inputs have the same size."""
    means = mean(x, inside)
    return means * jax.lax.rsqrt(jnp.mean(jnp.square(means), axis=-1, keepdims=True) + SMALL)


def rms(x: jax.Array, inside: jax.Array | None) -> jax.Array:
    """The root mean square of each feature over the image, in which ripples of opposite sign do not cancel."""
    squares = jnp.mean(jnp.square(x.astype(jnp.float32)), axis=(1, 2), where=inside)
    return jnp.sqrt(squares + SMALL)


def mean_and_deviation(x: jax.Array, inside: jax.Array | None) -> jax.Array:
    """Mean and standard deviation of each feature over the image, `(B, H, W, C)` to `(B, 2 C)`."""
    means = mean(x, inside)
    squares = jnp.mean(jnp.square(x.astype(jnp.float32)), axis=(1, 2), where=inside)
    return jnp.concatenate([means, jnp.sqrt(jnp.maximum(squares - jnp.square(means), 0) + SMALL)], axis=-1)


POOLINGS: dict[str, Pooling] = {
    'mean': mean,
    'normalized_mean': normalized_mean,
    'rms': rms,
    'mean_and_deviation': mean_and_deviation,
}


def find_pooling(name: str) -> Pooling:
    """The pooling of this name. Raises `UserError` for an unknown one."""
    if name not in POOLINGS:
        raise UserError(f'unknown gate_pooling {name!r}: one of {", ".join(POOLINGS)}')
    return POOLINGS[name]


class Gate(nn.Module):
    """Weights of the groups from features that are pooled over the whole image; float32 throughout.

    Attributes:
        groups: k.
        cardinality: d.
        activation: maps logits `(B, k, d)` to weights `(B, k, d)`.
        pooling: maps features `(B, H, W, C)` to values `(B, C')`, in which the logits are linear.
        logit_scale: what the logits are multiplied by, 1 over their temperature.
        noise: factor of the Gumbel noise that is added to the logits where there is a random stream 'noise', as in
            training.
    """

    groups: int
    cardinality: int
    activation: Activation = softmax
    pooling: Pooling = mean
    logit_scale: float = 1.0
    noise: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, inside: jax.Array | None = None) -> jax.Array:
        """Map features `(B, H, W, Cin)` to weights gamma `(B, k, d)`; `inside` is as in `ops.extents`."""
        shape = (self.groups, self.cardinality)
        pooled = self.pooling(x, inside)
        initializer = uniform_by_fan_in(pooled.shape[-1])
        kernel = self.param('kernel', initializer, (pooled.shape[-1], *shape), jnp.float32)
        bias = self.param('bias', initializer, shape, jnp.float32)
        logits = jnp.einsum('bc,ckd->bkd', pooled, kernel) + bias[None]
        if self.noise and self.has_rng('noise'):
            with fixed_bits():
                logits += self.noise * jax.random.gumbel(self.make_rng('noise'), logits.shape)
        gamma = self.activation(logits if self.logit_scale == 1 else logits * self.logit_scale)
        self.sow('intermediates', 'gamma', gamma)  # kept only if a caller asks for intermediates
        return gamma
