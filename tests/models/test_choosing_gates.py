"""Do gates choose? Two kinds of images need different kernels, so a network that tells them apart has a lower loss."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nsr_jax.models.residual import RestorationNetwork
from nsr_jax.optimizers import find_optimizer


def draw(key):
    """Fine noise that is to be shifted left and coarse noise that is to be shifted right, and which is which."""
    fine = jax.random.normal(key, (8, 12, 12, 1)) / 10
    coarse = (fine + jnp.roll(fine, 1, 1) + jnp.roll(fine, 1, 2) + jnp.roll(fine, (1, 1), (1, 2))) / 2
    is_fine = jnp.arange(8) % 2 == 0
    inputs = 0.5 + jnp.where(is_fine[:, None, None, None], fine, coarse)
    targets = jnp.where(is_fine[:, None, None, None], jnp.roll(inputs, 1, 2), jnp.roll(inputs, -1, 2))
    return inputs, targets, is_fine


def train_network(**options):
    """The loss of a tiny network at the end of its training, and how far gates differ between the kinds."""
    network = RestorationNetwork(
        scale=1, channels=1, num_blocks=1, features=8, width_multiplier=1, groups=2, cardinality=2, **options
    )
    adam = find_optimizer('adam', lambda step: jnp.float32(2e-3))

    @jax.jit
    def train(params):
        def compare(params, inputs, targets):
            return jnp.abs(network.apply({'params': params}, inputs) - targets).mean()

        def step(carry, index):
            params, moments = carry
            inputs, targets, _ = draw(jax.random.fold_in(jax.random.key(1), index))
            loss, gradients = jax.value_and_grad(compare)(params, inputs, targets)
            updates, moments = adam.update(gradients, moments, params, step=index)
            return (optax.apply_updates(params, updates), moments), loss

        (params, _), losses = jax.lax.scan(step, (params, adam.init(params)), jnp.arange(200))
        return params, losses[-20:].mean()

    params, loss = train(network.init(jax.random.key(0), jnp.zeros((1, 12, 12, 1)))['params'])
    inputs, _, is_fine = draw(jax.random.key(2))
    _, kept = network.apply({'params': params}, inputs, mutable=['intermediates'])
    gammas = [np.asarray(gamma) for gamma in jax.tree.leaves(kept['intermediates'])]
    return loss, max(np.abs(gamma[is_fine].mean(0) - gamma[~is_fine].mean(0)).max() for gamma in gammas)


def test_gates_of_more_reach_tell_two_kinds_of_images_apart():
    """After 200 steps the paper's gates have hardly moved."""
    loss, difference = train_network()
    choosing_loss, choosing_difference = train_network(gate_pooling='rms', gate_scale=10.0)
    assert difference < 0.05 and choosing_difference > 0.3
    assert choosing_loss < 0.6 * loss
