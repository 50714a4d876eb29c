"""Convolutions: weight-normalised, sparse with a bank of weight-normalised kernels, and pruned."""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from nsr_jax.nn import gates
from nsr_jax.nn.initializers import uniform_by_fan_in
from nsr_jax.nn.pruning import Pruning
from nsr_jax.ops.conv import add_bias, mix, sample_conv, select, sparse_conv, static_conv
from nsr_jax.ops.extents import clear_outside


@jax.named_scope('normalize')
def normalize_weights(direction: jax.Array, scale: jax.Array) -> jax.Array:
    """Weight normalisation (Salimans and Kingma, 2016): `scale * direction / ||direction||`, no epsilon.

    Args:
        direction: `(kh, kw, Cin, ...)`; the norm is taken over the first three axes.
        scale: `(...)`, one for each filter.
    """
    return direction * (scale * lax.rsqrt(jnp.sum(jnp.square(direction), axis=(0, 1, 2))))[None, None, None]


def fold_weight_norm(params: Mapping[str, Any]) -> dict[str, Any]:
    """Normalise every kernel of a network once, for modules that are applied many times.

    Args:
        params: of a network; weight-normalised convolutions have a `direction` and a `scale`.

    Returns:
        The same tree with a `kernel` in place of these two, which the modules use as it is.
    """
    folded: dict[str, Any] = {
        name: fold_weight_norm(leaf) if isinstance(leaf, dict) else leaf for name, leaf in params.items()
    }
    if {'direction', 'scale'} <= folded.keys():
        folded['kernel'] = normalize_weights(folded.pop('direction'), folded.pop('scale'))
    return folded


def _kernel_parameters(module: nn.Module, shape: tuple[int, ...]) -> tuple[jax.Array, ...]:
    """The direction, of `shape` (kh, kw, Cin, ...), and the scale, (...); or the kernel if they have been folded."""
    if module.has_variable('params', 'kernel'):
        return (module.get_variable('params', 'kernel'),)
    direction = module.param('direction', uniform_by_fan_in(math.prod(shape[:3])), shape)
    return direction, module.param('scale', nn.initializers.constant(module.initial_scale), shape[3:], jnp.float32)


def _normalized(direction_or_kernel: jax.Array, scale: jax.Array | None = None) -> jax.Array:
    return direction_or_kernel if scale is None else normalize_weights(direction_or_kernel, scale)


@jax.custom_vjp
def _choose(parameters: tuple[jax.Array, ...], gamma: jax.Array) -> jax.Array:
    """As `_mix`, for weights of 0 and 1: the groups of weight 0 are not even read."""
    choice = jnp.argmax(gamma, axis=1)
    return jax.vmap(_normalized)(*(select(parameter, choice) for parameter in parameters))


def _mix(parameters: tuple[jax.Array, ...], gamma: jax.Array) -> jax.Array:
    return mix(_normalized(*parameters), gamma)


_choose.defvjp(
    lambda parameters, gamma: (_choose(parameters, gamma), (parameters, gamma)),
    lambda residuals, gradient: jax.vjp(_mix, *residuals)[1](gradient),
)


@jax.checkpoint  # as in `sparse_conv`
def _choose_and_convolve(
    x: jax.Array, parameters: tuple[jax.Array, ...], bias: jax.Array, gamma: jax.Array
) -> jax.Array:
    """As `sparse_conv` with the normalised bank, for weights of 0 and 1."""
    biases = _choose((bias[None, None, None],), gamma)[:, 0, 0, 0]
    return sample_conv(x, _choose(parameters, gamma).astype(x.dtype), biases)


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
    def __call__(self, x: jax.Array, inside: jax.Array | None = None) -> jax.Array:
        """Map `(B, H, W, Cin)` to `(B, H, W, features)` of `dtype`; `inside` is as in `ops.extents`."""
        x = clear_outside(x, inside)
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = _normalized(*_kernel_parameters(self, shape)).astype(self.dtype)
        bias = self.param('bias', nn.initializers.zeros, shape[3:], jnp.float32)
        return add_bias(static_conv(x.astype(self.dtype), kernel), bias)


