"""The kernels for TPUs: against the definition in Pallas' interpreter, where they are chosen, and that they compile."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from nsr_jax.ops import _conv_pallas
from nsr_jax.ops.conv import sparse_conv

NAMES = ('value', 'x', 'bank', 'bias', 'gamma')


def random_arguments(image, inputs, outputs, dtype, batch=2, groups=3, cardinality=4):
    """x of `dtype`, bank, bias, gamma."""
    generator = np.random.default_rng(0)
    filters = (groups, cardinality, outputs // cardinality)
    shapes = ((batch, *image, inputs), (3, 3, inputs, *filters), filters, (batch, groups, cardinality))
    x, *others = (jnp.asarray(generator.normal(size=shape), jnp.float32) for shape in shapes)
    return x.astype(dtype), *others


def value_and_gradients(implementation, arguments):
    """Of a sum in which each output has its own weight."""
    value, transpose = jax.vjp(functools.partial(sparse_conv, implementation=implementation), *arguments)
    weights = jnp.sin(jnp.arange(value.size)).reshape(value.shape).astype(value.dtype)
    return value, *transpose(weights)


@pytest.mark.parametrize(
    ('image', 'inputs', 'outputs', 'dtype', 'tolerance'),
    [
        ((5, 7), 32, 36, jnp.float32, 2e-6),  # a row and a column are filled up
        ((4, 3), 40, 32, jnp.bfloat16, 0.01),
        ((3, 8), 128, 132, jnp.float32, 2e-6),  # no rows are folded, and nothing is filled up
    ],
)
def test_values_and_gradients_equal_the_definition(image, inputs, outputs, dtype, tolerance):
    arguments = random_arguments(image, inputs, outputs, dtype)
    assert _conv_pallas.applies(*arguments[:2])
    # The interpreted kernel is long, and runs once: it is not worth optimizing.
    fast = {'xla_backend_optimization_level': 0}
    computed = jax.jit(functools.partial(value_and_gradients, 'pallas'), compiler_options=fast)(arguments)
    exact = [argument.astype(jnp.float32) for argument in arguments]
    expected = jax.jit(functools.partial(value_and_gradients, 'vmap'))(exact)
    for name, actual, wanted in zip(NAMES, computed, expected, strict=True):
        assert actual.dtype == (dtype if name in ('value', 'x') else jnp.float32), name
        actual, wanted = np.asarray(actual, np.float64), np.asarray(wanted)
        np.testing.assert_allclose(actual, wanted, rtol=0, atol=tolerance * np.abs(wanted).max(), err_msg=name)


def test_second_gradients_equal_the_definition():
    arguments = random_arguments((3, 4), 32, 32, jnp.float32, batch=1, groups=2, cardinality=2)

    def second(implementation, arguments):
        def size(arguments):
            return sum(jnp.mean(jnp.square(each)) for each in value_and_gradients(implementation, arguments))

        return jax.grad(size)(arguments)

    computed = jax.jit(functools.partial(second, None))(arguments)
    expected = jax.jit(functools.partial(second, 'vmap'))(arguments)
    for name, actual, wanted in zip(NAMES[1:], computed, expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max(), err_msg=name)


def kernels_in_program(platform, shape, bank=(3, 3, 64, 4, 16, 4), dtype=jnp.bfloat16, implementation=None):
    """The names of the Pallas kernels in what is lowered for a platform, which need not be here."""
    x, bank = jax.ShapeDtypeStruct(shape, dtype), jax.ShapeDtypeStruct(bank, jnp.float32)
    bias = jax.ShapeDtypeStruct(bank.shape[3:], jnp.float32)
    gamma = jax.ShapeDtypeStruct((shape[0], *bank.shape[3:5]), jnp.float32)
    function = jax.jit(lambda *arguments: value_and_gradients(implementation, arguments))
    text = function.trace(x, bank, bias, gamma).lower(lowering_platforms=(platform,)).as_text()
    return {name for name in ('sparse_conv', 'sparse_conv_gradients') if f'kernel_name = "{name}"' in text}


BOTH = {'sparse_conv', 'sparse_conv_gradients'}


@pytest.mark.parametrize(
    ('changes', 'expected'),
    [
        ({}, BOTH),
        ({'dtype': jnp.float32}, BOTH),
        ({'implementation': 'matmul'}, set()),
        ({'platform': 'cpu'}, set()),
        ({'platform': 'cuda'}, set()),
        ({'shape': (2, 2, 8, 64)}, set()),  # nothing to fold with
        ({'shape': (2, 97, 192, 64)}, set()),  # too large for the fast memory
        ({'bank': (3, 3, 64, 300, 16, 4)}, set()),
        ({'dtype': jnp.float16}, set()),
        ({'shape': (2, 8, 8, 64), 'bank': (3, 3, 64, 4, 1, 24)}, set()),  # few channels
        ({'shape': (2, 8, 8, 64), 'bank': (5, 3, 64, 4, 16, 4)}, set()),
    ],
)
def test_the_default_on_tpus_where_they_apply(changes, expected):
    assert kernels_in_program(**{'platform': 'tpu', 'shape': (2, 8, 8, 64)} | changes) == expected


@pytest.mark.slow
@pytest.mark.compile
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_compiles_for_a_tpu(dtype, monkeypatch):
    pytest.importorskip('libtpu', reason='the compiler for TPUs is missing')
    for name, value in {'TPU_SKIP_MDS_QUERY': '1', 'ALLOW_MULTIPLE_LIBTPU_LOAD': '1', 'TPU_WORKER_ID': '0'}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv('TPU_WORKER_HOSTNAMES', 'localhost')
    device = topologies.get_topology_desc(platform='tpu', topology_name='v5e:2x2').devices[0]
    shapes = [jax.ShapeDtypeStruct(each.shape, each.dtype) for each in random_arguments((7, 9), 64, 64, dtype)]
    function = jax.jit(
        lambda *arguments: value_and_gradients(None, arguments), in_shardings=SingleDeviceSharding(device)
    )
    assert function.lower(*shapes).compile().as_text().count('custom_call_target="tpu_custom_call"') == 2
