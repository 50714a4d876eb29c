"""The state that training changes: how it begins, and how it lies on the devices."""

import dataclasses
import functools
from typing import Any

import flax
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from nsr_jax.models.build import EXAMPLE_SIDE, Network
from nsr_jax.ops.settings import fixed_bits, new_key
from nsr_jax.optimizers import averaged_weights, begin_average_with
from nsr_jax.training.sharding import state_shardings

# Initialisation runs once, and on a CPU its optimisation would take longer than the run. The weights are the same.
_COMPILER_OPTIONS = {'cpu': {'xla_backend_optimization_level': 1}}


@flax.struct.dataclass
class TrainState:
    """Everything that a step changes.

    Attributes:
        step: int32, steps taken.
        params: the network's parameters, float32.
        optimizer: the optimizer's own state, such as Adam's moments.
        skipped: int32, how many of the last steps were skipped in a row because their loss or gradient was not finite.
        ema: the exponential moving average of the parameters, sharded as they are; None: none is kept.
    """

    step: jax.Array
    params: dict
    optimizer: optax.OptState
    skipped: jax.Array
    ema: dict | None = None


def averages_of(state: TrainState) -> dict[str, dict]:
    """The averages that are evaluated and used in place of the trained weights, by name, sharded as they are.

    The name is 'ema', or 'schedule_free' for the average that this optimizer keeps; without an average it is empty.
    """
    trees = {'ema': state.ema, 'schedule_free': averaged_weights(state.optimizer, state.params)}
    return {name: tree for name, tree in trees.items() if tree is not None}


def begin_with_weights(state: TrainState, params: dict) -> TrainState:
    """Replace the weights of a new state by others that are sharded alike; its averages begin with them too."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, params)
    copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=shardings)
    optimizer = begin_average_with(state.optimizer, copy(params))
    ema = None if state.ema is None else copy(params)
    return dataclasses.replace(state, params=params, optimizer=optimizer, ema=ema)


def average_weights(ema: dict, params: Any, step: jax.Array, decay: float) -> dict:
    """The moving average after a step: `d ema + (1 - d) params`, with `d = min(decay, (1 + step) / (10 + step))`.

    The average begins with the random weights. The smaller `d` of the first steps makes it forget them soon.

    Args:
        ema: the average before the step, float32.
        params: the weights after it, float32.
        step: int32, counted from 0.
        decay: from 0 to 1.
    """
    share = jnp.maximum(jnp.float32(1 - decay), 9 / (10 + step.astype(jnp.float32)))
    averaged: Any = optax.incremental_update(params, ema, share)
    return averaged


def init_state(
    network: Network, optimizer: optax.GradientTransformation, key: jax.Array, has_ema: bool = False
) -> TrainState:
    """Make random weights, a copy of them as the average if there is one, and the optimizer's first state."""
    image = jnp.zeros((1, EXAMPLE_SIDE, EXAMPLE_SIDE, network.channels), jnp.float32)
    # A seed gives the same weights under FLAX_FIX_RNG_SEPARATOR=1.
    with fixed_bits(), flax.config.temp_flip_flag('fix_rng_separator', False):
        params: Any = network.init(key, image)['params']
    zero = jnp.zeros((), jnp.int32)
    ema = jax.tree.map(jnp.copy, params) if has_ema else None
    return TrainState(zero, params, optimizer.init(params), zero, ema)


def state_shapes(network: Network, optimizer: optax.GradientTransformation, has_ema: bool = False) -> TrainState:
    """The state as shapes and dtypes; nothing is computed."""
    return jax.eval_shape(functools.partial(init_state, network, optimizer, has_ema=has_ema), new_key(0))


def abstract_state(
    network: Network, optimizer: optax.GradientTransformation, mesh: Mesh, has_ema: bool = False
) -> TrainState:
    """The state as shapes, dtypes and shardings; nothing is computed."""
    shapes = state_shapes(network, optimizer, has_ema)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        state_shardings(mesh, shapes),
    )


def create_state(
    network: Network, optimizer: optax.GradientTransformation, mesh: Mesh, seed: int, has_ema: bool = False
) -> TrainState:
    """Make the state on the devices, of which none ever holds more than its part."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(network, optimizer, mesh, has_ema))
    init = jax.jit(
        functools.partial(init_state, network, optimizer, has_ema=has_ema),
        out_shardings=shardings,
        compiler_options=_COMPILER_OPTIONS.get(mesh.devices.flat[0].platform),
    )
    return init(new_key(seed))
