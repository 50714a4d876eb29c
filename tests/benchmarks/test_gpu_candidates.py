"""What is to be timed on a GPU, against the definition: Pallas kernels run by its interpreter, and lowered for CUDA."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

from benchmarks import gpu_candidates, sample_conv

CANDIDATES = {
    'shifted': gpu_candidates.shifted,
    'implicit': functools.partial(gpu_candidates.implicit, interpret=True),
}


def random_arguments(image, inputs, outputs, kernel_size, dtype='float32'):
    """x, bank, bias and gamma of two samples, two groups and two cardinal positions, and an output gradient."""
    generator = np.random.default_rng(0)
    filters = (2, 2, outputs // 2)
    shapes = ((2, *image, inputs), (*kernel_size, inputs, *filters), filters, (2, 2, 2), (2, *image, outputs))
    x, *parameters, gradient = (jnp.asarray(generator.normal(size=shape), 'float32') for shape in shapes)
    return (x.astype(dtype), *parameters), gradient.astype(dtype)


@pytest.mark.parametrize('name', CANDIDATES)
@pytest.mark.parametrize(
    ('image', 'inputs', 'outputs', 'kernel_size'),
    [((5, 7), 16, 16, (3, 3)), ((11, 13), 48, 32, (3, 5)), ((3, 2), 128, 16, (1, 1))],
)
def test_values_and_gradients_equal_the_definition(name, image, inputs, outputs, kernel_size):
    arguments, gradient = random_arguments(image, inputs, outputs, kernel_size)
    results = []
    for function in (CANDIDATES[name], sample_conv.by_definition):
        output, transpose = jax.vjp(jax.jit(function), *arguments)
        results.append((output, *transpose(gradient)))
    for ours, expected in zip(*results, strict=True):
        assert ours.shape == expected.shape
        assert ours.dtype == expected.dtype
        np.testing.assert_allclose(ours, expected, rtol=0, atol=3e-6 * np.abs(expected).max())


@pytest.mark.parametrize('name', CANDIDATES)
def test_bfloat16_is_summed_in_float32(name):
    (x, bank, bias, gamma), _ = random_arguments((6, 5), 64, 16, (3, 3), 'bfloat16')
    bank = bank.astype('bfloat16').astype('float32')
    gamma = jnp.zeros_like(gamma).at[:, 1].set(1)  # so that mixed kernels are not rounded
    output = CANDIDATES[name](x, bank, bias, gamma)
    assert output.dtype == jnp.bfloat16
    expected = sample_conv.by_definition(x.astype('float32'), bank, bias, gamma)
    error = np.abs(output.astype('float32') - expected)
    assert (error <= 2.0**-8 * np.abs(expected) + 1e-5 * np.abs(expected).max()).all()  # the result alone is rounded


def test_kernels_are_lowered_for_cuda():
    arguments, gradient = random_arguments((11, 13), 48, 32, (3, 3))

    def both(gradient, *arguments):
        output, transpose = jax.vjp(gpu_candidates.implicit, *arguments)
        return output, *transpose(gradient)

    chip = AbstractDevice('NVIDIA H100 80GB HBM3', num_cores=None, platform='gpu')
    with use_abstract_mesh(AbstractMesh((1,), ('x',), abstract_device=chip)):
        text = jax.jit(both).trace(gradient, *arguments).lower(lowering_platforms=('cuda',)).as_text()
    assert text.count('name = "implicit_convolution"') == 2  # of x, and of the output's gradient
    assert text.count('name = "implicit_correlation"') == 1


def test_channels_that_no_program_can_take():
    arguments, _ = random_arguments((4, 4), 16, 24, (3, 3))
    with pytest.raises(ValueError, match='multiples of 16, not 16, 24'):
        gpu_candidates.implicit(*arguments, interpret=True)


def test_they_take_part_on_gpus_alone(monkeypatch):
    assert not set(CANDIDATES) & sample_conv.convolutions().keys()
    monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
    assert set(CANDIDATES) <= sample_conv.convolutions().keys()
