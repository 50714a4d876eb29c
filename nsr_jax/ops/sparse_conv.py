"""The sparse convolution of neural sparse representation (Fan et al., NeurIPS 2020, section 3).

For each sample b a gate gives weights `gamma[b, k, d]` over k sparsity groups at each of d cardinal positions. By
linearity the weighted sum of the groups' outputs is one convolution with the weighted sum of their kernels, so the
cost is that of a single group.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax import lax

from nsr_jax.ops.bias import add_bias
from nsr_jax.ops.sample_conv import check_odd, sample_conv
from nsr_jax.ops.static_conv import static_conv

Implementation = Literal['loop', 'matmul', 'mix_last', 'vmap']


@jax.custom_vjp
@jax.named_scope('mix')
def mix(bank: jax.Array, gamma: jax.Array) -> jax.Array:
    """Sum the groups of a bank of kernels with each sample's weights.

    Args:
        bank: `(kh, kw, Cin, k, d, Cout / d)`.
        gamma: `(B, k, d)`.

    Returns:
        `(B, kh, kw, Cin, Cout)` of the bank's dtype, with Cout ordered `(d, Cout / d)`.
    """
    *kernel, groups, _, width = bank.shape
    # Cardinal positions are written out to channels, over which XLA's code then runs in one piece: with 16 groups that
    # takes a quarter of the time. Forward, a sum of k products in one pass takes a third of the time of an einsum on a
    # CPU; differentiated, seven times as long. Hence the derivative by hand.
    weights = jnp.repeat(gamma.astype(bank.dtype), width, axis=2)[:, None, None, None]
    bank = bank.reshape(*kernel, groups, -1)
    return sum(weights[..., group, :] * bank[None, ..., group, :] for group in range(groups))


def _mix_forward(bank, gamma):
    return mix(bank, gamma), (bank, gamma)


@jax.named_scope('mix')
def _mix_backward(residuals, gradient):
    bank, gamma = residuals
    batch, (*_, groups, cardinality, width) = gradient.shape[0], bank.shape
    split = gradient.reshape(*gradient.shape[:-1], cardinality, width)
    bank_gradient = jnp.einsum('bhwide,bkd->hwikde', split, gamma.astype(bank.dtype))
    # A product and a sum in one pass: as an einsum, transposing for it takes more than half of the time. Summed over
    # all rows at once, XLA's code for one sample takes 20 times as long.
    rows = (bank.shape[0] * bank.shape[1], bank.shape[2])
    products = gradient.reshape(batch, *rows, 1, cardinality * width) * bank.reshape(1, *rows, groups, -1)
    gamma_gradient = products.sum(axis=1).sum(axis=1).reshape(batch, groups, cardinality, width).sum(axis=3)
    return bank_gradient, gamma_gradient.astype(gamma.dtype)


mix.defvjp(_mix_forward, _mix_backward)


def select(bank: jax.Array, choice: jax.Array) -> jax.Array:
    """Read one group at each cardinal position: what mixing with weights of 0 and 1 gives, without the mixing.

    Args:
        bank: `(..., k, d, Cout / d)`.
        choice: int `(B, d)`, from 0 to k - 1.

    Returns:
        `(B, ..., Cout)`.
    """
    bank, positions = jnp.asarray(bank), jnp.arange(bank.shape[-2])
    selected = jax.vmap(lambda groups: bank[..., groups, positions, :])(choice)
    return selected.reshape(*selected.shape[:-2], -1)


def _conv_by_vmap(x: jax.Array, kernels: jax.Array) -> jax.Array:
    """The definition: a convolution for each sample. The oracle of every other implementation, and the slowest."""

    def convolve(image, kernel):
        return lax.conv_general_dilated(
            image[None], kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
        )[0]

    return jax.vmap(convolve)(x, kernels)


def _conv_then_mix(x: jax.Array, bank: jax.Array, gamma: jax.Array) -> jax.Array:
    """By linearity the same: all groups' outputs, then each sample's sum of them."""
    outputs = static_conv(x, bank.reshape(*bank.shape[:3], -1).astype(x.dtype))
    outputs = outputs.reshape(*x.shape[:3], *bank.shape[3:])
    mixed = jnp.einsum('bhwkde,bkd->bhwde', outputs, gamma, preferred_element_type=jnp.float32)
    return mixed.reshape(*x.shape[:3], -1).astype(x.dtype)


def sparse_conv(
    x: jax.Array,
    bank: jax.Array,
    bias: jax.Array,
    gamma: jax.Array,
    *,
    implementation: Implementation | None = None,
) -> jax.Array:
    """Convolve each sample with its own mixture of the bank's kernels; zero padding, stride 1.

    Args:
        x: `(B, H, W, Cin)`, float32 or bfloat16: the dtype of the convolution.
        bank: `(kh, kw, Cin, k, d, Cout / d)`, kh and kw odd: k groups of kernels, split in d cardinal groups.
        bias: `(k, d, Cout / d)`, mixed as the kernels are.
        gamma: `(B, k, d)`, the gate's weights.
        implementation: 'loop' and 'matmul', the forms of `sample_conv`; 'mix_last', every group's convolution and
          then the sum of their outputs, k times the computation; 'vmap', the definition. None is 'loop' on a CPU and
          'matmul' elsewhere.

    Returns:
        `(B, H, W, Cout)` of x's dtype.

    Raises:
        ValueError: shapes that do not fit one another, an even kernel, or an unknown implementation.
    """
    _check_shapes(x, bank, bias, gamma)
    if implementation not in (None, *get_args(Implementation)):
        raise ValueError(f'unknown implementation {implementation!r}: one of {", ".join(get_args(Implementation))}')
    # A matrix product, which XLA does not fuse into the addition, where it would mix again for each pixel.
    biases = jnp.einsum('kde,bkd->bde', bias, gamma.astype(bias.dtype)).reshape(x.shape[0], -1)
    if implementation == 'mix_last':
        return add_bias(_conv_then_mix(x, bank, gamma), biases[:, None, None])

    # The backward pass keeps x, the bank and gamma and mixes again: B mixed kernels for each layer would fill the
    # memory (2.4 GB for EDSR-L at batch 64), and mixing is 0.2 % of the convolution.
    @jax.checkpoint
    def mix_and_convolve(x, bank, gamma, biases):
        kernels = mix(bank, gamma).astype(x.dtype)
        if implementation == 'vmap':
            return add_bias(_conv_by_vmap(x, kernels), biases[:, None, None])
        return sample_conv(x, kernels, biases, implementation)

    return mix_and_convolve(x, bank, gamma, biases)


def _check_shapes(x: jax.Array, bank: jax.Array, bias: jax.Array, gamma: jax.Array) -> None:
    if x.ndim != 4 or bank.ndim != 6:
        raise ValueError(f'x must be (B, H, W, Cin) and bank (kh, kw, Cin, k, d, Cout/d), not {x.shape}, {bank.shape}')
    check_odd(bank.shape[:2])
    if bank.shape[2] != x.shape[3]:
        raise ValueError(f'the bank takes {bank.shape[2]} channels, x has {x.shape[3]}')
    if bias.shape != bank.shape[3:]:
        raise ValueError(f'bias must be (k, d, Cout/d) = {bank.shape[3:]}, not {bias.shape}')
    if gamma.shape != (x.shape[0], *bank.shape[3:5]):
        raise ValueError(f'gamma must be (B, k, d) = {(x.shape[0], *bank.shape[3:5])}, not {gamma.shape}')
