"""The checkpoints that a run saves and continues from; `trained` defines what is in one, and reads it."""

import contextlib
import dataclasses
import itertools
import json
import math
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

import nsr_jax
from nsr_jax import agreement
from nsr_jax.atomic_files import make_output_folder
from nsr_jax.errors import UserError
from nsr_jax.paths import check_for_libraries
from nsr_jax.trained import (
    FOLDER,
    MEASURED_ON,
    MERIT,
    BrokenCheckpointError,
    check_fingerprint,
    digest,
    find_best,
    fingerprint,
    load_model,
    one_line,
    read_metadata,
)

BROKEN_FOLDER = 'broken_checkpoints'

_UNFINISHED = '.orbax-checkpoint-tmp'  # part of the names of checkpoints that Orbax has not finished

# What Orbax and TensorStore raise for files that cannot be written.
_WRITE_ERRORS = (OSError, ValueError, RuntimeError)


@dataclasses.dataclass(frozen=True)
class KeepBest:
    """A preservation policy of Orbax that keeps the best checkpoint."""

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Whether each checkpoint, with its `step` and `metrics`, is kept."""
        best = find_best({each.step: each.metrics or {} for each in checkpoints})
        return [each.step == best for each in checkpoints]


def make_metrics(merit: float | None, measured_on: Mapping[str, str]) -> dict[str, Any]:
    """The entries that are saved beside a checkpoint for `find_best`.

    Args:
        merit: of the validation; larger is better, None and NaN do not compete.
        measured_on: what the merit depends on besides the weights: images, protocol and so on.
    """
    if merit is None or math.isnan(merit):
        return {}
    return {MERIT: merit, MEASURED_ON: digest(measured_on)[:16] if measured_on else None}


class Checkpoints:
    """The checkpoints of one workdir: saved asynchronously and atomically, the last ones and the best one kept.

    Args:
        workdir: its `checkpoints` folder is made if it is missing.
        keep: how many of the last ones to keep beside the best one, which `find_best` tells.

    Raises:
        UserError: Orbax would misread the folder's path, or the folder cannot be read or made.
    """

    def __init__(self, workdir: str | pathlib.Path, keep: int):
        check_for_libraries(workdir, 'the folder of checkpoints')
        self._is_read_back = False
        folder = pathlib.Path(workdir).resolve() / FOLDER
        policy = checkpoint_managers.AnyPreservationPolicy([checkpoint_managers.LatestN(keep), KeepBest()])
        # Orbax saves the metrics only if there is a best_fn.
        options = ocp.CheckpointManagerOptions(best_fn=lambda metrics: metrics[MERIT], preservation_policy=policy)
        make_output_folder(folder)
        try:
            self._manager = ocp.CheckpointManager(folder, options=options)
        except _WRITE_ERRORS as error:
            if agreement.lost_another(error):
                raise
            raise UserError(f'{folder} cannot be used as a folder of checkpoints: {one_line(error)}') from error

    @property
    def steps(self) -> list[int]:
        """The saved steps in order; only `restore` finds out whether they can be read."""
        return sorted(self._manager.all_steps())

    def save(
        self,
        step: int,
        config: ml_collections.ConfigDict,
        params: Any,
        optimizer: Any = None,
        merit: float | None = None,
        *,
        averages: Mapping[str, Any] | None = None,
        images: str = '',
        measured_on: Mapping[str, str] | None = None,
        changes: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Copy the arrays and start to write them in the background.

        The first checkpoint of this object is waited for and read back.

        Args:
            step: of the optimizer; a step that is saved already is left as it is.
            optimizer: the optimizer's state; None saves weights alone, which cannot be trained further.
            merit: of the validation; the checkpoint with the largest one is kept.
            averages: weights to use in place of the parameters, by a name in `trained.AVERAGES`.
            images: a text that changes when the training images do.
            measured_on: what the merit depends on besides the weights, by name; merits that were measured on something
                else do not compete with it.
            changes: of the run's config since its first step, as `history.record_changes` tells them.

        Raises:
            UserError: this checkpoint or an earlier one cannot be written, or the first one cannot be read. Complete
                ones stay.
        """
        if step in self._manager.all_steps():
            return
        trees = {'params': params, 'optimizer': optimizer, **(averages or {})}
        items = {name: tree for name, tree in trees.items() if tree is not None}
        metadata = {
            'config': json.loads(config.to_json()),
            'step': step,
            'nsr_jax_version': nsr_jax.__version__,
            'fingerprints': {name: fingerprint(tree) for name, tree in items.items()},
            'images': images,
            'measured_on': dict(measured_on or {}),
            'changes': list(changes),
        }
        args: dict[str, ocp.args.CheckpointArgs] = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        args['metadata'] = ocp.args.JsonSave(metadata | {'sha256': digest(metadata)})
        with self._written():
            self._manager.save(
                step, args=ocp.args.Composite(**args), metrics=make_metrics(merit, metadata['measured_on'])
            )
        if not self._is_read_back:
            self._read_back(step)

    def _read_back(self, step: int) -> None:
        """Read the first weights back, to learn at once of a file system or a library that loses them."""
        with self._written():
            self._manager.wait_until_finished()
        with agreement.agreed():
            try:
                load_model(pathlib.Path(self._manager.directory) / str(step))
            except UserError as error:
                raise UserError(f'the first checkpoint was written, but cannot be read back: {error}') from error
        self._is_read_back = True

    def check(self) -> None:
        """Raise `UserError` if writing in the background has failed."""
        with self._written():
            self._manager.check_for_errors()

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except _WRITE_ERRORS as error:
            if agreement.lost_another(error):  # the files are not to blame
                raise
            complete = ', '.join(map(str, self.steps)) or 'none'
            raise UserError(
                f'a checkpoint cannot be written into {self._manager.directory}: {one_line(error)}; '
                f'complete there are those of steps: {complete}'
            ) from error

    def restore(self, step: int, params: Any, optimizer: Any, ema: Any = None) -> tuple[Any, Any, Any]:
        """Read one checkpoint back, onto any mesh.

        Args:
            params: shapes, dtypes and shardings of the parameters, as `jax.ShapeDtypeStruct`s.
            optimizer: the same of the optimizer's state.
            ema: the same of the parameters' moving average; None: it is not wanted.

        Returns:
            params, optimizer and ema.

        Raises:
            BrokenCheckpointError: a part is missing or is not what was saved; the line says which.
            UserError: the checkpoint holds weights alone, or lacks the moving average that is wanted.
        """
        with self._written():
            self._manager.wait_until_finished()
        path = pathlib.Path(self._manager.directory) / str(step)
        fingerprints = read_metadata(path)['fingerprints']
        if 'optimizer' not in fingerprints:
            raise UserError(f'{path} holds weights alone: they can be scored and applied, but not trained further')
        if ema is not None and 'ema' not in fingerprints:
            raise UserError(f'{path} holds no moving average of the weights: continue with config.ema_decay=0')
        trees = {'params': params, 'optimizer': optimizer, 'ema': ema}
        abstract = {name: tree for name, tree in trees.items() if tree is not None}
        items = ocp.args.Composite(**{name: ocp.args.StandardRestore(tree) for name, tree in abstract.items()})
        try:
            restored = self._manager.restore(step, args=items)
        except Exception as error:
            raise BrokenCheckpointError(f'{path} cannot be read: {one_line(error)}') from error
        for name in abstract:
            check_fingerprint(path / name, restored[name], fingerprints.get(name))
        return restored['params'], restored['optimizer'], restored.get('ema')

    def read_origin(self, step: int) -> tuple[str, dict[str, str]]:
        """The `images` and `measured_on` that a step was saved with; both are empty if an older version saved it."""
        metadata = read_metadata(pathlib.Path(self._manager.directory) / str(step))
        return metadata.get('images', ''), metadata.get('measured_on', {})

    def set_aside(self, steps: Iterable[int]) -> None:
        """Move broken checkpoints into the workdir's `broken_checkpoints`, so that their steps can be saved again."""
        directory = pathlib.Path(self._manager.directory)
        if agreement.is_first():
            folder = make_output_folder(directory.with_name(BROKEN_FOLDER))
            for step in steps:
                taken = {path.name for path in folder.iterdir()}
                names = (f'{step}_{number}' for number in itertools.count(1))
                (directory / str(step)).rename(folder / next(name for name in names if name not in taken))
        multihost_utils.sync_global_devices('broken checkpoints are set aside')
        self._manager.reload()

    def __enter__(self) -> 'Checkpoints':
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: Any) -> None:
        if error is None:
            self.close()
        elif not agreement.lost_another(error):  # without that process no checkpoint becomes complete
            with contextlib.suppress(UserError):  # the first error says more
                self.close()

    def close(self) -> None:
        """Wait until everything is written; raises `UserError` as `save` does."""
        try:
            with self._written():
                self._manager.wait_until_finished()
        finally:
            self._manager.close()


def remove_unfinished(workdir: pathlib.Path) -> None:
    """Remove the unfinished checkpoints of killed runs; only for a process that has locked the workdir.

    Orbax itself removes one only when it saves the same step again.
    """
    for path in (workdir / FOLDER).glob(f'*{_UNFINISHED}*'):
        shutil.rmtree(path, ignore_errors=True)


def save_model(directory: str | pathlib.Path, params: Any, config: ml_collections.ConfigDict, step: int = 0) -> None:
    """Write a checkpoint of weights alone, in float32, for `load_model`; returns when it is written."""
    with Checkpoints(directory, keep=1) as checkpoints:
        checkpoints.save(step, config, jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), params))
