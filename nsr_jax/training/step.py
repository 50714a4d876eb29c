"""The train step: sample, restore, compare, update; one call takes several steps."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh

from nsr_jax.data.sampling import Regions, sample_keys
from nsr_jax.data.store import ImageStore
from nsr_jax.inference.devices import replicated
from nsr_jax.losses import WeightedLosses
from nsr_jax.models.build import Network
from nsr_jax.training.gradients import compare_and_differentiate, warm_gates
from nsr_jax.training.placing import store_formats
from nsr_jax.training.sharding import over_batch, over_calls
from nsr_jax.training.state import TrainState, average_weights

# (images, the call's first step, step, indices (B,)) to inputs (B, P, P, C) and targets (B, sP, sP, C), on [0, 1]
MakeBatch = Callable[[ImageStore | Regions, jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]

# XLA's default order of operations on a CPU takes up to twice the memory, remat or not, in the same time.
_COMPILER_OPTIONS = {'cpu': {'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED'}}


def make_train_steps(
    network: Network,
    make_batch: MakeBatch,
    *,
    losses: WeightedLosses,
    optimizer: optax.GradientTransformationExtraArgs,
    batch_size: int,
    stop_after_skipped: int,
    mesh: Mesh,
    microbatch_size: int,
    abstract: TrainState,
    ema_decay: float = 0.0,
    gate_warmup_steps: int = 0,
    streamed: bool = False,
    noise_key: jax.Array | None = None,
) -> jax.stages.Wrapped:
    """Make the jitted `train_steps(state, images, count)`.

    Args:
        make_batch: makes a batch of the images, a pure function of the step.
        optimizer: its `update` takes the `step` as a keyword.
        batch_size: over all devices.
        stop_after_skipped: after this many skipped steps in a row no more steps are taken.
        mesh: both of its axes split the batch.
        microbatch_size: how many samples a device computes at once.
        abstract: the state's shapes and shardings.
        ema_decay: of the average of the weights, if the state has one.
        gate_warmup_steps: over which the gates' logits rise, as in `warm_gates`.
        streamed: whether the images are a call's `Regions`, split over the devices, rather than a resident store.
        noise_key: of the whole run, for a network that draws noise.

    Returns:
        A function that takes the state (donated), the images and the number of steps (which may differ from call to
        call without recompilation). It returns the new state and sums over the steps: of 'loss', its terms
        'loss/NAME', 'psnr' (of the batch's unclipped prediction, dB) and 'gradient_norm', all without skipped steps,
        and of 'skipped', their number. A step is skipped if its loss or gradient is not finite: it counts as taken and
        changes nothing else.
    """
    state_sharding = jax.tree.map(lambda leaf: leaf.sharding, abstract)

    def one_step(images: ImageStore | Regions, first_step: jax.Array, state: TrainState) -> tuple[TrainState, dict]:
        indices = lax.with_sharding_constraint(jnp.arange(batch_size, dtype=jnp.int32), over_batch(mesh))
        with jax.named_scope('sample'):
            inputs, targets = make_batch(images, first_step, state.step, indices)
        found, gradients = compare_and_differentiate(
            network,
            warm_gates(state.params, state.step, gate_warmup_steps),
            inputs,
            targets,
            losses=losses,
            mesh=mesh,
            microbatch_size=microbatch_size,
            noise_keys=None if noise_key is None else sample_keys(noise_key, state.step, indices),
        )
        gradients = warm_gates(gradients, state.step, gate_warmup_steps)
        with jax.named_scope('optimizer'):
            gradient_norm = optax.tree.norm(gradients)
            finite = jnp.isfinite(found.loss) & jnp.isfinite(gradient_norm)

            def update(params, optimizer_state, ema):
                updates, optimizer_state = optimizer.update(gradients, optimizer_state, params, step=state.step)
                params = optax.apply_updates(params, updates)
                if ema is not None:
                    ema = average_weights(ema, params, state.step, ema_decay)
                return params, optimizer_state, ema

            def keep(params, optimizer_state, ema):
                return params, optimizer_state, ema

            # One branch rather than a choice for each number, for which a CPU copies Adam's moments and takes 2 %
            # longer.
            params, optimizer_state, ema = lax.cond(finite, update, keep, state.params, state.optimizer, state.ema)
        terms = {f'loss/{name}': term for name, term in found.terms.items()}
        metrics = {'loss': found.loss, **terms, 'psnr': -10 * jnp.log10(found.squared), 'gradient_norm': gradient_norm}
        metrics = {name: jnp.where(finite, number, 0) for name, number in metrics.items()}
        state = TrainState(state.step + 1, params, optimizer_state, jnp.where(finite, 0, state.skipped + 1), ema)
        return state, metrics | {'skipped': 1 - finite.astype(jnp.float32)}

    def train_steps(state: TrainState, images: ImageStore | Regions, count: jax.Array):
        first_step, end = state.step, state.step + count

        def goes_on(carry):
            state, _ = carry
            return (state.step < end) & (state.skipped < stop_after_skipped)

        def take_one(carry):
            state, sums = carry
            state, metrics = one_step(images, first_step, state)
            return state, jax.tree.map(jnp.add, sums, metrics)

        names = ('loss', *(f'loss/{name}' for name in losses), 'psnr', 'gradient_norm', 'skipped')
        zeros = dict.fromkeys(names, jnp.zeros((), jnp.float32))
        return lax.while_loop(goes_on, take_one, (state, zeros))

    whole = replicated(mesh)
    return jax.jit(
        train_steps,
        in_shardings=(state_sharding, over_calls(mesh) if streamed else store_formats(mesh), whole),
        out_shardings=(state_sharding, whole),
        donate_argnums=0,
        compiler_options=_COMPILER_OPTIONS.get(mesh.devices.flat[0].platform),
    )
