"""Finds and reads trained weights in checkpoints; no optimizer is needed.

workdir/checkpoints/<step>/params      the network's weights, float32, one entry for each block
                           ema, schedule_free   an average of the weights, if the run has one
                           optimizer   the optimizer's state (absent if only weights were saved)
                           metadata    JSON: config and which fields of it were changed at which step, step, library
                                       version, and checksums of the arrays and of itself
                           metrics     JSON: the validation's merit (larger is better), if there was a validation, and a
                                       digest of what it was measured on

`training.checkpoints` writes them. Reading a checkpoint never runs code from it.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import orbax.checkpoint as ocp
from absl import logging

from nsr_jax.errors import UserError
from nsr_jax.models.build import build_network
from nsr_jax.models.cost import parameter_shapes
from nsr_jax.paths import local_path

FOLDER = 'checkpoints'
WHICH = ('best', 'last')  # of a workdir's checkpoints
MERIT = 'merit'
_OLD_MERIT = 'psnr'  # the merit of earlier versions, in dB
# Averages that are used instead of the weights if there are any, and their titles.
AVERAGES = {'ema': 'EMA', 'schedule_free': 'schedule-free average'}
MEASURED_ON = 'measured_on'

# Suffixes of files in which other programs keep weights.
_TORCH = ('.pth', '.pt')
_WEIGHTS = (*_TORCH, '.onnx', '.safetensors', '.npz')
_LONGEST_REASON = 400  # characters of a library's message that are shown
_BITS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


class BrokenCheckpointError(UserError):
    """A checkpoint whose contents are not what was saved."""


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """Weights and their origin.

    Attributes:
        config: the whole config of the training.
        params: the network's parameter tree, on the default device.
        step: of the optimizer.
        path: the folder of the checkpoint or from a model hub, or the file of a network that comes with the package.
        kind: of weights: a value of `AVERAGES`, or '' for the weights of the step itself.
    """

    config: ml_collections.ConfigDict
    params: dict
    step: int
    path: pathlib.Path
    kind: str = ''

    @property
    def origin(self) -> str:
        """The step and the kind of weights for tables and logs: 'step 30, EMA'."""
        return f'step {self.step}' + f', {self.kind}' * bool(self.kind)

    @property
    def label(self) -> str:
        """A short name: that of the run's folder, or of the file or folder with the weights."""
        return self.path.parents[1].name if self.path.parent.name == FOLDER else self.path.stem


def load_model(directory: str | pathlib.Path, which: str = 'best') -> LoadedModel:
    """Read a network's config and its weights, or the average of its weights if there is one, which is logged.

    Args:
        directory: a workdir, or the folder of one checkpoint. A ~ at the start is expanded.
        which: of a workdir's checkpoints to take, in `WHICH`: the best one (see `find_best`), or the last one if none
            was scored; or the last one. The log says which was taken.

    Raises:
        UserError: there is no checkpoint, or its weights do not fit its own config.
    """
    path = find_checkpoint(pathlib.Path(local_path(directory, 'a checkpoint')).resolve(), which)
    metadata = read_metadata(path)
    try:
        config = ml_collections.ConfigDict(_with_tuples(metadata['config'])).lock()
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise BrokenCheckpointError(f'{path / "metadata"} holds no config: {one_line(error)}') from error
    if not isinstance(config.get('task'), str) or not isinstance(config.get('model'), ml_collections.ConfigDict):
        raise BrokenCheckpointError(f'{path / "metadata"} holds no config with a task and a model')
    network = build_network(config.model)
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), parameter_shapes(network)
    )
    item = next((name for name in AVERAGES if name in metadata['fingerprints']), 'params')
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            params = checkpointer.restore(path / item, shapes)
    except Exception as error:  # a file is missing or damaged; Orbax raises plain Exceptions, too
        raise BrokenCheckpointError(f'{path} cannot be read: {one_line(error)}') from error
    check_fingerprint(path / item, params, metadata['fingerprints'].get(item))
    if kind := AVERAGES.get(item, ''):
        logging.info('%s: taking the average of its weights (%s)', path, kind)
    return LoadedModel(config, params, metadata['step'], path, kind)


# --- Choosing a checkpoint ---


def find_checkpoint(directory: pathlib.Path, which: str = 'best') -> pathlib.Path:
    """The folder of one checkpoint: the given one, or the best or last one of a workdir, as the log says.

    Raises:
        UserError: there is none, it is broken, or it holds links to other files.
    """
    refuse_file(directory)
    if not os.path.isdir(directory):  # pathlib would raise for a name that is too long
        raise UserError(f'no checkpoint at {directory}: there is no such folder')
    if (directory / 'metadata').is_dir():
        _refuse_links(directory)
        return directory
    path, taken = choose_checkpoint(directory, which)
    logging.info('%s: taking its %s, of step %s', directory, taken, path.name)
    return path


def choose_checkpoint(workdir: pathlib.Path, which: str = 'best') -> tuple[pathlib.Path, str]:
    """The folder of a workdir's best or last checkpoint, and which of them it is: the last one if none was scored.

    Raises:
        UserError: there is none, one is broken, or it holds links to other files; or `which` is not in `WHICH`.
    """
    check_which(which)
    steps = {int(step.name): step for step in (workdir / FOLDER).glob('*') if step.name.isdigit()}
    if not steps:
        raise UserError(f'no checkpoint at {workdir}: neither a workdir with one nor a checkpoint folder')
    best = find_best({step: _read_metrics(path) for step, path in steps.items()})
    if which == 'last':
        return steps[max(steps)], 'last checkpoint'
    if best is None:
        return steps[max(steps)], 'last checkpoint (none was scored)'
    return steps[best], 'best checkpoint'


