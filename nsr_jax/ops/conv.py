"""Convolutions with zero padding: static, of each sample with its own kernel, and sparse; only the last has strides.

    static_conv    one kernel for all samples
    sample_conv    for each sample a kernel and a bias of its own
    sparse_conv    for each sample a mixture of a bank of kernels (Fan et al., NeurIPS 2020, section 3)

A gate gives, for each sample b, weights `gamma[b, k, d]` over k sparsity groups at each of d cardinal positions. By
linearity the weighted sum of the groups' outputs is one convolution with the weighted sum of their kernels, so a sparse
convolution costs what a single group does.

XLA sees `vmap` of a convolution as one grouped convolution with B groups, which no backend does well. Other forms are
better: a loop over samples for CPUs (`_conv_cpu`), kernels of our own for TPUs that mix and convolve (`_conv_pallas`),
and a batched matrix product of patches and kernels (`_conv_matmul`) for GPUs and for what those kernels do not take.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec

from nsr_jax.ops import _conv_cpu, _conv_matmul, _conv_pallas

Form = Literal['loop', 'matmul']
Implementation = Literal['loop', 'matmul', 'pallas', 'mix_last', 'vmap']


def add_bias(y: jax.Array, bias: jax.Array) -> jax.Array:
    """Add a float32 bias `(..., Cout)` to `y` `(B, H, W, Cout)`; in float32, as its gradient sums over all pixels."""
    bias = jnp.expand_dims(bias, range(y.ndim - bias.ndim))
    return (y.astype(np.promote_types(y.dtype, np.float32)) + bias).astype(y.dtype)


# One kernel for all samples.


@jax.custom_vjp
def static_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve all samples with one kernel.

    On a CPU, convolving one sample after another with half of the multiplications takes less time than XLA's
    convolution of all. XLA's own derivative with respect to the kernel is a naive one inside a loop, tens of times as
    slow as the one here.

    Args:
        x: `(B, H, W, Cin)`.
        kernel: `(kh, kw, Cin, Cout)`, odd kh and kw, of x's dtype.

    Returns:
        `(B, H, W, Cout)` of x's dtype.

    Raises:
        ValueError: a kernel with an even side.
    """
    _check_odd(kernel.shape[:2])

    def on_cpu(x: jax.Array, kernel: jax.Array) -> jax.Array:
        if _conv_cpu.uses_winograd(x, kernel):
            return _on_each_device(_conv_cpu.convolve_all, [x], shared=[kernel])
        return _conv_by_xla(x, kernel)

    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=_conv_by_xla)


