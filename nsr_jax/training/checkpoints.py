"""Checkpoints: a workdir's series of them, and a model taken out of one. Orbax alone; no optimizer is needed to read.

workdir/checkpoints/<step>/params      the network's weights, float32, one entry a block
                           optimizer   the optimizer's state (absent where only weights were saved)
                           metadata    JSON: the whole config, the step, the library's version
                           metrics     JSON: the evaluation's PSNR in dB, where there was an evaluation
"""

import dataclasses
import json
import math
import pathlib
from typing import Any

import jax
import ml_collections
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

import nsr_jax
from nsr_jax.errors import UserError
from nsr_jax.models.build import build_network
from nsr_jax.models.cost import parameter_shapes

FOLDER = 'checkpoints'
METRIC = 'psnr'


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """Weights and where they come from.

    Attributes:
        config: the whole config that the network was trained by.
        params: the network's parameter tree, on the default device.
        step: of the optimizer.
        path: the checkpoint's folder.
    """

    config: ml_collections.ConfigDict
    params: dict
    step: int
    path: pathlib.Path


class Checkpoints:
    """The checkpoints of one workdir: saved asynchronously and atomically, the last ones and the best one kept.

    Args:
        workdir: its `checkpoints` folder is made where it is missing.
        keep: how many of the last ones to keep; the one with the best PSNR is kept besides.
    """

    def __init__(self, workdir: str | pathlib.Path, keep: int):
        best = checkpoint_managers.BestN(get_metric_fn=_psnr, n=1, keep_checkpoints_without_metrics=False)
        self._manager = ocp.CheckpointManager(
            pathlib.Path(workdir).resolve() / FOLDER,
            options=ocp.CheckpointManagerOptions(
                best_fn=_psnr,  # without it the metrics are not saved
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(
                    [checkpoint_managers.LatestN(keep), best]
                ),
            ),
        )

    @property
    def latest_step(self) -> int | None:
        """The last complete checkpoint's step, None where there is none."""
        return self._manager.latest_step()

    def save(
        self,
        step: int,
        config: ml_collections.ConfigDict,
        params: Any,
        optimizer: Any = None,
        psnr: float | None = None,
    ) -> None:
        """Start to save; the arrays are copied before this returns and written in the background.

        Args:
            step: of the optimizer; a step that is saved already is left as it is.
            config: the whole config.
            params: the network's parameters.
            optimizer: the optimizer's state; None saves weights alone, which cannot be trained on.
            psnr: the evaluation's score in dB; the checkpoint with the highest is kept.
        """
        if step in self._manager.all_steps():
            return
        metadata = {'config': json.loads(config.to_json()), 'step': step, 'nsr_jax_version': nsr_jax.__version__}
        items = {'params': ocp.args.StandardSave(params), 'metadata': ocp.args.JsonSave(metadata)}
        if optimizer is not None:
            items['optimizer'] = ocp.args.StandardSave(optimizer)
        metrics = {} if psnr is None or math.isnan(psnr) else {METRIC: psnr}
        self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics)

    def restore(self, step: int, params: Any, optimizer: Any) -> tuple[Any, Any]:
        """Read one checkpoint back, onto any mesh.

        Args:
            step: one that was saved.
            params: shapes, dtypes and shardings of the parameters, as `jax.ShapeDtypeStruct`s.
            optimizer: the same of the optimizer's state.

        Returns:
            params and optimizer.

        Raises:
            UserError: the checkpoint holds weights alone.
        """
        path = pathlib.Path(self._manager.directory) / str(step)
        if not (path / 'optimizer').is_dir():
            raise UserError(f'{path} holds weights alone: they can be scored and applied, not trained on')
        items = ocp.args.Composite(
            params=ocp.args.StandardRestore(params), optimizer=ocp.args.StandardRestore(optimizer)
        )
        restored = self._manager.restore(step, args=items)
        return restored['params'], restored['optimizer']

    def close(self) -> None:
        """Wait until everything is written."""
        self._manager.close()


def save_model(directory: str | pathlib.Path, params: Any, config: ml_collections.ConfigDict, step: int = 0) -> None:
    """Write one checkpoint of weights alone, that `load_model` reads; waits until it is written."""
    checkpoints = Checkpoints(directory, keep=1)
    checkpoints.save(step, config, params)
    checkpoints.close()


def load_model(directory: str | pathlib.Path) -> LoadedModel:
    """Read a network's weights and its config.

    Args:
        directory: a workdir, of which the checkpoint with the best PSNR is taken, or the last one where none was
            evaluated; or the folder of one checkpoint.

    Raises:
        UserError: there is no checkpoint, or its weights do not fit its own config.
    """
    path = _find_checkpoint(pathlib.Path(directory).resolve())
    try:
        metadata = json.loads((path / 'metadata' / 'metadata').read_text())
        config = ml_collections.ConfigDict(_with_tuples(metadata['config'])).lock()
        step = int(metadata['step'])
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f'{path} is not a checkpoint of this library: {error!r}') from error
    network = build_network(config.model)
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), parameter_shapes(network)
    )
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            params = checkpointer.restore(path / 'params', shapes)
    except (ValueError, OSError) as error:
        raise UserError(f'{path} cannot be read: {error}') from error
    return LoadedModel(config, params, step, path)


def _with_tuples(value: Any) -> Any:
    """A config as it was before JSON, which knows lists alone, made lists of its tuples."""
    if isinstance(value, dict):
        return {name: _with_tuples(each) for name, each in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def _psnr(metrics: dict[str, float]) -> float:
    return metrics.get(METRIC, float('-inf'))


def _find_checkpoint(directory: pathlib.Path) -> pathlib.Path:
    if not directory.is_dir():
        raise UserError(f'no checkpoint at {directory}: there is no such folder')
    if (directory / 'metadata').is_dir():
        return directory
    steps = [step for step in (directory / FOLDER).glob('*') if step.name.isdigit()]
    if not steps:
        raise UserError(f'no checkpoint at {directory}: neither a workdir with one nor a checkpoint folder')

    def quality(step: pathlib.Path) -> tuple[float, int]:
        metrics = step / 'metrics' / 'metrics'
        return _psnr(json.loads(metrics.read_text())), int(step.name)

    return max(steps, key=quality)
