"""Optimizers of optax by name, and learning rates over a run.

An entry of `OPTIMIZERS` takes a schedule and the options that its signature names, and makes an `optax` transformation
from gradients to what is added to the weights. An entry of `SCHEDULES` maps a step to a rate. Options that a config
leaves at None have the defaults of the signature.
"""

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from nsr_jax.errors import UserError

Schedule = Callable[[jax.Array], jax.Array]  # from a step, counted from 0, to its learning rate

# Parameters that weight decay leaves alone, by their last name. It leaves those of gates alone as well.
_NOT_DECAYED = ('scale', 'bias', 'threshold')


# Learning rates.


def steps(step: jax.Array, *, num_steps: int, drops: Sequence[float], factor: float) -> jax.Array:
    """A factor that drops at fractions of the run (paper, section 4: x0.2 at 2/3 and 5/6).

    Args:
        step: counted from 0.
        num_steps: of the whole run.
        drops: fractions of the run, at each of which the rate is multiplied by `factor`.
        factor: of each drop.
    """
    taken = sum((step >= round(drop * num_steps)).astype(jnp.float32) for drop in drops)
    return jnp.float32(factor) ** taken


def cosine(step: jax.Array, *, num_steps: int) -> jax.Array:
    """Half a cosine from 1 to 0 over the run."""
    return jnp.asarray(optax.schedules.cosine_decay_schedule(1.0, num_steps)(step.astype(jnp.float32)))


def constant(step: jax.Array) -> jax.Array:
    """The same rate at each step."""
    return jnp.ones_like(step, jnp.float32)


SCHEDULES: dict[str, Callable[..., jax.Array]] = {'steps': steps, 'cosine': cosine, 'constant': constant}


def find_schedule(name: str, rate: float, *, warmup_steps: int = 0, **options: Any) -> Schedule:
    """The learning rate of each step.

    Args:
        name: in `SCHEDULES`.
        rate: multiplied by the schedule's factors.
        warmup_steps: the number of first steps over which the rate rises linearly from near 0.
        **options: of the run; the schedule gets those that its signature names.

    Raises:
        UserError: the name is unknown.
    """
    if name not in SCHEDULES:
        raise UserError(f'config.learning_rate_schedule: unknown schedule {name!r}: {", ".join(SCHEDULES)} are known')
    taken = {key: value for key, value in options.items() if key in inspect.signature(SCHEDULES[name]).parameters}
    factor = functools.partial(SCHEDULES[name], **taken)

    def schedule(step: jax.Array) -> jax.Array:
        value = jnp.float32(rate) * factor(step)
        if warmup_steps:
            value *= jnp.minimum((step + 1).astype(jnp.float32) / warmup_steps, 1)
        return value

    return schedule


# Optimizers.


def _at_rate(direction: optax.GradientTransformation, schedule: Schedule) -> optax.GradientTransformationExtraArgs:
    """Multiply a direction by the rate of the `step` that `update` takes as a keyword; the state is the direction's.

    The step is the run's, which counts skipped steps, rather than one that is counted here.
    """

    def update(updates: Any, state: Any, params: Any = None, **told: Any) -> tuple[Any, Any]:
        updates, state = direction.update(updates, state, params)
        rate = schedule(told['step'])
        return jax.tree.map(lambda each: -rate * each, updates), state

    return optax.GradientTransformationExtraArgs(direction.init, update)


