"""The images and crops with a network's largest gains, which pictures and reports show."""

import collections
import dataclasses
import hashlib
import itertools
import math
import pathlib
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from nsr_jax import agreement
from nsr_jax.atomic_files import make_output_folder
from nsr_jax.data.sources import Source
from nsr_jax.evaluation.cells import Contender, Sweep
from nsr_jax.evaluation.gate_maps import write_gate_maps
from nsr_jax.evaluation.pictures import choose_crop, draw_comparison, plot_losses
from nsr_jax.evaluation.protocols import round_prediction
from nsr_jax.evaluation.report import ZOOM_SIZE, Picture, write_report
from nsr_jax.evaluation.scores import Score
from nsr_jax.evaluation.scoring import evaluate
from nsr_jax.paths import local_path
from nsr_jax.tasks import Degradation, find_baselines, find_task

CROP_SIZE = 96  # pixels of the true image
_GATES = '_gates'  # ending of a picture's name for its gate maps
_LONGEST_FILE_NAME = 150  # bytes of a picture's name, to which a digest and endings are added


@dataclasses.dataclass(frozen=True)
class SideBySide:
    """One image as several models restore it.

    Attributes:
        image: the example's name.
        network_input: the models' input, (h, w, C), uint8 or float on [0, 1].
        restored: outputs uint8 (H, W, 1 or 3) by model; the baseline and the first network come first.
        truth: the true image, of the same size.
        scores: by model and metric, the numbers of the whole image.
    """

    dataset: str
    degradation: Degradation
    image: str
    network_input: np.ndarray
    restored: Mapping[str, np.ndarray]
    truth: np.ndarray
    scores: Mapping[str, Mapping[str, float]]

    @property
    def key(self) -> tuple[str, str, str]:
        """Dataset, degradation and image, which identify it."""
        return self.dataset, str(self.degradation), self.image

    @property
    def panels(self) -> dict[str, np.ndarray]:
        """The pictures by label: the input if it is smaller (with repeated pixels), the restored ones, the truth."""
        panels = {**self.restored, 'true image': self.truth}
        scale = self.degradation.scale
        if scale == 1:
            return panels
        image = self.network_input
        given = image if image.dtype == np.uint8 else round_prediction(image, image.shape[-1])
        return {'low resolution': given.repeat(scale, axis=0).repeat(scale, axis=1), **panels}

    def place(self, size: int) -> tuple[int, int]:
        """Row and column of the crop of this size with the first network's largest gain."""
        baseline, network = list(self.restored.values())[:2]
        return choose_crop(self.truth, network, baseline, size)


def file_names(keys: Sequence[tuple[str, str, str]]) -> dict[tuple[str, str, str], str]:
    """A unique file name, without an ending, for the picture of each of these images.

    Names are readable, fit into every file system, and depend only on the images that are compared. Names that differ
    only by case, or not at all, and shortened names end in a digest.

    Args:
        keys: dataset, degradation and image of all possible pictures.
    """
    plain = {key: _file_name(*key) for key in keys}
    counts = collections.Counter(_folded(name) for name in plain.values())
    names = {}
    for key, name in plain.items():
        cut = name.encode()[:_LONGEST_FILE_NAME].decode(errors='ignore')
        is_plain = cut == name and counts[_folded(name)] == 1 and not name.endswith(_GATES)
        names[key] = name if is_plain else f'{cut}_{hashlib.sha256(repr(key).encode()).hexdigest()[:12]}'
    return names


def _file_name(dataset: str, degradation: str, image: str) -> str:
    words = dataset, degradation.replace(' ', ''), pathlib.PurePath(image).stem
    return re.sub(r'[^\w.()+-]+', '_', unicodedata.normalize('NFC', '_'.join(words)))


def _folded(name: str) -> str:
    return unicodedata.normalize('NFC', name.casefold())


