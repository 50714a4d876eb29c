"""The sparse convolution: its implementations against each other, the definition in loops, and numeric derivatives."""

import itertools
import json
import os
import pathlib
import subprocess
import sys
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from jax import lax
from jax.test_util import check_grads

from nsr_jax.ops.conv import Implementation, mix, sample_correlation, select, sparse_conv

ROOT = pathlib.Path(__file__).parents[2]
NAMES = ('x', 'bank', 'bias', 'gamma')
IMPLEMENTATIONS = get_args(Implementation)


def random_arguments(batch, image, inputs, groups, cardinality, width, kernel, dtype=np.float32):
    """x, bank, bias, gamma for images of `image` pixels, `inputs` channels and d * `width` output channels."""
    generator = np.random.default_rng(0)
    filters = (groups, cardinality, width)
    shapes = ((batch, *image, inputs), (*kernel, inputs, *filters), filters, (batch, groups, cardinality))
    return tuple(generator.normal(size=shape).astype(dtype) for shape in shapes)


def by_loops(x, bank, bias, gamma):
    """Every group's own convolution, pixel by pixel, then the weighted sum of the groups: float64."""
    x, bank, bias, gamma = (np.asarray(argument, np.float64) for argument in (x, bank, bias, gamma))
    batch, height, width, _ = x.shape
    kernel_height, kernel_width, _, groups, cardinality, features = bank.shape
    margins = ((kernel_height // 2,) * 2, (kernel_width // 2,) * 2)
    out = np.zeros((batch, height, width, cardinality * features))
    for b, row, column in itertools.product(range(batch), range(height), range(width)):
        window = np.pad(x[b], (*margins, (0, 0)))[row : row + kernel_height, column : column + kernel_width]
        for k, d, e in itertools.product(range(groups), range(cardinality), range(features)):
            response = np.sum(window * bank[:, :, :, k, d, e]) + bias[k, d, e]
            out[b, row, column, d * features + e] += gamma[b, k, d] * response
    return out


SHAPES = [
    {'batch': 2, 'image': (5, 7), 'inputs': 3, 'groups': 2, 'cardinality': 2, 'width': 3, 'kernel': (3, 3)},
    {'batch': 1, 'image': (3, 9), 'inputs': 4, 'groups': 4, 'cardinality': 1, 'width': 2, 'kernel': (1, 1)},
    {'batch': 3, 'image': (7, 4), 'inputs': 2, 'groups': 1, 'cardinality': 3, 'width': 1, 'kernel': (5, 5)},
    {'batch': 2, 'image': (6, 5), 'inputs': 3, 'groups': 3, 'cardinality': 4, 'width': 2, 'kernel': (3, 5)},
    {'batch': 1, 'image': (2, 1), 'inputs': 5, 'groups': 2, 'cardinality': 2, 'width': 2, 'kernel': (5, 3)},
]
MANY_CHANNELS = {
    'batch': 2, 'image': (5, 7), 'inputs': 32, 'groups': 2, 'cardinality': 2, 'width': 16, 'kernel': (3, 3),
}  # fmt: skip


@pytest.mark.parametrize(
    ('shape', 'halved'),
    [
        pytest.param(shape, halved, id='{batch}x{image}x{inputs} k{groups} d{cardinality} {kernel}'.format(**shape))
        for shape, halved in [*((shape, False) for shape in SHAPES), (MANY_CHANNELS, True)]
    ],
    indirect=['halved'],
)
def test_every_implementation_equals_vmap_and_so_do_the_gradients(shape, halved):
    arguments = random_arguments(**shape)

    @jax.jit
    def values_and_gradients(arguments):
        results = {}
        for implementation in IMPLEMENTATIONS:

            def call(*arguments, implementation=implementation):
                return sparse_conv(*arguments, implementation=implementation)

            value, transpose = jax.vjp(call, *arguments)
            results[implementation] = (value, *transpose(jnp.sin(jnp.arange(value.size)).reshape(value.shape)))
        return results

    results = values_and_gradients(arguments)
    vmap = results.pop('vmap')
    assert vmap[0].shape == (shape['batch'], *shape['image'], shape['cardinality'] * shape['width'])
    assert results
    for implementation, result in results.items():
        for name, actual, expected in zip(('value', *NAMES), result, vmap, strict=True):
            label, scale = f'{implementation}, {name}', np.abs(expected).max()
            assert scale > 0.1, label
            np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-6 * scale, err_msg=label)


@pytest.mark.parametrize('implementation', IMPLEMENTATIONS)
def test_equals_the_definition(implementation):
    arguments = random_arguments(2, (4, 5), 3, 3, 2, 2, (3, 5))
    expected = by_loops(*arguments)
    out = sparse_conv(*arguments, implementation=implementation)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def strided(stride, dilation):
    return jax.jit(lambda *arguments: sparse_conv(*arguments, stride=stride, dilation=dilation))


@pytest.mark.parametrize(
    ('image', 'kernel', 'stride', 'dilation'),
    [((6, 7), (3, 3), 2, 1), ((7, 9), (3, 5), 1, 2), ((8, 5), (5, 3), 3, 2), ((1, 4), (1, 1), 2, 1)],
)
def test_strides_leave_rows_out_and_dilation_spreads_the_taps(image, kernel, stride, dilation):
    x, bank, bias, gamma = random_arguments(2, image, 3, 2, 2, 2, kernel)
    spread = np.zeros([dilation * (side - 1) + 1 for side in kernel] + list(bank.shape[2:]), np.float32)
    spread[::dilation, ::dilation] = bank
    expected = by_loops(x, spread, bias, gamma)[:, ::stride, ::stride]
    out = strided(stride, dilation)(x, bank, bias, gamma)
    np.testing.assert_allclose(out, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


@pytest.mark.usefixtures('lenient_promotion')
def test_derivatives_with_stride_and_dilation_numerically():
    arguments = random_arguments(2, (4, 5), 2, 2, 2, 1, (3, 3), np.float64)
    with jax.enable_x64(True):
        check_grads(strided(2, 2), arguments, order=1, modes=['rev'], atol=1e-6, rtol=1e-6)


@pytest.mark.usefixtures('lenient_promotion')
def test_first_and_second_derivatives_numerically(halved):
    inputs, width = (32, 16) if halved else (2, 1)
    arguments = random_arguments(2, (2, 3), inputs, 2, 2, width, (3, 3), np.float64)
    with jax.enable_x64(True):
        traced_anew = jax.jit(lambda *arguments: sparse_conv(*arguments))
        check_grads(traced_anew, arguments, order=2, modes=['rev'], atol=1e-6, rtol=1e-6)


def test_bfloat16_is_rounded_only_where_it_has_to_be():
    x, bank, bias, gamma = random_arguments(2, (6, 5), 16, 2, 2, 4, (3, 3))
    x = jnp.asarray(x, jnp.bfloat16)
    mixed = np.einsum('hwikde,bkd->bhwide', bank.astype(np.float64), gamma).reshape(2, 3, 3, 16, 1, 2, 4)
    rounded = mixed.astype(jnp.bfloat16)
    one = np.ones((1, 1, 2))
    convolved = np.concatenate([by_loops(x[b : b + 1], rounded[b], np.zeros((1, 2, 4)), one) for b in range(2)])
    expected = convolved + np.einsum('kde,bkd->bde', bias, gamma).reshape(2, 1, 1, 8)

    def call(bank):
        return sparse_conv(x, bank, bias, gamma)

    out, transpose = jax.vjp(call, bank)
    assert out.dtype == jnp.bfloat16
    # The convolution, the bias and their sum are rounded to 8 bits, the sum over 144 products is not.
    allowed = 2.0**-8 * (np.abs(convolved) + np.abs(expected - convolved) + np.abs(expected)) * 1.02
    assert (np.abs(np.asarray(out, np.float64) - expected) <= allowed).all()

    (gradient,) = transpose(jnp.ones_like(out))
    (exact,) = jax.vjp(lambda bank: sparse_conv(x.astype(jnp.float32), bank, bias, gamma), bank)[1](
        np.ones(out.shape, 'f')
    )
    assert gradient.dtype == jnp.float32
    np.testing.assert_allclose(gradient, exact, rtol=0, atol=0.01 * np.abs(exact).max())


def test_kernel_gradients_are_summed_in_float32():
    ones = jnp.ones((1, 33, 33, 1), jnp.bfloat16)
    gradient = sample_correlation(ones, ones, (3, 3))
    assert gradient.dtype == jnp.float32
    counts = np.array([32, 33, 32])  # bfloat16 has no 1089
    np.testing.assert_array_equal(gradient[0, :, :, 0, 0], np.outer(counts, counts))


@pytest.mark.parametrize(
    ('batch', 'height', 'width'),
    [(2, 5, 6), (1, 5, 6), (1, 100, 61), (2, 3, 2400)],  # on a CPU as a whole, by blocks of rows, and row by row
)
@pytest.mark.parametrize(('inputs', 'outputs'), [(1, 7), (4, 4), (7, 1)])  # columns on x, or on y
def test_correlation_equals_the_definition(batch, height, width, inputs, outputs):
    generator = np.random.default_rng(0)
    kernel_height, kernel_width = 3, 5
    x, y = (generator.normal(size=(batch, height, width, channels)) for channels in (inputs, outputs))
    padded = np.pad(x, ((0, 0), (1, 1), (2, 2), (0, 0)))
    expected = np.empty((batch, kernel_height, kernel_width, inputs, outputs))
    for row, column in itertools.product(range(kernel_height), range(kernel_width)):
        moved = padded[:, row : row + height, column : column + width]
        expected[:, row, column] = np.einsum('bhwi,bhwo->bio', moved, y)
    out = sample_correlation(x.astype(np.float32), y.astype(np.float32), (kernel_height, kernel_width))
    np.testing.assert_allclose(out, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


ARGUMENTS = random_arguments(2, (3, 4), 2, 3, 2, 2, (3, 3))
jitted = jax.jit(sparse_conv)
weights = arrays.arrays(np.float32, (2, 3, 2), elements=st.floats(-2, 2, width=16))


@given(st.lists(st.integers(0, 2), min_size=4, max_size=4))
@settings(deadline=None, max_examples=30)
def test_a_single_group_is_a_plain_convolution(choices):
    x, bank, bias, _ = ARGUMENTS
    choices = np.reshape(choices, (2, 2))  # (B, d)
    out = jitted(x, bank, bias, np.eye(3, dtype=np.float32)[choices].swapaxes(1, 2))
    for sample, groups in enumerate(choices):
        kernel = np.concatenate([bank[:, :, :, k, d] for d, k in enumerate(groups)], axis=-1)
        expected = lax.conv(x[sample : sample + 1].transpose(0, 3, 1, 2), kernel.transpose(3, 2, 0, 1), (1, 1), 'SAME')
        expected = np.asarray(expected)[0].transpose(1, 2, 0) + np.concatenate(
            [bias[k, d] for d, k in enumerate(groups)]
        )
        np.testing.assert_allclose(out[sample], expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(select(bank, choices), mix(bank, np.eye(3, dtype='f')[choices].swapaxes(1, 2)))


@given(weights, weights, st.floats(-2, 2, width=16))
@settings(deadline=None, max_examples=30)
def test_linear_in_the_gate(first, second, factor):
    x, bank, bias, _ = ARGUMENTS
    whole = jitted(x, bank, bias, first + np.float32(factor) * second)
    parts = jitted(x, bank, bias, first) + np.float32(factor) * jitted(x, bank, bias, second)
    np.testing.assert_allclose(whole, parts, rtol=0, atol=1e-4)


@pytest.mark.parametrize('implementation', [None, *(name for name in IMPLEMENTATIONS if name != 'mix_last')])
@pytest.mark.parametrize('under_jit', [False, True])
def test_backward_pass_keeps_no_mixed_kernels(implementation, under_jit):
    arguments = random_arguments(7, (4, 6), 2, 3, 2, 5, (3, 3))
    sizes = {argument.size for argument in arguments}
    mixed = 7 * 3 * 3 * 2 * 2 * 5
    assert mixed not in sizes

    def transposed(*arguments):
        return jax.vjp(lambda *a: sparse_conv(*a, implementation=implementation), *arguments)[1]

    kept = jax.tree.leaves((jax.jit(transposed) if under_jit else transposed)(*arguments))
    assert {leaf.size for leaf in kept} <= sizes | {7 * 2 * 5}  # mixed biases


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'x': (5, 7, 3)}, r'\(5, 7, 3\)'),
        ({'bank': (3, 3, 3, 4)}, r'\(3, 3, 3, 4\)'),
        ({'bank': (3, 4, 3, 2, 2, 4)}, '3x4'),
        ({'bank': (2, 3, 3, 2, 2, 4)}, '2x3'),
        ({'bank': (3, 3, 5, 2, 2, 4)}, 'takes 5 channels, x has 3'),
        ({'bias': (2, 8)}, r'\(2, 2, 4\), not \(2, 8\)'),
        ({'gamma': (1, 2, 2)}, r'\(6, 2, 2\), not \(1, 2, 2\)'),
        ({'gamma': (6, 2, 1)}, r'\(6, 2, 2\), not \(6, 2, 1\)'),
    ],
)
def test_shapes_that_do_not_fit(changes, message):
    shapes = {'x': (6, 5, 7, 3), 'bank': (3, 3, 3, 2, 2, 4), 'bias': (2, 2, 4), 'gamma': (6, 2, 2)} | changes
    with pytest.raises(ValueError, match=message):
        sparse_conv(*(jnp.zeros(shapes[name]) for name in NAMES))


