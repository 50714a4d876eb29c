"""The authors' PyTorch network on random weights: ours has the same outputs, gradients and training steps.

`tests/reference` holds three of the five cases; the others are read from `golden/` beside the folder of images.
"""

import functools
import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nsr_jax.inference.prediction import predict
from nsr_jax.inference.tiling import Tiling
from nsr_jax.models.cost import parameter_shapes
from nsr_jax.models.residual import RestorationNetwork
from nsr_jax.torch_file import read_torch_checkpoint
from nsr_jax.torch_layout import to_parameters

REFERENCE = pathlib.Path(__file__).parents[1] / 'reference'
FIELDS = ('scale', 'channels', 'num_blocks', 'features', 'width_multiplier', 'groups', 'cardinality')
COMMITTED = ('nsr_gray', 'nsr_x2', 'wdsr_x2')
CASES = (*COMMITTED, 'nsr_x3_wide', 'nsr_x4')

OUTPUT_TOLERANCE = 1e-5  # measured on a CPU: 1.4e-6, of values up to 1.5


def golden_folder():
    folder = pathlib.Path(os.environ.get('NSR_DATA_DIR', 'no data')).parent / 'golden'
    if not folder.is_dir():
        pytest.skip('there is no folder golden/ beside the one that NSR_DATA_DIR names')
    return folder


class Case:
    """One network of the authors' with its numbers."""

    def __init__(self, name, folder):
        specification = json.loads((folder / 'index.json').read_text())['cases'][name]
        self.network = RestorationNetwork(**{field: specification[field] for field in FIELDS})
        self.count = specification['parameters']
        state_dict = read_torch_checkpoint(folder / f'{name}.pth')['model_state_dict']
        self.shapes = parameter_shapes(self.network)
        self.parameters = to_parameters(state_dict, self.shapes)
        with np.load(folder / f'{name}.npz') as numbers:
            self.numbers = dict(numbers)

    def tree(self, prefix):
        keys = [key for key in self.numbers if key.startswith(prefix)]
        return to_parameters({key.removeprefix(prefix): self.numbers[key] for key in keys}, self.shapes)


@functools.cache
def load(name):
    return Case(name, REFERENCE if name in COMMITTED else golden_folder())


@pytest.mark.usefixtures('optimized')
@pytest.mark.parametrize('name', CASES)
def test_whole_images(name):
    case = load(name)
    assert sum(leaf.size for leaf in jax.tree.leaves(case.parameters)) == case.count
    for size in ('small', 'narrow'):
        out = predict(case.network, case.parameters, case.numbers[f'input_{size}'][0], tiling=Tiling('authors'))
        np.testing.assert_allclose(out, case.numbers[f'output_{size}'][0], rtol=0, atol=OUTPUT_TOLERANCE)


@pytest.mark.usefixtures('optimized')
@pytest.mark.parametrize('name', ['nsr_gray', 'nsr_x2'])
def test_large_images_by_the_authors_patches(name):
    case = load(name)
    numbers = case.numbers
    if 'input_large' not in numbers:  # too large to be committed
        with np.load(golden_folder() / f'{name}.npz') as file:
            numbers = dict(file)
    image, expected = numbers['input_large'][0], numbers['output_large'][0]
    # Without tiles these images differ by 0.8 and more.
    out = predict(case.network, case.parameters, image, tiling=Tiling('authors'))
    np.testing.assert_allclose(out, expected, rtol=0, atol=OUTPUT_TOLERANCE)


@pytest.mark.parametrize('name', CASES)
def test_gradients_and_adam_steps(name):
    case = load(name)
    batch, target = case.numbers['batch_input'], case.numbers['batch_target']
    optimizer = optax.adam(1e-3, b1=0.9, b2=0.999, eps=1e-8)

    @jax.jit
    @jax.value_and_grad
    def loss_and_gradients(parameters):
        return jnp.abs(case.network.apply({'params': parameters}, batch) - target).mean()

    @jax.jit
    def update(parameters, state, gradients):
        with jax.numpy_dtype_promotion('standard'):  # Optax needs it
            updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(parameters, updates), state

    parameters, state = case.parameters, optimizer.init(case.parameters)
    losses = []
    for step in range(5):
        with jax.default_matmul_precision('float32'):
            loss, gradients = loss_and_gradients(parameters)
        losses.append(loss)
        if step == 0:
            jax.tree.map(assert_gradients_equal, gradients, case.tree('gradient/'))
        parameters, state = update(parameters, state, gradients)
    np.testing.assert_allclose(losses, case.numbers['losses'], rtol=0, atol=1e-5)
    jax.tree.map(assert_weights_equal, parameters, case.tree('after5/'))


def assert_gradients_equal(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=5e-5 * np.abs(expected).max())


def assert_weights_equal(actual, expected):
    """Five steps move each weight by up to 5e-3.

    Measured on a CPU: at most 3e-6 on the mean over an array, 4e-4 in the worst single weight. Single weights may part
    further because Adam divides by the gradient's own size, so it enlarges float32's rounding in small gradients, and
    because the L1 loss and the ReLU have kinks.
    """
    difference = np.abs(actual - expected)
    assert difference.max() < 1e-3
    assert difference.mean() < 1e-5