def check_which(which: str) -> None:
    """Raise `UserError` unless it names one of a workdir's checkpoints."""
    if which not in WHICH:
        raise UserError(f'which checkpoint must be {" or ".join(WHICH)}, not {which!r}')


def refuse_file(path: str | os.PathLike) -> None:
    """Raise `UserError` if a path names a file of weights, which only the importer may be able to read."""
    suffix = pathlib.PurePath(path).suffix.lower()
    if suffix not in _WEIGHTS or os.path.isdir(path):
        return
    if not os.path.isfile(path):
        raise UserError(f'{os.fspath(path)}: there is no such file')
    importer = 'python -m nsr_jax.import_torch'
    if suffix in _TORCH:
        command = f'{importer} {os.fspath(path)} --config=CONFIG --output=FOLDER'
        raise UserError(f'{os.fspath(path)} is not a folder: {command} makes a checkpoint of a PyTorch file')
    raise UserError(
        f'{os.fspath(path)} cannot be read: give the folder of a run or of a checkpoint; of other files, only '
        f"the method's PyTorch files can be imported, by {importer} FILE.pth --config=CONFIG --output=FOLDER"
    )


def find_best(metrics: Mapping[int, Mapping[str, Any]]) -> int | None:
    """The step with the largest merit, the last one of equals; None if no step was scored.

    Scores on other images, or by another protocol, cannot be compared: only those that were measured like the newest
    one compete.

    Args:
        metrics: by step, as from `training.checkpoints.make_metrics`.
    """
    merits = {step: merit for step, each in metrics.items() if (merit := _merit(each)) is not None}
    if not merits:
        return None
    kind = metrics[max(merits)].get(MEASURED_ON)
    return max((merit, step) for step, merit in merits.items() if metrics[step].get(MEASURED_ON) == kind)[1]


def _merit(metrics: Mapping[str, Any]) -> float | None:
    merit = metrics.get(MERIT, metrics.get(_OLD_MERIT))
    return None if merit is None else float(merit)


def _read_metrics(checkpoint: pathlib.Path) -> dict[str, Any]:
    _refuse_links(checkpoint)
    path = checkpoint / 'metrics' / 'metrics'
    try:
        metrics = json.loads(path.read_text(encoding='utf-8'))
        _merit(metrics)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise BrokenCheckpointError(f'{path} cannot be read: {error}') from error
    return metrics


def _refuse_links(checkpoint: pathlib.Path) -> None:
    """Refuse links, because a stranger's checkpoint must not choose other files to be read."""
    for path in checkpoint.rglob('*'):
        if path.is_symlink():
            raise BrokenCheckpointError(f'{path} is a link: a checkpoint holds its own files')


# --- Checking it ---


def read_metadata(path: pathlib.Path) -> dict[str, Any]:
    """A checkpoint's metadata, checked against their own digest."""
    try:
        metadata = json.loads((path / 'metadata' / 'metadata').read_text(encoding='utf-8'))
        found = metadata.pop('sha256')
    except (OSError, KeyError, ValueError, AttributeError) as error:
        raise BrokenCheckpointError(f'{path} is not a checkpoint of this library: {error!r}') from error
    if found != digest(metadata):
        raise BrokenCheckpointError(f'{path / "metadata"} is not what was saved: its SHA-256 differs')
    for name, kind in {'config': dict, 'step': int, 'fingerprints': dict}.items():
        if not isinstance(metadata.get(name), kind):
            raise BrokenCheckpointError(f'{path / "metadata"}: {name} must be of type {kind.__name__}')
    return metadata


def digest(value: Mapping[str, Any]) -> str:
    """SHA-256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def check_fingerprint(path: pathlib.Path, tree: Any, expected: int | None) -> None:
    """Raise `BrokenCheckpointError` if the arrays that were read from `path` are not those that were saved."""
    if (found := fingerprint(tree)) != expected:
        raise BrokenCheckpointError(f'{path} is not what was saved: its fingerprint is {found}, not {expected}')


def fingerprint(tree: Any) -> int:
    """A number below 2^32 that changes with the bits of the arrays on the devices, not with their files.

    It is the sum of every array's bits, each element times an odd number of its own, modulo 2^32. Multiplying by an odd
    number is reversible modulo 2^32, so a change of one element always changes the sum, and other changes keep it only
    once in 2^32 times. The sum does not depend on the order, so the arrays may lie on any mesh.

    Args:
        tree: arrays of up to 32 bits an element.
    """
    return int(_sum(jax.tree.leaves(tree)))


@jax.jit
def _sum(leaves: list[jax.Array]) -> jax.Array:
    total = jnp.uint32(0)
    for index, leaf in enumerate(leaves):
        bits = jax.lax.bitcast_convert_type(leaf, _BITS[leaf.dtype.itemsize]).astype(jnp.uint32)
        place = jax.lax.iota(jnp.uint32, leaf.size).reshape(leaf.shape)
        total += jnp.sum(bits * (2 * place + 1), dtype=jnp.uint32) * jnp.uint32(2 * index + 1)
    return total


def one_line(error: BaseException) -> str:
    """The first cause of an error in one line, without the pages that libraries add."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or repr(error)).splitlines()[0][:_LONGEST_REASON]


def _with_tuples(value: Any) -> Any:
    """A config with tuples again, which JSON has turned into lists."""
    if isinstance(value, dict):
        return {name: _with_tuples(each) for name, each in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value
