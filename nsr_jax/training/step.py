"""The train step: sample, restore, compare, update; as many times in one call as asked for."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh

from nsr_jax.data.store import ImageStore
from nsr_jax.models.build import Network
from nsr_jax.training.sharding import over_batch, replicated
from nsr_jax.training.state import ADAM, TrainState

# (store, step, indices (B,)) to inputs (B, P, P, C) and targets (B, sP, sP, C), float32 on [0, 1]
MakeBatch = Callable[[ImageStore, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]

# XLA's default order of operations on a CPU takes up to twice the memory, remat or not, in the same time.
_COMPILER_OPTIONS = {'cpu': {'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED'}}


def make_train_steps(
    network: Network,
    make_batch: MakeBatch,
    learning_rate: Callable[[jax.Array], jax.Array],
    *,
    batch_size: int,
    mesh: Mesh,
    abstract: TrainState,
) -> jax.stages.Wrapped:
    """Make the jitted `train_steps(state, store, count)`.

    Args:
        network: what is trained.
        make_batch: a batch from the store, a pure function of the step.
        learning_rate: of a step.
        batch_size: over all devices.
        mesh: the batch is split over both of its axes.
        abstract: the state's shapes and shardings.

    Returns:
        A function that takes the state (donated), the resident store and how many steps to take (any number, no
        recompilation), and returns the new state and the sums over these steps of 'loss' (L1 on [0, 1]) and 'psnr'
        (of the batch's unclipped prediction, dB).
    """
    state_sharding = jax.tree.map(lambda leaf: leaf.sharding, abstract)

    def loss_and_psnr(params, inputs, targets):
        error = network.apply({'params': params}, inputs) - targets
        return jnp.mean(jnp.abs(error)), -10 * jnp.log10(jnp.mean(jnp.square(error)))

    def one_step(store: ImageStore, state: TrainState) -> tuple[TrainState, dict[str, jax.Array]]:
        indices = lax.with_sharding_constraint(jnp.arange(batch_size), over_batch(mesh))
        with jax.named_scope('sample'):
            inputs, targets = make_batch(store, state.step, indices)
        (loss, psnr), gradients = jax.value_and_grad(loss_and_psnr, has_aux=True)(state.params, inputs, targets)
        with jax.named_scope('optimizer'):
            updates, optimizer = ADAM.update(gradients, state.optimizer)
            rate = learning_rate(state.step)
            params = optax.apply_updates(state.params, jax.tree.map(lambda update: -rate * update, updates))
        return TrainState(state.step + 1, params, optimizer), {'loss': loss, 'psnr': psnr}

    def train_steps(state: TrainState, store: ImageStore, count: jax.Array):
        def body(_, carry):
            state, sums = carry
            state, metrics = one_step(store, state)
            return state, jax.tree.map(jnp.add, sums, metrics)

        zeros = {'loss': jnp.zeros(()), 'psnr': jnp.zeros(())}
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return lax.fori_loop(0, count, body, (state, zeros))

    whole = replicated(mesh)
    return jax.jit(
        train_steps,
        in_shardings=(state_sharding, whole, whole),
        out_shardings=(state_sharding, whole),
        donate_argnums=0,
        compiler_options=_COMPILER_OPTIONS.get(mesh.devices.flat[0].platform),
    )