def test_unknown_implementation():
    with pytest.raises(ValueError, match=f"'fft': one of {', '.join(IMPLEMENTATIONS)}"):
        sparse_conv(*ARGUMENTS, implementation='fft')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'stride': 0}, 'stride must be a whole number from 1, not 0'),
        ({'dilation': 1.5}, r'dilation must be a whole number from 1, not 1\.5'),
        ({'stride': 2, 'implementation': 'loop'}, "'loop' has neither stride nor dilation"),
    ],
)
def test_wrong_strides(options, message):
    with pytest.raises(ValueError, match=message):
        sparse_conv(*ARGUMENTS, **options)


def test_exports_for_every_platform_with_free_sizes():
    batch, height, width = jax.export.symbolic_shape('batch, height, width')
    _, bank, bias, _ = arguments = random_arguments(1, (1, 1), 3, 2, 2, 2, (3, 3))
    shapes = ((batch, height, width, 3), bank.shape, bias.shape, (batch, 2, 2))
    exported = jax.export.export(jax.jit(sparse_conv), platforms=['cpu', 'cuda', 'tpu'])(
        *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
    )
    assert exported.platforms == ('cpu', 'cuda', 'tpu')
    for batch, image in ((1, (4, 5)), (3, (2, 7))):
        arguments = random_arguments(batch, image, 3, 2, 2, 2, (3, 3))
        expected = sparse_conv(*arguments)
        np.testing.assert_allclose(exported.call(*arguments), expected, rtol=0, atol=1e-6 * np.abs(expected).max())


