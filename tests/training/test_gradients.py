import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nsr_jax.errors import UserError
from nsr_jax.losses import find_losses
from nsr_jax.models.residual import RestorationNetwork
from nsr_jax.training.gradients import compare_and_differentiate, find_microbatch_size
from nsr_jax.training.sharding import make_mesh

NETWORK = RestorationNetwork(scale=2, channels=3, num_blocks=1, features=8, groups=2, cardinality=4)
LOSSES = find_losses({'l1': 1.0, 'l2': 0.5})


def compile_gradients(network, microbatch_size, batch_size=4, side=10):
    mesh = make_mesh(data=-1, fsdp=1, batch_size=batch_size)
    keys = jax.random.split(jax.random.key(0), 3)
    inputs = jax.random.uniform(keys[0], (batch_size, side, side, 3))
    targets = jax.random.uniform(keys[1], (batch_size, 2 * side, 2 * side, 3))
    arguments = network.init(keys[2], inputs[:1])['params'], inputs, targets

    @jax.jit
    def compute(*arguments):
        return compare_and_differentiate(network, *arguments, losses=LOSSES, mesh=mesh, microbatch_size=microbatch_size)

    options = {'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED'}  # as the train step
    return compute.lower(*arguments).compile(options), arguments


@pytest.mark.parametrize('microbatch_size', [1, 2])
def test_parts_of_a_batch_give_the_gradient_of_the_whole(microbatch_size):
    compute, (params, inputs, targets) = compile_gradients(NETWORK, microbatch_size)

    @jax.jit
    def by_definition(params):
        error = NETWORK.apply({'params': params}, inputs) - targets
        l1, squared = jnp.abs(error).mean(), jnp.square(error).mean()
        return l1 + 0.5 * squared, l1, squared

    found, gradients = compute(params, inputs, targets)
    expected = by_definition(params)
    assert list(found.terms) == ['l1', 'l2']
    np.testing.assert_allclose((found.loss, *found.terms.values()), expected, rtol=1e-6)
    np.testing.assert_allclose(found.squared, expected[2], rtol=1e-6)
    expected = jax.jit(jax.grad(lambda params: by_definition(params)[0]))(params)
    assert jax.tree.structure(gradients) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6 * np.abs(theirs).max())


def test_a_sample_at_a_time_takes_little_memory():
    one, all_four = (compile_gradients(NETWORK, size, 4 * jax.device_count(), 40)[0] for size in (1, 4))
    assert one.memory_analysis().temp_size_in_bytes < 0.65 * all_four.memory_analysis().temp_size_in_bytes


def test_each_block_costs_the_same():
    """XLA may recompute the sum of gradients at a residual connection for all earlier blocks."""
    moved = [
        compile_gradients(NETWORK.clone(num_blocks=blocks), 1)[0].cost_analysis()['bytes accessed']
        for blocks in (1, 2, 3)
    ]
    assert moved[2] - moved[1] < 1.01 * (moved[1] - moved[0])


def test_a_device_computes_one_sample_at_once_or_the_given_number():
    mesh = make_mesh(data=-1, fsdp=1, batch_size=12 * jax.device_count())
    find = lambda asked: find_microbatch_size(asked, 12 * mesh.size, mesh)  # noqa: E731
    assert [find(asked) for asked in (0, 1, 4, 12)] == [1, 1, 4, 12]  # on a CPU
    with pytest.raises(UserError, match=r'microbatch_size 5 does not divide the 12 samples of each device'):
        find(5)


def test_each_sample_draws_noise_by_its_own_key():
    network = NETWORK.clone(gate='gumbel')
    inputs, targets = jnp.linspace(0, 1, 2 * 75).reshape(2, 5, 5, 3), jnp.zeros((2, 10, 10, 3))
    params = network.init(jax.random.key(0, impl='rbg'), inputs)['params']
    keys = jax.random.split(jax.random.key(1, impl='rbg'), 2)
    mesh = make_mesh(data=-1, fsdp=1, batch_size=2)
    found, gradients = jax.jit(
        lambda params: compare_and_differentiate(
            network, params, inputs, targets, losses=LOSSES, mesh=mesh, microbatch_size=1, noise_keys=keys
        )
    )(params)

    @jax.jit
    @jax.value_and_grad
    def by_definition(params):
        images = [
            network.apply({'params': params}, inputs[index, None], rngs={'noise': keys[index]}) for index in range(2)
        ]
        error = jnp.concatenate(images) - targets
        return jnp.abs(error).mean() + 0.5 * jnp.square(error).mean()

    loss, expected = by_definition(params)
    np.testing.assert_allclose(found.loss, loss, rtol=1e-6)
    for ours, theirs in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6 * np.abs(theirs).max())
    assert np.abs(gradients['block_00']['conv_1']['gate']['kernel']).max() > 0
