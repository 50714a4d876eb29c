import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nsr_jax.data.store import ImageStore
from nsr_jax.models.network import RestorationNetwork
from nsr_jax.training.sharding import make_mesh, replicated
from nsr_jax.training.state import abstract_state, create_state
from nsr_jax.training.step import make_train_steps

NETWORK = RestorationNetwork(scale=2, channels=3, num_blocks=2, features=8, groups=2, cardinality=4)


def batch_of(step, indices, side=10):
    """Smooth inputs and targets that differ from step to step; the store is not read."""
    grid = jnp.arange(side) / 5 + step
    waves = jnp.sin(grid[:, None] + jnp.cos(grid[None, :])) * 0.3 + 0.5
    inputs = waves[None, :, :, None] * (1 + indices[:, None, None, None] / 10) * jnp.array([1.0, 0.8, 0.6])
    return inputs, jnp.repeat(jnp.repeat(inputs, 2, axis=1), 2, axis=2)


def program_of(mesh, network, side=10):
    """`train_steps` of a network, and of the empty store that `batch_of` does not read."""
    train_steps = make_train_steps(
        network,
        lambda store, step, indices: batch_of(step, indices, side),
        halve,
        batch_size=3,
        mesh=mesh,
        abstract=abstract_state(network, mesh),
    )
    empty = ImageStore(np.zeros((1, 2, 2, 3), np.uint8), np.zeros((1, 1, 1, 3), np.uint8), np.ones((1, 2), np.int32))
    return train_steps, jax.device_put(empty, replicated(mesh))


def halve(step):
    return 1e-3 * 0.5**step


@pytest.fixture(scope='module')
def setting():
    mesh = make_mesh(data=-1, fsdp=1, batch_size=3)
    return mesh, *program_of(mesh, NETWORK)


def test_steps_are_adam_on_the_l1_loss(setting):
    mesh, train_steps, store = setting
    state, sums = train_steps(create_state(NETWORK, mesh, 0), store, 3)

    params = create_state(NETWORK, mesh, 0).params
    adam = optax.adam(halve)  # optax's own, that counts steps itself
    moments = adam.init(params)
    losses, psnrs = [], []

    @jax.jit
    def value_and_gradients(params, inputs, targets):
        def loss(params):
            error = NETWORK.apply({'params': params}, inputs) - targets
            return jnp.abs(error).mean(), jnp.square(error).mean()

        return jax.value_and_grad(loss, has_aux=True)(params)

    for step in range(3):
        (loss, squared), gradients = value_and_gradients(params, *batch_of(step, jnp.arange(3)))
        updates, moments = adam.update(gradients, moments)
        params = optax.apply_updates(params, updates)
        losses.append(loss)
        psnrs.append(10 * np.log10(1 / squared))
    assert int(state.step) == 3
    np.testing.assert_allclose(sums['loss'], sum(losses), rtol=1e-5)
    np.testing.assert_allclose(sums['psnr'], sum(psnrs), rtol=1e-5)
    for ours, expected in zip(jax.tree.leaves(state.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-5)  # one step moves a weight by up to 1e-3


def test_many_steps_in_one_call_are_the_same_steps(setting):
    mesh, train_steps, store = setting
    together, _ = train_steps(create_state(NETWORK, mesh, 0), store, 4)
    apart = create_state(NETWORK, mesh, 0)
    for count in (1, 3):
        apart, _ = train_steps(apart, store, count)
    assert train_steps._cache_size() == 1  # no recompilation for another count
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), together, apart))


def test_remat_saves_memory():
    mesh = make_mesh(data=-1, fsdp=1, batch_size=3)
    bytes_needed = []
    for remat in (False, True):
        network = NETWORK.clone(num_blocks=4, width_multiplier=4, remat=remat)
        train_steps, store = program_of(mesh, network, side=40)
        program = train_steps.lower(abstract_state(network, mesh), store, 1).compile()
        bytes_needed.append(program.memory_analysis().temp_size_in_bytes)
    assert bytes_needed[1] < 0.85 * bytes_needed[0]


ON_A_MESH = """
import json, sys
import jax
from nsr_jax.data.store import ImageStore
from nsr_jax.training.sharding import make_mesh, replicated
from nsr_jax.training.state import abstract_state, create_state
from nsr_jax.training.step import make_train_steps
from nsr_jax.data.sampling import sample_patches
from nsr_jax.models.network import RestorationNetwork
import functools, numpy as np

network = RestorationNetwork(scale=2, channels=3, num_blocks=2, features=8, groups=2, cardinality=4)
images = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), dtype=np.uint8)
store = ImageStore(images, images[:, ::2, ::2], np.full((2, 2), 32, np.int32))
sample = functools.partial(sample_patches, key=jax.random.key(0), scale=2, patch_size=12, margin=2)
results = {}
for data, fsdp in json.loads(sys.argv[1]):
    mesh = make_mesh(data, fsdp, 16)
    state = create_state(network, mesh, 0)
    train_steps = make_train_steps(
        network, lambda store, step, indices: sample(store, step=step, indices=indices), lambda step: 1e-3,
        batch_size=16, mesh=mesh, abstract=abstract_state(network, mesh))
    losses = []
    for _ in range(5):
        state, sums = train_steps(state, jax.device_put(store, replicated(mesh)), 1)
        losses.append(float(sums['loss']))
    kernel = state.params['block_00']['conv_1']['direction']
    moment = state.optimizer.mu['block_00']['conv_1']['direction']
    parts = [array.addressable_shards[0].data.size / array.size for array in (kernel, moment)]
    results[f'{data}x{fsdp}'] = losses, parts
print(json.dumps(results))
"""


def losses_on(meshes, devices):
    environment = os.environ | {
        'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
        'JAX_PLATFORMS': 'cpu',
    }
    output = subprocess.run(
        [sys.executable, '-c', ON_A_MESH, json.dumps(meshes)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(output.stdout.splitlines()[-1])


def test_every_mesh_gives_the_losses_of_one_device():
    ((one, _),) = losses_on([(1, 1)], 1).values()
    assert one[-1] < one[0]
    for name, (losses, parts) in losses_on([(8, 1), (2, 4)], 8).items():
        np.testing.assert_allclose(losses, one, rtol=1e-5, err_msg=name)
        assert parts == [1 / int(name.split('x')[1])] * 2  # state split over fsdp alone