ON_EIGHT_DEVICES = """
import json, math, re
import jax, jax.numpy as jnp, numpy as np
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from nsr_jax import cpu_cores
from nsr_jax.ops.conv import sparse_conv, static_conv

cpu_cores.count_cores = lambda: 8
mesh = jax.make_mesh((4, 2), ('data', 'fsdp'), axis_types=(AxisType.Auto,) * 2)
whole, batch = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(('data', 'fsdp')))
generator = np.random.default_rng(0)
shapes = ((16, 5, 7, 6), (16, 2, 2), (3, 3, 6, 6), (3, 3, 6, 2, 2, 4), (2, 2, 4))
arguments = tuple(generator.normal(size=shape).astype(np.float32) for shape in shapes)
shardings = (batch, batch, whole, whole, whole)

def loss(x, gamma, kernel, bank, bias):
    return jnp.mean(jnp.square(sparse_conv(static_conv(x, kernel), bank, bias, gamma)))

once = jax.value_and_grad(loss, argnums=range(5))
# As many channels as TPUs' kernels take, and as halving the multiplications on a CPU: the bank's gradient is then
# summed on each device, and then over devices.
wide_shapes = ((16, 3, 4, 6), (16, 2, 2), (3, 3, 6, 32), (3, 3, 32, 2, 2, 16), (2, 2, 16))
wide = tuple(generator.normal(size=shape).astype(np.float32) for shape in wide_shapes)

def descend(x, gamma, kernel, bank, bias):
    def step(_, parameters):
        gradients = jax.grad(loss, argnums=(2, 3, 4))(x, gamma, *parameters)
        return jax.tree.map(lambda parameter, gradient: parameter - 0.01 * gradient, parameters, gradients)
    return lax.fori_loop(0, 3, step, (kernel, bank, bias))

report = {}
for name, function, results, arguments in (
    ('once', once, (whole, shardings), arguments),
    ('loop', descend, (whole,) * 3, arguments),
    ('wide', once, (whole, shardings), wide),
):
    def in_mesh(*a, function=function):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*a)
    compiled = jax.jit(in_mesh, in_shardings=shardings, out_shardings=results).lower(*arguments).compile()
    collectives = {}
    pattern = r'= (.*?) (all-[a-z]+|collective-[a-z]+|reduce-scatter|ragged-[a-z-]+)(?:-start)?\\('
    for shapes, kind in re.findall(pattern, compiled.as_text()):
        for dimensions in re.findall(r'\\w+\\[([\\d,]*)\\]', shapes):
            size = math.prod(int(length) for length in dimensions.split(',') if length)
            collectives.setdefault(kind, []).append(size)
    sharded = compiled(*(jax.device_put(a, s) for a, s in zip(arguments, shardings)))
    pairs = zip(jax.tree.leaves(sharded), jax.tree.leaves(jax.jit(function)(*arguments)), strict=True)
    errors = [float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs]
    report[name] = {'collectives': collectives, 'errors': errors}
halves = jax.jit(lambda *a: jnp.sum(jnp.sin(sparse_conv(*a, stride=2))))
x, gamma, _, bank, bias = wide
sharded = (jax.device_put(x, batch), jax.device_put(bank, whole), bias, jax.device_put(gamma, batch))
with jax.set_mesh(mesh):
    text = halves.lower(*sharded[:1], bank[:, :, :6], *sharded[2:]).compile().as_text()
report['strided'] = sorted(set(re.findall(r'all-gather|all-to-all|collective-permute', text)))
try:
    with jax.set_mesh(jax.make_mesh((8,), ('data',), axis_types=(AxisType.Explicit,))):
        sparse_conv(x, bank[:, :, :6], bias, gamma)
except ValueError as error:
    report['explicit'] = str(error)
report['devices'] = jax.device_count()
print(json.dumps(report))
"""