def adam(schedule: Schedule, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> optax.GradientTransformation:
    """Adam (Kingma and Ba, 2015), the paper's."""
    return _at_rate(optax.scale_by_adam(b1, b2, eps), schedule)


def adamw(
    schedule: Schedule, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, weight_decay: float = 1e-4
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019), except of scales, biases and gates."""
    decay = optax.add_decayed_weights(weight_decay, decayed)
    return _at_rate(optax.chain(optax.scale_by_adam(b1, b2, eps), decay), schedule)


def lion(
    schedule: Schedule, *, b1: float = 0.9, b2: float = 0.99, weight_decay: float = 1e-3
) -> optax.GradientTransformation:
    """Lion (Chen et al., 2023): the sign of a momentum, at a tenth of Adam's rates; decay as in `adamw`."""
    decay = optax.add_decayed_weights(weight_decay, decayed)
    return _at_rate(optax.chain(optax.scale_by_lion(b1, b2), decay), schedule)


def muon(
    schedule: Schedule,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    momentum: float = 0.95,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """Muon (Jordan, 2024) for kernels as matrices from (kh, kw, Cin) to Cout, one for each group; Nadam for the rest.

    Updates of kernels are brought to the size of Adam's, so that both take the same rates (Liu et al., 2025).
    """
    direction = contrib.muon(
        -1.0,
        beta=momentum,
        eps=eps,
        weight_decay=weight_decay,
        weight_decay_mask=decayed,
        adam_b1=b1,
        adam_b2=b2,
        muon_weight_dimension_numbers=_as_matrices,
        consistent_rms=0.2,
    )
    return _at_rate(direction, schedule)


def schedule_free(
    schedule: Schedule, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0
) -> optax.GradientTransformationExtraArgs:
    """Schedule-free AdamW (Defazio et al., 2024), for a constant rate; decay as in `adamw`.

    The trained weights are not those to use, which `averaged_weights` gives.
    """
    if not b1 > 0:
        raise UserError(f'config.optimizer.b1 must be above 0 for schedule_free, not {b1!r}')
    rms = optax.scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True)
    base = _at_rate(optax.chain(rms, optax.add_decayed_weights(weight_decay, decayed)), schedule)

    def update(updates: Any, state: Any, params: Any = None, **told: Any) -> tuple[Any, Any]:
        step = told['step']
        return contrib.schedule_free(base, schedule(step), b1=b1).update(updates, state, params, step=step)

    return optax.GradientTransformationExtraArgs(contrib.schedule_free(base, 0.0, b1=b1).init, update)


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    'adam': adam,
    'adamw': adamw,
    'lion': lion,
    'muon': muon,
    'schedule_free': schedule_free,
}