def find_largest_gains(
    sweep: Sweep, source: Source, degradation: Degradation, scores: Sequence[Score], count: int
) -> Iterator[SideBySide]:
    """The images of a source in which the first network gains most on the task's first baseline.

    They show a network at its best: say so where they are published. All processes of a job must call this alike; the
    images are restored only when the result is iterated over.

    Args:
        sweep: with at least one network; its first protocol and metric measure the gain.
    """
    networks = {each.name: each.predictors(degradation)[0] for each in sweep.networks}
    protocol, (metric_name, metric) = sweep.protocols[0], next(iter(sweep.metrics.items()))
    name = next(iter(find_task(degradation.task).baselines))
    baseline = find_baselines([name], degradation)[name]
    mine = [each for each in scores if (each.dataset, each.degradation) == (source.name, str(degradation))]
    mine = [each for each in mine if each.protocol == protocol.name and each.model != name]
    mine += evaluate([baseline], source, [protocol], degradation, sweep.metrics, model=name)
    found = {(each.model, each.image): each.values for each in mine}
    first = next(iter(networks))

    def gain(index: int) -> float:
        image = source.names[index]
        mine, other = (metric.merit(found[model, image][metric_name]) for model in (first, name))
        return -math.inf if math.isnan(mine - other) else mine - other  # the difference of two infinities is no gain

    def compare(index: int) -> SideBySide:
        example = source[index]
        image = protocol.network_input(example, degradation.level)
        truth = protocol.truth(example.hr)
        restored = {
            model: round_prediction(predictor(image), truth.shape[-1])
            for model, predictor in ({name: baseline} | networks).items()
        }
        scored = {model: found[model, example.name] for model in restored}
        return SideBySide(source.name, degradation, example.name, image, restored, truth, scored)

    return map(compare, sorted(range(len(source)), key=gain, reverse=True)[:count])


def draw(found: SideBySide, sweep: Sweep, path: pathlib.Path) -> None:
    """Write a PNG file with the crop of the first network's largest gain, side by side, and make its folder."""
    name, metric = next(iter(sweep.metrics.items()))
    captions = {model: f'{model}\n{metric.text_with_unit(values[name])}' for model, values in found.scores.items()}
    title = (
        f'{found.dataset}, {found.image}, {found.degradation}: the crop with the largest gain on '
        f'{next(iter(found.restored))}; {metric.title} of the whole image, {sweep.protocols[0].name}'
    )
    make_output_folder(path.parent)
    panels = [(captions.get(label, label), image) for label, image in found.panels.items()]
    draw_comparison(path, title, panels, found.place(CROP_SIZE), CROP_SIZE)


def labels_of(networks: Sequence[Contender]) -> dict[str, str]:
    """Short names by those in tables; where several would be alike, they are numbered."""
    labels = [each.label or each.name for each in networks]
    numbered = [f'{label} ({labels[: index + 1].count(label)})' for index, label in enumerate(labels)]
    return {
        each.name: label if labels.count(label) == 1 else number
        for each, label, number in zip(networks, labels, numbered, strict=True)
    }


def show(
    sweep: Sweep,
    scores: Sequence[Score],
    output: pathlib.Path,
    *,
    workdirs: Sequence[str] = (),
    pictures: int = 1,
    gates: Sequence[str] = (),
    report: bool = False,
) -> None:
    """Draw the results of a sweep: pictures, the loss of each workdir, and if asked for, gate maps and the report.

    All processes of a job must call this alike; the first one writes.

    Args:
        sweep: its first network chooses the pictures; without networks there are none.
        output: the sweep's folder, for pictures/, losses.png and index.html.
        workdirs: training runs, whose losses are drawn if there is a metrics.jsonl.
        pictures: how many for each source and degradation.
        gates: of the first network, as in `gate_maps.gate_names`, to map over each picture.
    """
    cells = list(itertools.product(sweep.sources, sweep.degradations)) if sweep.networks and pictures else []
    gains = [find_largest_gains(sweep, *cell, scores, pictures) for cell in cells]

    def write() -> None:
        files = {path: pathlib.Path(local_path(path, 'a workdir')) / 'metrics.jsonl' for path in workdirs}
        curves = {path: metrics for path, metrics in files.items() if metrics.exists()}
        for index, metrics in enumerate(curves.values()):
            plot_losses(metrics, output / ('losses.png' if index == 0 else f'losses_{index + 1}.png'))
        shown, folder = [], output / 'pictures'
        names = file_names([(source.name, str(level), image) for source, level in cells for image in source.names])
        for found in itertools.chain.from_iterable(gains):
            name = names[found.key]
            draw(found, sweep, folder / f'{name}.png')
            dataset = f'{found.dataset}, {found.degradation}'
            shown.append(Picture(dataset, found.image, found.panels, found.scores, found.place(ZOOM_SIZE)))
            if gates:
                first = sweep.networks[0]
                title = f'{first.name}: {found.image}, {found.degradation}'
                assert first.network is not None  # it is not a baseline
                network, params = first.network
                write_gate_maps(folder / f'{name}{_GATES}', title, network, params, found.network_input, gates)
        if report:
            labels = labels_of(sweep.networks)
            title = f'Evaluation of {", ".join(labels.values()) or "baselines"}'
            write_report(output, title, scores, shown, curves, labels)

    agreement.by_first(write)
