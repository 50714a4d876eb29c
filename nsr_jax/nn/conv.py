"""Convolutions: weight-normalised, and sparse with a bank of weight-normalised kernels."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from nsr_jax.nn import gates
from nsr_jax.nn.initializers import uniform_by_fan_in
from nsr_jax.ops.sample_conv import sample_conv
from nsr_jax.ops.sparse_conv import select, sparse_conv
from nsr_jax.ops.static_conv import add_bias, static_conv


@jax.named_scope('normalize')
def normalize_weights(direction: jax.Array, scale: jax.Array) -> jax.Array:
    """Weight normalisation (Salimans and Kingma, 2016): `scale * direction / ||direction||`, no epsilon.

    Args:
        direction: `(kh, kw, Cin, ...)`; the norm is taken over the first three axes.
        scale: `(...)`, one for each filter.
    """
    return direction * (scale * lax.rsqrt(jnp.sum(jnp.square(direction), axis=(0, 1, 2))))


class WeightNormConv(nn.Module):
    """A weight-normalised convolution, zero padding, stride 1.

    Attributes:
        features: Cout.
        kernel_size: side of the square kernel, odd.
        initial_scale: the norm of each filter at the start.
        dtype: what the convolution is computed in; parameters and normalisation are float32.
    """

    features: int
    kernel_size: int = 3
    initial_scale: float = 1.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map `(B, H, W, Cin)` to `(B, H, W, features)` of `dtype`."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        direction = self.param('direction', uniform_by_fan_in(math.prod(shape[:3])), shape)
        scale = self.param('scale', nn.initializers.constant(self.initial_scale), shape[3:])
        bias = self.param('bias', nn.initializers.zeros, shape[3:])
        kernel = normalize_weights(direction, scale).astype(self.dtype)
        return add_bias(static_conv(x.astype(self.dtype), kernel), bias)


class SparseConv(nn.Module):
    """A convolution whose kernels a gate mixes from k groups for each sample (Fan et al., section 3).

    Attributes:
        features: Cout, a multiple of `cardinality`.
        groups: k, the number of sparsity groups; the bank holds k * Cout filters.
        cardinality: d, into how many parts the channels are split that choose among the groups on their own.
        activation: of the gate.
        kernel_size: side of the square kernels, odd.
        initial_scale: the norm of each filter at the start.
        dtype: what the convolution is computed in; gate, normalisation and mixing are float32.
    """

    features: int
    groups: int
    cardinality: int
    activation: gates.Activation = gates.softmax
    kernel_size: int = 3
    initial_scale: float = 1.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map `(B, H, W, Cin)` to `(B, H, W, features)` of `dtype`."""
        filters = (self.groups, self.cardinality, self.features // self.cardinality)
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], *filters)
        direction = self.param('direction', uniform_by_fan_in(math.prod(shape[:3])), shape)
        scale = self.param('scale', nn.initializers.constant(self.initial_scale), filters)
        bias = self.param('bias', nn.initializers.zeros, filters)
        gamma = gates.Gate(self.groups, self.cardinality, self.activation, name='gate')(x)
        x = x.astype(self.dtype)
        if self.activation is gates.hard:  # the other groups are not even read
            choice = jnp.argmax(gamma, axis=1)
            kernels = jax.vmap(normalize_weights)(select(direction, choice), select(scale, choice))
            return add_bias(sample_conv(x, kernels.astype(self.dtype)), select(bias, choice)[:, None, None])
        return sparse_conv(x, normalize_weights(direction, scale), bias, gamma)
