"""What training changes, and the optimizer that changes it."""

import functools
from collections.abc import Sequence

import flax
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from nsr_jax.models.build import Network
from nsr_jax.ops.settings import fixed_bits, new_key
from nsr_jax.training.sharding import state_shardings

# Adam without its learning rate, which is a function of the step and applied by the train step.
ADAM = optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8)

# Initialising runs once: on a CPU it takes longer to optimise than to run. The weights are the same.
_COMPILER_OPTIONS = {'cpu': {'xla_backend_optimization_level': 1}}


@flax.struct.dataclass
class TrainState:
    """Everything that a step changes.

    Attributes:
        step: int32, steps taken.
        params: the network's parameters, float32.
        optimizer: Adam's moments.
        skipped: int32, how many of the last steps in a row changed nothing, for their loss or gradient was not finite.
    """

    step: jax.Array
    params: dict
    optimizer: optax.OptState
    skipped: jax.Array


def learning_rate_at(
    step: jax.Array, *, initial: float, num_steps: int, drops: Sequence[float], factor: float
) -> jax.Array:
    """The rate of a step (paper, section 4: x0.2 at 2/3 and 5/6 of the run).

    Args:
        step: counted from 0.
        initial: before the first drop.
        num_steps: of the whole run.
        drops: fractions of the run from which on the rate is multiplied by `factor` once more.
        factor: of each drop.
    """
    taken = sum((step >= round(drop * num_steps)).astype(jnp.float32) for drop in drops)
    return jnp.float32(initial) * jnp.float32(factor) ** taken


def init_state(network: Network, key: jax.Array) -> TrainState:
    """Random weights and empty moments."""
    image = jnp.zeros((1, 8, 8, network.channels), jnp.float32)
    # The weights of a seed, also under FLAX_FIX_RNG_SEPARATOR=1.
    with fixed_bits(), flax.config.temp_flip_flag('fix_rng_separator', False):
        params = network.init(key, image)['params']
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, params, ADAM.init(params), zero)


def abstract_state(network: Network, mesh: Mesh) -> TrainState:
    """The state as shapes, dtypes and shardings; nothing is computed."""
    shapes = jax.eval_shape(functools.partial(init_state, network), new_key(0))
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        state_shardings(mesh, shapes),
    )


def create_state(network: Network, mesh: Mesh, seed: int) -> TrainState:
    """Make the state where it will live: no device ever holds more than its part."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(network, mesh))
    init = jax.jit(
        functools.partial(init_state, network),
        out_shardings=shardings,
        compiler_options=_COMPILER_OPTIONS.get(mesh.devices.flat[0].platform),
    )
    return init(new_key(seed))
