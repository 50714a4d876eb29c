"""The choice of the convolution for an image."""

import jax
import jax.extend.core
import jax.numpy as jnp
import pytest

from nsr_jax import cpu_cores
from nsr_jax.ops._conv_cpu import convolve_image, correlate_images


def kernel_sides(function, *arguments):
    """All convolutions in a function, also within loops."""
    found = []

    def search(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == 'conv_general_dilated':
                spec = equation.params['dimension_numbers'].rhs_spec[2:]
                found.append(tuple(equation.invars[1].aval.shape[axis] for axis in spec))
            for inner in jax.extend.core.jaxprs_in_params(equation.params):
                search(inner)

    search(jax.make_jaxpr(function)(*arguments).jaxpr)
    return found


@pytest.fixture(params=[True, False], ids=['a device for each core', 'one device'])
def cores_are_devices(request, monkeypatch):
    monkeypatch.setattr(jax, 'local_device_count', lambda: 4 if request.param else 1)
    monkeypatch.setattr(cpu_cores, 'count_cores', lambda: 4)
    return request.param


@pytest.mark.parametrize(
    ('image', 'kernel', 'dtype', 'halved'),
    [
        ((48, 48, 32), (3, 3, 32, 32), 'float32', True),
        ((128, 128, 64), (5, 3, 64, 32), 'float32', True),
        ((128, 129, 32), (3, 3, 32, 32), 'float32', False),  # large
        ((48, 48, 31), (3, 3, 31, 32), 'float32', False),
        ((48, 48, 64), (3, 3, 64, 12), 'float32', False),
        ((48, 48, 32), (3, 5, 32, 32), 'float32', False),
        ((48, 48, 32), (3, 3, 32, 32), 'bfloat16', False),
    ],
)
def test_halved_where_it_pays(image, kernel, dtype, halved, cores_are_devices):
    x, weights = (jax.ShapeDtypeStruct(shape, dtype) for shape in ((1, *image), kernel))
    halved_sides, sides = [(kernel[0], 1)] * 6, [kernel[:2]]
    sides_found = kernel_sides(lambda *arguments: convolve_image(*arguments), x, weights)  # traced anew
    assert sides_found == (halved_sides if halved and cores_are_devices else sides)


def test_other_devices_than_cpus_are_no_cores(monkeypatch):
    monkeypatch.setattr(jax, 'local_device_count', lambda: 8)
    monkeypatch.setattr(cpu_cores, 'count_cores', lambda: 8)
    assert cpu_cores.are_devices()
    monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
    assert not cpu_cores.are_devices()


def test_free_sizes_are_of_unknown_machines(cores_are_devices):
    height, width = jax.export.symbolic_shape('height, width')
    x, kernel = jax.ShapeDtypeStruct((1, height, width, 32), 'float32'), jnp.zeros((3, 3, 32, 32))
    exported = jax.export.export(jax.jit(lambda x: convolve_image(x, kernel)))(x)
    assert exported.out_avals[0].shape == (1, height, width, 32)
    assert exported.mlir_module().count('stablehlo.convolution') == 1


@pytest.mark.parametrize(('outputs', 'halved'), [(32, True), (16, False)])
def test_kernel_gradients_are_halved_where_it_pays(outputs, halved):
    x, y = (jax.ShapeDtypeStruct((60, 48, channels), 'float32') for channels in (32, outputs))
    sides = kernel_sides(lambda *arguments: correlate_images((3, 3), *arguments), x, y)
    assert sides == ([(48,)] * 6 + [(12,)] * 6 if halved else [(48,), (12,)])  # a block of rows, and the rest