def _conv_by_xla(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def _static_conv_forward(x, kernel):
    return static_conv(x, kernel), (x, kernel)


def _static_conv_backward(residuals, output_gradient):
    x, kernel = residuals
    input_gradient = static_conv(output_gradient, kernel[::-1, ::-1].swapaxes(-1, -2))

    def by_samples(x, output_gradient):
        return jnp.sum(sample_correlation(x, output_gradient, kernel.shape[:2]), axis=0).astype(kernel.dtype)

    def by_xla(x, output_gradient):
        return jax.linear_transpose(lambda kernel: _conv_by_xla(x, kernel), kernel)(output_gradient)[0]

    return input_gradient, lax.platform_dependent(x, output_gradient, cpu=by_samples, default=by_xla)


static_conv.defvjp(_static_conv_forward, _static_conv_backward)


# A kernel for each sample. The operation is linear in images and kernels, so its derivatives are two more operations of
# this kind, and the derivatives of these three are among them, to any order.


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def sample_conv(x: jax.Array, kernels: jax.Array, biases: jax.Array, form: Form | None = None) -> jax.Array:
    """Convolve each sample with its own kernel and add its own bias.

    Args:
        x: `(B, H, W, Cin)`.
        kernels: `(B, kh, kw, Cin, Cout)`, odd kh and kw, of x's dtype.
        biases: `(B, Cout)`, float32; an argument here because a loop over samples adds them on the way.
        form: how to compute it; None chooses by the platform, 'loop' on CPUs and 'matmul' elsewhere.

    Returns:
        `(B, H, W, Cout)` of x's dtype.

    Raises:
        ValueError: a kernel with an even side.
    """
    _check_odd(kernels.shape[1:3])
    return _compute(_conv_cpu.convolve, _conv_matmul.convolve, form, x, kernels, biases)


def _sample_conv_forward(x, kernels, biases, form):
    return sample_conv(x, kernels, biases, form), (x, kernels, biases)


def _sample_conv_backward(form, residuals, output_gradient):
    x, kernels, biases = residuals
    kernel_gradient = jnp.asarray(sample_correlation(x, output_gradient, kernels.shape[1:3], form), kernels.dtype)
    bias_gradient = jnp.sum(output_gradient, axis=(1, 2), dtype=biases.dtype)
    return sample_transposed_conv(output_gradient, kernels, form), kernel_gradient, bias_gradient


sample_conv.defvjp(_sample_conv_forward, _sample_conv_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def sample_transposed_conv(y: jax.Array, kernels: jax.Array, form: Form | None = None) -> jax.Array:
    """The gradient of `sum(y * sample_conv(x, kernels))` with respect to x.

    Args:
        y: `(B, H, W, Cout)`.
        kernels: `(B, kh, kw, Cin, Cout)`, odd kh and kw, of y's dtype.
        form: as in `sample_conv`.

    Returns:
        `(B, H, W, Cin)` of y's dtype.
    """
    return _compute(_conv_cpu.transpose, _conv_matmul.transpose, form, y, kernels)


def _sample_transposed_conv_forward(y, kernels, form):
    return sample_transposed_conv(y, kernels, form), (y, kernels)


def _sample_transposed_conv_backward(form, residuals, x):
    y, kernels = residuals
    kernel_gradient = jnp.asarray(sample_correlation(x, y, kernels.shape[1:3], form), kernels.dtype)
    return sample_conv(x, kernels, jnp.zeros((x.shape[0], kernels.shape[-1]), jnp.float32), form), kernel_gradient


sample_transposed_conv.defvjp(_sample_transposed_conv_forward, _sample_transposed_conv_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def sample_correlation(x: jax.Array, y: jax.Array, kernel_size: tuple[int, int], form: Form | None = None) -> jax.Array:
    """The gradient of `sum(y * sample_conv(x, kernels))` with respect to the kernels.

    Args:
        x: `(B, H, W, Cin)`.
        y: `(B, H, W, Cout)`.
        kernel_size: `(kh, kw)`, both odd.
        form: as in `sample_conv`.

    Returns:
        `(B, kh, kw, Cin, Cout)`, summed in float32 at least, whatever the dtype of x.
    """
    loop = functools.partial(_conv_cpu.correlate, kernel_size=kernel_size)
    matmul = functools.partial(_conv_matmul.correlate, kernel_size=kernel_size)
    return _compute(loop, matmul, form, x, y)


def _sample_correlation_forward(x, y, kernel_size, form):
    return sample_correlation(x, y, kernel_size, form), (x, y)


def _sample_correlation_backward(kernel_size, form, residuals, kernels):
    x, y = residuals
    kernels = kernels.astype(x.dtype)
    zeros = jnp.zeros((x.shape[0], kernels.shape[-1]), jnp.float32)
    return sample_transposed_conv(y, kernels, form), jnp.asarray(sample_conv(x, kernels, zeros, form), y.dtype)


sample_correlation.defvjp(_sample_correlation_forward, _sample_correlation_backward)


def _compute(
    loop: Callable[..., jax.Array], matmul: Callable[..., jax.Array], form: Form | None, *batches: jax.Array
) -> jax.Array:
    """Apply one of two forms of a function of independent samples: `form`, or the one that suits the platform."""

    def function(*batches: jax.Array) -> jax.Array:
        if form is None:
            return lax.platform_dependent(*batches, cpu=loop, default=matmul)
        return {'loop': loop, 'matmul': matmul}[form](*batches)

    return _on_each_device(function, batches)


def _on_each_device(
    function: Callable[..., Any], batches: Sequence[jax.Array], shared: Sequence[jax.Array] = ()
) -> Any:
    """Apply a function of independent samples, on each device to the samples that it holds.

    The mesh of the context (`jax.set_mesh`, or `use_abstract_mesh` while functions are traced) tells which samples a
    device holds: all of its axes split the batch. XLA's partitioner cannot look into a loop over a sharded batch axis
    and gathers the whole batch on every device. It does so if the context has no mesh, or one that does not divide the
    batch; the results are right all the same.

    Args:
        function: of `*batches` and `*shared`; gives one or more arrays (B, ...).
        batches: each (B, ...).
        shared: arrays that are the same for all samples.

    Raises:
        ValueError: the context's mesh has axes of type Explicit, whose types of arrays `function` does not follow.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.explicit_axes and mesh.size > 1:
        raise ValueError(
            f'the mesh has axes of type Explicit ({", ".join(mesh.explicit_axes)}): make it with axis_types=Auto'
        )
    if mesh.empty or mesh.size == 1 or mesh.are_all_axes_manual or batches[0].shape[0] % mesh.size:
        return function(*batches, *shared)
    split, whole = PartitionSpec(mesh.axis_names), PartitionSpec()
    specs = (split,) * len(batches) + (whole,) * len(shared)
    return jax.shard_map(function, in_specs=specs, out_specs=split, check_vma=False)(*batches, *shared)


def _check_odd(kernel_size: tuple[int, ...]) -> None:
    """Raise ValueError unless both sides are odd: an even kernel has no middle, and no transposed twin."""
    if any(side % 2 == 0 for side in kernel_size):
        raise ValueError(f'the kernel must have odd sides, not {"x".join(map(str, kernel_size))}')


# A mixture of a bank of kernels for each sample.


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
    # Weights are repeated for each channel, so that XLA's code runs over all channels in one piece, which takes a
    # quarter of the time with 16 groups. On a CPU a sum of k products in one pass takes a third of an einsum's time,
    # but its automatic derivative takes seven times as long, so the derivative is written by hand.
    weights = jnp.repeat(gamma.astype(bank.dtype), width, axis=2)[:, None, None, None]
    bank = bank.reshape(*kernel, groups, -1)
    products = (weights[..., group, :] * bank[None, ..., group, :] for group in range(groups))
    return sum(products, start=jnp.zeros((), bank.dtype))


def _mix_forward(bank, gamma):
    return mix(bank, gamma), (bank, gamma)


@jax.named_scope('mix')
def _mix_backward(residuals, gradient):
    bank, gamma = residuals
    batch, (*_, groups, cardinality, width) = gradient.shape[0], bank.shape
    split = gradient.reshape(*gradient.shape[:-1], cardinality, width)
    bank_gradient = jnp.einsum('bhwide,bkd->hwikde', split, gamma.astype(bank.dtype))
    # A product and a sum in one pass, because an einsum would spend more than half of its time on transposing. The sum
    # has two steps, because XLA's code for a single one takes 20 times as long with one sample.
    rows = (bank.shape[0] * bank.shape[1], bank.shape[2])
    products = gradient.reshape(batch, *rows, 1, cardinality * width) * bank.reshape(1, *rows, groups, -1)
    gamma_gradient = products.sum(axis=1).sum(axis=1).reshape(batch, groups, cardinality, width).sum(axis=3)
    return bank_gradient, gamma_gradient.astype(gamma.dtype)


mix.defvjp(_mix_forward, _mix_backward)


def select(bank: jax.Array, choice: jax.Array) -> jax.Array:
    """Read one group at each cardinal position, which equals mixing with weights of 0 and 1.

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
    """The definition, a convolution for each sample: the reference for all other implementations, and the slowest."""
    return jax.vmap(lambda image, kernel: _conv_by_xla(image[None], kernel)[0])(x, kernels)


def _conv_then_mix(x: jax.Array, bank: jax.Array, gamma: jax.Array) -> jax.Array:
    """Compute the outputs of all groups, then each sample's sum of them; linearity makes this the same."""
    outputs = static_conv(x, bank.reshape(*bank.shape[:3], -1).astype(x.dtype))
    outputs = outputs.reshape(*x.shape[:3], *bank.shape[3:])
    mixed = jnp.einsum('bhwkde,bkd->bhwde', outputs, gamma, preferred_element_type=jnp.float32)
    return mixed.reshape(*x.shape[:3], -1).astype(x.dtype)


def _mix_and_convolve(form: Form | Literal['vmap'] | None, x, bank, gamma, biases) -> jax.Array:
    kernels = mix(bank, gamma).astype(x.dtype)
    if form == 'vmap':
        return add_bias(_conv_by_vmap(x, kernels), biases[:, None, None])
    return sample_conv(x, kernels, biases, form)


def _mix_and_stride(stride: int, dilation: int, x, bank, gamma, biases) -> jax.Array:
    """With strides or dilation, which none of the faster forms has; the derivatives are JAX's own."""
    convolve = functools.partial(_conv_matmul.convolve, stride=stride, dilation=dilation)
    return _on_each_device(convolve, [x, mix(bank, gamma).astype(x.dtype), biases])


# The same by the kernels for TPUs. These have gradients, and the gradients' own are those of the other form.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv_by_kernels(elsewhere: Literal['interpret'] | None, x, bank, gamma, biases) -> jax.Array:
    """As `_mix_and_convolve`, with `_conv_pallas` on TPUs.

    Args:
        elsewhere: how to compute it on other platforms: in Pallas' interpreter, or in the form that suits them.
        x: `(B, H, W, Cin)`.
        bank: `(3, 3, Cin, k, d, Cout / d)`.
        gamma: `(B, k, d)`.
        biases: `(B, Cout)`.
    """

    def convolve(x, gamma, biases, bank):
        default = functools.partial(_mix_and_convolve, None)
        if elsewhere == 'interpret':
            default = functools.partial(_conv_pallas.convolve, interpret=True)
        return lax.platform_dependent(x, bank, gamma, biases, tpu=_conv_pallas.convolve, default=default)

    return _on_each_device(convolve, [x, gamma, biases], shared=[bank])


def _conv_by_kernels_forward(elsewhere, x, bank, gamma, biases):
    return _conv_by_kernels(elsewhere, x, bank, gamma, biases), (x, bank, gamma)


def _conv_by_kernels_backward(elsewhere, residuals, output_gradient):
    gradients: Any = _gradients_by_kernels(elsewhere, *residuals, output_gradient)
    return gradients


_conv_by_kernels.defvjp(_conv_by_kernels_forward, _conv_by_kernels_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _gradients_by_kernels(elsewhere, x, bank, gamma, output_gradient) -> tuple[jax.Array, ...]:
    def differentiate(x, gamma, output_gradient, bank):
        default = _gradients
        if elsewhere == 'interpret':
            default = functools.partial(_conv_pallas.differentiate, interpret=True)
        x, bank, *others = lax.platform_dependent(
            x, bank, gamma, output_gradient, tpu=_conv_pallas.differentiate, default=default
        )
        return x, bank[None], *others  # each device has a gradient of the bank, by its own samples

    x, bank, *others = _on_each_device(differentiate, [x, gamma, output_gradient], shared=[bank])
    return x, bank.sum(axis=0), *others


def _gradients(x, bank, gamma, output_gradient) -> tuple[jax.Array, ...]:
    biases = jnp.zeros((x.shape[0], output_gradient.shape[3]), jnp.float32)  # no gradient depends on them
    convolve = jax.checkpoint(functools.partial(_mix_and_convolve, None))
    return jax.vjp(convolve, x, bank, gamma, biases)[1](output_gradient)


def _gradients_by_kernels_forward(elsewhere, *arguments):
    return _gradients_by_kernels(elsewhere, *arguments), arguments


def _gradients_by_kernels_backward(elsewhere, arguments, cotangents):
    del elsewhere
    return jax.vjp(_gradients, *arguments)[1](cotangents)


_gradients_by_kernels.defvjp(_gradients_by_kernels_forward, _gradients_by_kernels_backward)


def sparse_conv(
    x: jax.Array,
    bank: jax.Array,
    bias: jax.Array,
    gamma: jax.Array,
    *,
    stride: int = 1,
    dilation: int = 1,
    implementation: Implementation | None = None,
) -> jax.Array:
    """Convolve each sample with its own mixture of the bank's kernels.

    The images are padded with zeros, `dilation * (kh // 2)` rows above and below, and columns accordingly.

    Args:
        x: `(B, H, W, Cin)`, float32 or bfloat16: the dtype of the convolution.
        bank: `(kh, kw, Cin, k, d, Cout / d)`, kh and kw odd: k groups of kernels, split in d cardinal groups.
        bias: `(k, d, Cout / d)`, mixed as the kernels are.
        gamma: `(B, k, d)`, the gate's weights.
        stride: the result has every stride-th row and column of that of stride 1, the first ones among them.
        dilation: the distance between two taps of a kernel, in pixels.
        implementation: 'loop' and 'matmul' are the forms of `sample_conv`; 'pallas' is that of TPUs, for 3x3 kernels
            of 32 to 256 channels (for others it is as None, and elsewhere Pallas' interpreter runs it, slowly);
            'mix_last' computes every group's convolution and then the sum of their outputs, k times the computation;
            'vmap' is the definition. None chooses by the platform: 'loop' on CPUs, 'pallas' on TPUs where it can, and
            'matmul' elsewhere. With a stride or dilation above 1 it must be None or 'matmul'.

    Returns:
        `(B, ceil(H / stride), ceil(W / stride), Cout)` of x's dtype.

    Raises:
        ValueError: shapes that do not fit one another, an even kernel, an unknown implementation, or a mesh with axes
            of type Explicit.
    """
    _check_shapes(x, bank, bias, gamma)
    for name, value in (('stride', stride), ('dilation', dilation)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f'{name} must be a whole number from 1, not {value!r}')
    if implementation not in (None, *get_args(Implementation)):
        raise ValueError(f'unknown implementation {implementation!r}: one of {", ".join(get_args(Implementation))}')
    # XLA does not fuse a matrix product into the addition; other code it would, and mix again for each pixel.
    biases = jnp.einsum('kde,bkd->bde', bias, gamma.astype(bias.dtype)).reshape(x.shape[0], -1)
    if (stride, dilation) != (1, 1):
        if implementation not in (None, 'matmul'):
            raise ValueError(f'implementation {implementation!r} has neither stride nor dilation: give None')
        return jax.checkpoint(functools.partial(_mix_and_stride, stride, dilation))(x, bank, gamma, biases)
    if implementation == 'mix_last':
        return add_bias(_conv_then_mix(x, bank, gamma), biases[:, None, None])

    if implementation in (None, 'pallas') and _conv_pallas.applies(x, bank):
        return _conv_by_kernels('interpret' if implementation == 'pallas' else None, x, bank, gamma, biases)
    # The backward pass keeps x, the bank and gamma and mixes again: B mixed kernels for each layer would fill the
    # memory (2.4 GB for EDSR-L at batch 64), and mixing is 0.2 % of the convolution.
    form = None if implementation == 'pallas' else implementation
    return jax.checkpoint(functools.partial(_mix_and_convolve, form))(x, bank, gamma, biases)


def _check_shapes(x: jax.Array, bank: jax.Array, bias: jax.Array, gamma: jax.Array) -> None:
    if x.ndim != 4 or bank.ndim != 6:
        raise ValueError(f'x must be (B, H, W, Cin) and bank (kh, kw, Cin, k, d, Cout/d), not {x.shape}, {bank.shape}')
    _check_odd(bank.shape[:2])
    if bank.shape[2] != x.shape[3]:
        raise ValueError(f'the bank takes {bank.shape[2]} channels, x has {x.shape[3]}')
    if bias.shape != bank.shape[3:]:
        raise ValueError(f'bias must be (k, d, Cout/d) = {bank.shape[3:]}, not {bias.shape}')
    if gamma.shape != (x.shape[0], *bank.shape[3:5]):
        raise ValueError(f'gamma must be (B, k, d) = {(x.shape[0], *bank.shape[3:5])}, not {gamma.shape}')
