"""Which of several checkpoints is the best one: of those that were scored alike, the one with the highest PSNR."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

METRIC = 'psnr'
_KIND = 'measured_on'


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