class SparseConv(nn.Module):
    """A convolution whose kernels a gate mixes from k groups for each sample (Fan et al., section 3).

    It stands wherever a convolution would, in any Flax network; docs/layer.md shows how, and how to take it into NNX.

    Attributes:
        features: Cout, a multiple of `cardinality`.
        groups: k, the number of sparsity groups; the bank holds k * Cout filters.
        cardinality: d, the number of parts of the channels that each choose among the groups.
        activation: as in `gates.Gate`.
        pooling: as in `gates.Gate`.
        logit_scale: as in `gates.Gate`.
        noise: as in `gates.Gate`.
        kernel_size: side of the square kernels, odd.
        stride: the output has every stride-th row and column of that of stride 1, the first ones among them.
        dilation: the distance between two taps of a kernel, in pixels.
        initial_scale: the norm of each filter at the start.
        dtype: what the convolution is computed in; gate, normalisation and mixing are float32.
    """

    features: int
    groups: int
    cardinality: int
    activation: gates.Activation = gates.softmax
    pooling: gates.Pooling = gates.mean
    logit_scale: float = 1.0
    noise: float = 0.0
    kernel_size: int = 3
    initial_scale: float = 1.0
    dtype: jnp.dtype = jnp.float32
    stride: int = 1
    dilation: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, inside: jax.Array | None = None) -> jax.Array:
        """Convolve a batch of images.

        Args:
            x: `(B, H, W, Cin)`.
            inside: bool `(B, H, W, 1)`, which pixels belong to the images, as from `ops.extents.is_inside`: others are
                taken as zeros and left out of the gate's pooling. None: all.

        Returns:
            `(B, ceil(H / stride), ceil(W / stride), features)` of `dtype`.

        Raises:
            ValueError: `features` is no multiple of `cardinality`, or as in `ops.conv.sparse_conv`.
        """
        if self.features % self.cardinality:
            raise ValueError(f'features must be a multiple of cardinality {self.cardinality}, not {self.features}')
        x = clear_outside(x, inside)
        filters = (self.groups, self.cardinality, self.features // self.cardinality)
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], *filters)
        parameters = _kernel_parameters(self, shape)
        bias = self.param('bias', nn.initializers.zeros, filters, jnp.float32)
        # A copy, so that the gradients of the convolution and the gate are summed before that of a residual connection
        # is added. Otherwise XLA computes the sums of all later blocks anew in each block, which takes a twelfth of the
        # time of a step with 16 blocks.
        x = x * 1
        gamma = gates.Gate(
            self.groups,
            self.cardinality,
            activation=self.activation,
            pooling=self.pooling,
            logit_scale=self.logit_scale,
            noise=self.noise,
            name='gate',
        )(x, inside)
        x = x.astype(self.dtype)
        if self.activation in gates.ONE_HOT and (self.stride, self.dilation) == (1, 1):
            return _choose_and_convolve(x, parameters, bias, gamma)
        return sparse_conv(x, _normalized(*parameters), bias, gamma, stride=self.stride, dilation=self.dilation)


def squeeze_excitation_conv(features: int, **fields: Any) -> SparseConv:
    """A convolution whose output channels are weighted for each sample (Hu et al., 2018): `SparseConv` with d = Cout.

    The weights come from the pooled input, by a single layer.
    """
    return SparseConv(features, groups=1, cardinality=features, activation=gates.squeeze_excitation, **fields)


class PrunedConv(nn.Module):
    """A convolution with one of k weight-normalised kernels for each output channel, the same one for all inputs.

    The other filters are neither computed nor trained.

    Attributes:
        features: Cout.
        groups: k.
        pruning: chooses the kernels, as in `pruning.PRUNINGS`.
        kernel_size: side of the square kernels, odd.
        initial_scale: the norm of each filter at the start.
        dtype: what the convolution is computed in; parameters and normalisation are float32.
    """

    features: int
    groups: int
    pruning: Pruning
    kernel_size: int = 3
    initial_scale: float = 1.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, inside: jax.Array | None = None) -> jax.Array:
        """Map `(B, H, W, Cin)` to `(B, H, W, features)` of `dtype`; `inside` is as in `ops.extents`."""
        x = clear_outside(x, inside)
        filters = (self.groups, self.features, 1)
        parameters = _kernel_parameters(self, (self.kernel_size, self.kernel_size, x.shape[-1], *filters))
        bias = self.param('bias', nn.initializers.zeros, filters, jnp.float32)
        kept = self.pruning(_normalized(*parameters)[..., 0], '/'.join(self.path))[None]
        kernel = _normalized(*(select(parameter, kept)[0] for parameter in parameters)).astype(self.dtype)
        return add_bias(static_conv(x.astype(self.dtype), kernel), select(bias, kept)[0])
