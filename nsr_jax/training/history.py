"""The config that a run began with, and which of its fields were changed at which step.

workdir/config.json    the config of the run's first step
        changes.json   [{"step": 12, "changes": {"num_steps": {"from": 12, "to": 20}}}], in the order of the steps

The second file is there only if something was changed. The run's config is the first file with all changes.
"""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import ml_collections
from absl import logging
from flax.traverse_util import flatten_dict

from nsr_jax import agreement
from nsr_jax.atomic_files import write_atomically
from nsr_jax.errors import UserError

CONFIG = 'config.json'
CHANGES = 'changes.json'

# Fields that may differ when a run continues, because they change no batch, weight or step.
_FREE = (
    'data.data_dir', 'data.tfds_dir', 'data.resident_megabytes', 'data.store_dir', 'remat', 'steps_per_call',
    'checkpoints_to_keep', 'stop_after_skipped', 'microbatch_size', 'trackers',
)  # fmt: skip
_FREE_SECTIONS = ('mesh.', 'evaluation.', 'validation.')
_FREE_PERIODS = ('log_every_steps', 'evaluate_every_steps', 'checkpoint_every_steps')

# What runs did before these fields existed; any other field that an older config lacks was off, as by default.
_BEFORE = {
    'degradation.subsampling': ['4:2:0'],
    'model.gate_pooling': 'mean',
    'model.gate_scale': 1.0,
    'model.gate_noise': 1.0,
    'model.threshold': 'relu',
    'loss.l1': 1.0,
    'optimizer.name': 'adam',
    'optimizer.gate_rate': 1.0,
    'optimizer.accumulate_steps': 1,
    'learning_rate_schedule': 'steps',
}

_WAY = {'from', 'to'}
MISSING = 'missing'

Change = dict[str, Any]  # {'step': N, 'changes': {field: {'from': value, 'to': value}}}


def is_free(name: str) -> bool:
    """Whether a field may differ when a run continues, because it changes no batch, weight or step."""
    return name in (*_FREE, *_FREE_PERIODS) or name.startswith(_FREE_SECTIONS)


def write_config(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Write the config of a run that starts; a run that continues keeps its first one."""
    if agreement.is_first() and not (workdir / CONFIG).exists():
        write_atomically(workdir / CONFIG, json.dumps(json.loads(config.to_json()), indent=2) + '\n')


def find_differences(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> dict[str, tuple[Any, Any]] | None:
    """The fields in which a config differs from the one that a workdir's run has now, except free ones.

    Returns:
        By name, the values there and here, as JSON holds them; `MISSING` here if the config has no such field. None:
        there is no run.

    Raises:
        UserError: the run's config or its changes cannot be read.
    """
    if not os.path.lexists(workdir / CONFIG):
        return None
    there, here = _read_fields(workdir, config), _flat(config)
    return {
        name: (value, here.get(name, MISSING))
        for name, value in there.items()
        if value != here.get(name, MISSING) and not is_free(name)
    }


def config_at(config: ml_collections.ConfigDict, changes: Sequence[Change], step: int) -> ml_collections.ConfigDict:
    """A run's config with the values that its fields had at a step.

    Args:
        config: the one that the run has after all changes.
        changes: of the run.
        step: the number of steps that were taken.
    """
    earlier = config.copy_and_resolve_references()
    for change in reversed(changes):
        if change['step'] > step:
            for name, values in change['changes'].items():
                set_field(earlier, name, values['from'])
    return earlier


def set_field(config: ml_collections.ConfigDict, name: str, value: Any) -> None:
    """Set a field to a value that JSON has held, in which tuples have become lists."""
    with config.unlocked():
        config.update_from_flattened_dict({name: tuple(value) if isinstance(value, list) else value})


def record_changes(
    workdir: pathlib.Path, config: ml_collections.ConfigDict, named: Sequence[str], step: int
) -> list[Change]:
    """Write that a run goes on from a step by this config, which may differ from the run's in any field.

    A change that was written before, but of which no checkpoint is left, begins at this step as well.

    Args:
        workdir: of a run; one process may call this.
        named: the fields that were to be changed; the log says which of them have the value already.

    Returns:
        All changes of the run so far.

    Raises:
        UserError: the file cannot be read or written.
    """
    differences = find_differences(workdir, config) or {}
    for name in named:
        if name not in differences:
            reason = 'it may differ unnamed' if is_free(name) else f'it is {_flat(config)[name]} already'
            logging.info('--change=%s: %s', name, reason)
    if differences:
        changed = [f'{name} {here} (before: {there})' for name, (there, here) in differences.items()]
        logging.info('changed from step %d on: %s', step, ', '.join(changed))
    known = read_changes(workdir)
    new = {name: {'from': there, 'to': here} for name, (there, here) in differences.items()}
    by_step: dict[int, dict[str, Any]] = {}
    for change in [*known, {'step': step, 'changes': new}]:
        fields = by_step.setdefault(min(change['step'], step), {})
        for name, values in change['changes'].items():
            fields[name] = values | {'from': fields.get(name, values)['from']}
    changes = [{'step': at, 'changes': fields} for at, fields in by_step.items() if fields]
    if changes != known:
        _write_changes(workdir, changes)
    return changes


def write_history(folder: pathlib.Path, config: ml_collections.ConfigDict, changes: Sequence[Change]) -> None:
    """Write into an empty folder what another workdir of the same run holds.

    Args:
        config: the one that the run has after all changes.
        changes: of the run.
    """
    write_config(folder, config_at(config, changes, 0))
    if changes:
        _write_changes(folder, changes)


def _write_changes(workdir: pathlib.Path, changes: Sequence[Change]) -> None:
    write_atomically(workdir / CHANGES, json.dumps(changes, indent=1) + '\n')


def read_changes(workdir: pathlib.Path) -> list[Change]:
    """All changes of a run, in the order of their steps. Raises `UserError` if they cannot be read."""
    path = workdir / CHANGES
    if not os.path.lexists(path):
        return []
    try:
        changes = json.loads(path.read_text(encoding='utf-8'))
        for change in changes:
            assert type(change['step']) is int and all(each.keys() == _WAY for each in change['changes'].values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError, RecursionError) as error:
        raise UserError(f'{path} cannot be read as the changes of a run: {error!r}') from error
    return changes


def _read_fields(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Every field of a run's config by its dotted name; `config` says which fields there are today."""
    path = workdir / CONFIG
    try:
        began = flatten_dict(json.loads(path.read_text(encoding='utf-8')), sep='.')
    except (OSError, ValueError, AssertionError, RecursionError) as error:
        raise UserError(f'{path} cannot be read as the config of a run: {error}') from error
    off = {name: None if value is None else type(value)() for name, value in _flat(config).items()}
    fields = off | {name: value for name, value in _BEFORE.items() if name in off} | began
    for change in read_changes(workdir):
        fields |= {name: values['to'] for name, values in change['changes'].items()}
    return fields


def _flat(config: ml_collections.ConfigDict) -> dict[str, Any]:
    return flatten_dict(json.loads(config.to_json()), sep='.')
