"""Scores of single images, and their means over datasets."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Score:
    """The score of one model's prediction of one image.

    Attributes:
        dataset: the source's name.
        degradation: of the input, in words: 'x2', 'sigma 25', 'quality 10'.
        model: the name of the network or of the baseline.
        protocol: the name of a protocol in `tasks.all_protocols`.
        image: the example's name.
        values: by the metric's name in `metrics.METRICS`; the PSNR of a perfect prediction is infinite.
    """

    dataset: str
    degradation: str
    model: str
    protocol: str
    image: str
    values: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Mean:
    """The mean over the images of one dataset: fields as in `Score`, and the number of `images`."""

    dataset: str
    degradation: str
    model: str
    protocol: str
    images: int
    values: Mapping[str, float]


PUBLISHED_SO_FOR = 'published_so_for'  # column of the models whose published scores follow the row's protocol
# Columns of tables beside the numbers: no metric can have one of these names.
_FIELDS = {field.name for record in (Score, Mean) for field in dataclasses.fields(record)}
COLUMNS = (_FIELDS | {PUBLISHED_SO_FOR}) - {'values'}


def means(scores: Sequence[Score]) -> list[Mean]:
    """The mean of each metric over the images of each dataset, degradation, model and protocol, in their order.

    One infinite value makes a mean infinite.
    """
    groups: dict[tuple[str, str, str, str], list[Score]] = {}
    for each in scores:
        groups.setdefault((each.dataset, each.degradation, each.model, each.protocol), []).append(each)
    results = []
    for key, group in groups.items():
        values = {name: float(np.mean([each.values[name] for each in group])) for name in group[0].values}
        results.append(Mean(*key, len(group), values))
    return results