def find_optimizer(
    name: str,
    schedule: Schedule,
    *,
    gate_rate: float = 1.0,
    clip_norm: float = 0.0,
    accumulate_steps: int = 1,
    options: Mapping[str, float | None] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The transformation from gradients to what is added to the weights; its `update` takes the `step` as a keyword.

    Args:
        name: in `OPTIMIZERS`.
        gate_rate: factor of the steps of gates' weights.
        clip_norm: gradients with a larger norm over all weights are scaled down to it; 0: never.
        accumulate_steps: the number of steps whose gradients are averaged before the weights change.
        options: by name; None stands for the optimizer's own default.

    Raises:
        UserError: an unknown name, an option that this optimizer does not take, or a value that makes no sense.
    """
    if name not in OPTIMIZERS:
        raise UserError(f'config.optimizer.name: unknown optimizer {name!r}: {", ".join(OPTIMIZERS)} are known')
    make = OPTIMIZERS[name]
    accepted = [each.name for each in inspect.signature(make).parameters.values() if each.kind is each.KEYWORD_ONLY]
    given = {key: value for key, value in (options or {}).items() if value is not None}
    for key, value in given.items():
        if key not in accepted:
            raise UserError(f'config.optimizer.{key}: {name} takes no such option; it takes {", ".join(accepted)}')
        _check_number(f'config.optimizer.{key}', value, largest=1 if key in ('b1', 'b2', 'momentum') else math.inf)
    _check_number('config.optimizer.clip_norm', clip_norm)
    _check_number('config.optimizer.gate_rate', gate_rate)
    if name == 'schedule_free' and gate_rate != 1:
        raise UserError('config.optimizer.gate_rate must be 1 for schedule_free, whose steps are those of an average')
    if not isinstance(accumulate_steps, int) or not 1 <= accumulate_steps < 2**31:
        raise UserError(f'config.optimizer.accumulate_steps must be a whole number from 1, not {accumulate_steps!r}')
    optimizer = optax.with_extra_args_support(make(schedule, **given))
    if clip_norm:
        optimizer = _clip(optimizer, clip_norm)
    if accumulate_steps > 1:
        accumulated: Any = optax.MultiSteps(optimizer, accumulate_steps)
        optimizer = optax.GradientTransformationExtraArgs(accumulated.init, accumulated.update)
    optimizer = optax.with_extra_args_support(optimizer)

    def update(updates: Any, state: Any, params: Any = None, **told: Any) -> tuple[Any, Any]:
        with jax.numpy_dtype_promotion('standard'):  # as Optax needs it
            updates, state = optimizer.update(updates, state, params, **told)
        if gate_rate != 1:
            updates = jax.tree.map(
                lambda update, is_gate: update * gate_rate if is_gate else update, updates, of_gates(updates)
            )
        return updates, state

    return optax.GradientTransformationExtraArgs(optimizer.init, update)


def _clip(optimizer: optax.GradientTransformationExtraArgs, norm: float) -> optax.GradientTransformationExtraArgs:
    """Clip gradients before an optimizer; its state stays as it is, so that a run can begin to clip or cease to."""
    clip = optax.clip_by_global_norm(norm)

    def update(updates: Any, state: Any, params: Any = None, **told: Any) -> tuple[Any, Any]:
        updates, _ = clip.update(updates, clip.init(params))
        return optimizer.update(updates, state, params, **told)

    return optax.GradientTransformationExtraArgs(optimizer.init, update)


# Weights that the optimizer itself averages.


def averaged_weights(optimizer_state: Any, params: Any) -> Any:
    """The average that `schedule_free` keeps, to be evaluated and used; None for another optimizer."""
    found = [each for each in jax.tree.leaves(optimizer_state, is_leaf=_is_schedule_free) if _is_schedule_free(each)]
    return jax.jit(contrib.schedule_free_eval_params)(found[0], params) if found else None


def begin_average_with(optimizer_state: Any, params: Any) -> Any:
    """Make a new optimizer's state begin its average with other weights; it keeps the arrays of `params`."""
    return jax.tree.map(
        lambda each: each._replace(z=params) if _is_schedule_free(each) else each,
        optimizer_state,
        is_leaf=_is_schedule_free,
    )


def _is_schedule_free(value: Any) -> bool:
    return isinstance(value, contrib.ScheduleFreeState)


def _check_number(name: str, value: Any, largest: float = math.inf) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < largest:
        limit = f' and below {largest}' if largest < math.inf else ''
        raise UserError(f'{name} must be a number from 0{limit}, not {value!r}')


# The choice of parameters by their names in a network.


def of_gates(params: Any) -> Any:
    """For each parameter, whether it belongs to a gate."""
    return jax.tree.map_with_path(lambda path, _: 'gate' in _names(path), params)


def decayed(params: Any) -> Any:
    """For each parameter, whether weight decay applies to it: to kernels, but not to scales, biases and gates."""
    is_kernel = jax.tree.map_with_path(lambda path, _: _names(path)[-1] not in _NOT_DECAYED, params)
    return jax.tree.map(lambda kernel, gate: kernel and not gate, is_kernel, of_gates(params))


def _as_matrices(params: Any) -> Any:
    """Muon's dimension numbers of kernels (kh, kw, Cin, Cout) and banks (kh, kw, Cin, k, d, Cout/d); None of others."""

    def numbers(leaf: jax.Array, is_kernel: bool) -> contrib.MuonDimensionNumbers | None:
        outputs = {4: (3,), 6: (4, 5)}.get(leaf.ndim)
        return contrib.MuonDimensionNumbers((0, 1, 2), outputs) if is_kernel and outputs else None

    return jax.tree.map(numbers, params, decayed(params))


def _names(path: tuple[Any, ...]) -> list[str]:
    return [each.key for each in path]
