"""Which of a workdir's checkpoints is the best one: of those that were scored alike, that with the highest PSNR."""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from nsr_jax.errors import UserError

FOLDER = 'checkpoints'
METRIC = 'psnr'
_KIND = 'measured_on'


class BrokenCheckpointError(UserError):
    """A checkpoint that does not hold what was saved."""


def make_metrics(psnr: float | None, measured_on: Mapping[str, str]) -> dict[str, Any]:
    """What is kept beside a checkpoint for `find_best`.

    Args:
        psnr: in dB; None and NaN are no score.
        measured_on: what the score depends on besides the weights: images, protocol and so on.
    """
    if psnr is None or math.isnan(psnr):
        return {}
    kind = hashlib.sha256(json.dumps(measured_on, sort_keys=True).encode()).hexdigest()[:16]
    return {METRIC: psnr, _KIND: kind if measured_on else None}


def find_best(metrics: Mapping[int, Mapping[str, Any]]) -> int | None:
    """The best step; None where none was scored.

    Scores on other images, or by another protocol, say nothing of each other: those compete that were taken as the
    newest one was. Of equal ones the later is better.

    Args:
        metrics: by step, as `make_metrics` gives them.
    """
    scored = {step: each for step, each in metrics.items() if METRIC in each}
    if not scored:
        return None
    kind = scored[max(scored)].get(_KIND)
    return max((each[METRIC], step) for step, each in scored.items() if each.get(_KIND) == kind)[1]


@dataclasses.dataclass(frozen=True)
class KeepBest:
    """Orbax's policy to keep the checkpoint that is the best one."""

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """For each checkpoint, with its `step` and `metrics`, whether it is kept."""
        del context
        best = find_best({each.step: each.metrics or {} for each in checkpoints})
        return [each.step == best for each in checkpoints]


def find_checkpoint(directory: pathlib.Path) -> pathlib.Path:
    """The folder of one checkpoint: of a workdir the best one, or the last one where none was scored.

    Raises:
        UserError: there is none, or it is broken, or not all its own.
    """
    if not os.path.isdir(directory):  # unlike pathlib, also for a name that is too long for one
        raise UserError(f'no checkpoint at {directory}: there is no such folder')
    if (directory / 'metadata').is_dir():
        _refuse_links(directory)
        return directory
    steps = {int(step.name): step for step in (directory / FOLDER).glob('*') if step.name.isdigit()}
    if not steps:
        raise UserError(f'no checkpoint at {directory}: neither a workdir with one nor a checkpoint folder')
    best = find_best({step: _read_metrics(path) for step, path in steps.items()})
    return steps[max(steps) if best is None else best]


def _read_metrics(checkpoint: pathlib.Path) -> dict[str, Any]:
    _refuse_links(checkpoint)
    path = checkpoint / 'metrics' / 'metrics'
    try:
        metrics = json.loads(path.read_text(encoding='utf-8'))
        float(metrics.get(METRIC, 0))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise BrokenCheckpointError(f'{path} cannot be read: {error}') from error
    return metrics


def _refuse_links(checkpoint: pathlib.Path) -> None:
    """A checkpoint that came from elsewhere is not to say which other files are read."""
    for path in checkpoint.rglob('*'):
        if path.is_symlink():
            raise BrokenCheckpointError(f'{path} is a link: a checkpoint holds its own files')
