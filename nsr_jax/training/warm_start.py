"""A new run that begins with the weights of another one."""

import os
import pathlib

import jax
import ml_collections
import numpy as np
from absl import logging

from nsr_jax import agreement
from nsr_jax.errors import UserError
from nsr_jax.models.build import network_differences
from nsr_jax.trained import FOLDER, LoadedModel, fingerprint, load_model
from nsr_jax.training.state import TrainState, begin_with_weights

# The layers whose output has scale² times the channels, so that their weights do not fit another scale.
_OF_ITS_SCALE = ('tail', 'skip')


def check_warm_start(config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> None:
    """Read the weights that a new run begins with, before long work starts; a run that continues needs none.

    Args:
        config: a whole config; `config.warm_start` names a run's workdir or one checkpoint, or is ''.
        workdir: of the run; if it holds a checkpoint, nothing is read.

    Raises:
        UserError: there is no such checkpoint, or its task or network differs from the config's in more than the scale;
            the line says how.
    """
    begins = not any(path.name.isdigit() for path in (pathlib.Path(workdir) / FOLDER).glob('*'))
    if config.warm_start and begins:
        _load(config)


def begin_with(state: TrainState, config: ml_collections.ConfigDict) -> TrainState:
    """Replace the random weights of a new state by those that `config.warm_start` names, or by their average.

    The optimizer's state stays empty, and the step 0. If the scales differ, tail and skip stay random; the log says so.

    Args:
        state: a new one; its leaves keep their shardings.

    Raises:
        UserError: as `check_warm_start`.
    """
    with agreement.agreed():
        model = _load(config)
    agreement.check_alike({'what config.warm_start holds': fingerprint(model.params)})
    new = [name for name in _OF_ITS_SCALE if name in state.params and model.config.model.scale != config.model.scale]
    taken = {name: model.params[name] for name in state.params if name not in new}
    logging.info(
        'beginning with the weights of %s, %s: %s taken%s',
        model.path,
        model.origin,
        _describe(taken),
        f'; {" and ".join(new)} new, for scale {config.model.scale} and not {model.config.model.scale}' if new else '',
    )
    kept = {name: state.params[name] for name in taken}
    params = state.params | jax.tree.map(_place, taken, kept)
    return begin_with_weights(state, params)


def _load(config: ml_collections.ConfigDict) -> LoadedModel:
    try:
        model = load_model(config.warm_start)
    except UserError as error:
        raise UserError(f'config.warm_start: {error}') from error
    found = network_differences(config.model, model.config.model)
    differences = [text for field, text in found.items() if field != 'scale']
    if config.task != model.config.task:
        differences.append(f'task {config.task} here, {model.config.task} there')
    if differences:
        raise UserError(f'config.warm_start: {model.path} is of another network: {"; ".join(differences)}')
    return model


def _describe(taken: dict) -> str:
    blocks = [name for name in taken if name.startswith('block_')]
    others = [name for name in taken if name not in blocks]
    return ', '.join(others + ([f'{len(blocks)} blocks'] if blocks else []))


def _place(weights: jax.Array, like: jax.Array) -> jax.Array:
    """Put the weights on the devices as `like` lies there; each process puts its own part."""
    host = np.array(weights)  # a copy: the state is donated
    return jax.make_array_from_callback(host.shape, like.sharding, lambda index: host[index])