@pytest.fixture(scope='module')
def on_eight_devices():
    flags = {'XLA_FLAGS': '--xla_force_host_platform_device_count=8', 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, '-c', ON_EIGHT_DEVICES]
    process = subprocess.run(command, env=os.environ | flags, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    report = json.loads(process.stdout)
    assert report['devices'] == 8
    return report


@pytest.mark.parametrize('name', ['once', 'loop'])
def test_a_sharded_batch_stays_where_it_is(on_eight_devices, name):
    """Forward and backward pass, alone and inside a loop: devices exchange nothing but the parameters' gradients."""
    collectives = on_eight_devices[name]['collectives']
    assert set(collectives) == {'all-reduce'}
    kernel, bank, bias, scalar = 3 * 3 * 6 * 6, 3 * 3 * 6 * 2 * 2 * 4, 2 * 2 * 4, 1
    assert {kernel, bank, bias} <= set(collectives['all-reduce']) <= {kernel, bank, bias, scalar}


def test_gradients_of_the_kernels_for_tpus_stay_where_they_are(on_eight_devices):
    collectives = on_eight_devices['wide']['collectives']
    assert set(collectives) == {'all-reduce'}
    assert set(collectives['all-reduce']) == {3 * 3 * 6 * 32, 3 * 3 * 32 * 2 * 2 * 16, 2 * 2 * 16, 1}


def test_strides_stay_where_they_are(on_eight_devices):
    assert on_eight_devices['strided'] == []


def test_an_explicit_mesh_is_refused(on_eight_devices):
    assert on_eight_devices['explicit'] == ('the mesh has axes of type Explicit (data): make it with axis_types=Auto')


@pytest.mark.parametrize('name', ['once', 'loop', 'wide'])
def test_eight_devices_compute_what_one_does(on_eight_devices, name):
    assert max(on_eight_devices[name]['errors']) < 5e-6
