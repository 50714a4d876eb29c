"""Where a network gains most on its input: the images and crops that pictures and reports show."""

import collections
import dataclasses
import hashlib
import itertools
import os
import pathlib
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from nsr_jax import agreement
from nsr_jax.atomic_files import make_output_folder
from nsr_jax.data.sources import Source
from nsr_jax.errors import UserError
from nsr_jax.evaluation.gate_maps import write_gate_maps
from nsr_jax.evaluation.pictures import choose_crop, draw_comparison, plot_losses
from nsr_jax.evaluation.protocols import round_prediction
from nsr_jax.evaluation.report import ZOOM_SIZE, Picture, write_report
from nsr_jax.evaluation.scoring import Score, evaluate
from nsr_jax.evaluation.sweep import Contender
from nsr_jax.paths import local_path
from nsr_jax.tasks import Degradation, find_baselines, find_task
from nsr_jax.tasks.task import Predictor, Protocol

CROP_SIZE = 96  # pixels of the true image
_GATES = '_gates'  # what the name of the maps of a picture ends in
_LONGEST_FILE_NAME = 150  # bytes of a picture's name, which a digest, endings and a temporary name are added to


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One image as several models restore it.

    Attributes:
        dataset: the source's name.
        degradation: what was undone, in words.
        protocol: by which the scores are.
        image: the example's name.
        network_input: what the models are given, (h, w, C), uint8 or float on [0, 1].
        given: the same, enlarged by repeating its pixels: uint8 (H, W, 1 or 3).
        restored: by model, in order: the picture, of the same size.
        truth: the same size.
        scores: by model, PSNR in dB and SSIM of the whole image.
    """

    dataset: str
    degradation: str
    protocol: str
    image: str
    network_input: np.ndarray
    given: np.ndarray
    restored: Mapping[str, np.ndarray]
    truth: np.ndarray
    scores: Mapping[str, tuple[float, float]]

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from other images: dataset, degradation and image."""
        return self.dataset, self.degradation, self.image


def file_names(keys: Sequence[tuple[str, str, str]]) -> dict[tuple[str, str, str], str]:
    """A name for the picture of each of these images, without an ending, that no other one has.

    It is readable, fits into every file system, and is the same wherever the same images are compared. Names that would
    be one, also where capitals do not count, and those that are cut end in a digest.

    Args:
        keys: dataset, degradation and image of all comparisons there can be.
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


def check_architectures(asked: Mapping[str, object], saved: Mapping[str, Mapping[str, object]]) -> None:
    """Compare the model section of a config with those of checkpoints: of one, every field; of several, their scale.

    Raises:
        UserError: they differ; the line says where.
    """
    for path, model in saved.items():
        fields = dict.fromkeys([*asked, *model]) if len(saved) == 1 else ('scale',)
        check_architecture(*({name: each[name] for name in fields if name in each} for each in (asked, model)), path)


def check_architecture(asked: Mapping[str, object], saved: Mapping[str, object], checkpoint: str | os.PathLike) -> None:
    """Compare the model section of a config with that of a checkpoint.

    Raises:
        UserError: they differ; the line says where.
    """
    differences = [
        f'{name} {asked.get(name, "missing")} against {saved.get(name, "missing")}'
        for name in dict.fromkeys([*asked, *saved])
        if asked.get(name) != saved.get(name)
    ]
    if differences:
        raise UserError(f'--config describes another network than {checkpoint}: {"; ".join(differences)}')


def compare_largest_gains(
    networks: Mapping[str, Predictor],
    source: Source,
    protocol: Protocol,
    degradation: Degradation,
    scores: Sequence[Score],
    count: int,
) -> Iterator[Comparison]:
    """The images of a source in which the first network gains most on the task's first baseline.

    They show a network at its best: say so where they are published. All processes of a job must call this alike; who
    looks at the images restores them.

    Args:
        networks: predictors by their name in `scores`, at least one.
        source: opened at the degradation's scale.
        protocol: of the degradation's task.
        degradation: what is undone.
        scores: which hold each network's scores on this source.
        count: how many images.
    """
    name = next(iter(find_task(degradation.task).baselines))
    baseline = find_baselines([name], degradation)[name]
    mine = [each for each in scores if (each.dataset, each.degradation) == (source.name, str(degradation))]
    mine = [each for each in mine if each.protocol == protocol.name and each.model != name]
    mine += evaluate([baseline], source, [protocol], degradation, model=name)
    found = {(each.model, each.image): (each.psnr, each.ssim) for each in mine}
    first = next(iter(networks))
    gains = [found[first, image][0] - found[name, image][0] for image in source.names]

    def compare(index: int) -> Comparison:
        example = source[index]
        image = protocol.network_input(example, degradation.level)
        truth = protocol.truth(example.hr)
        restored = {
            model: round_prediction(predictor(image), truth.shape[-1])
            for model, predictor in ({name: baseline} | dict(networks)).items()
        }
        given = image if image.dtype == np.uint8 else round_prediction(image, image.shape[-1])
        given = given.repeat(degradation.scale, axis=0).repeat(degradation.scale, axis=1)
        scored = {model: found[model, example.name] for model in restored}
        return Comparison(
            source.name, str(degradation), protocol.name, example.name, image, given, restored, truth, scored
        )

    return map(compare, map(int, np.argsort(gains)[::-1][:count]))


def draw(comparison: Comparison, path: pathlib.Path) -> None:
    """Write a PNG file: the crop with the first network's largest gain, side by side; its folder is made."""
    panels = [(f'{model}\n{comparison.scores[model][0]:.2f} dB', image) for model, image in comparison.restored.items()]
    if len(comparison.network_input) != len(comparison.truth):
        panels.insert(0, ('low resolution', comparison.given))
    title = (
        f'{comparison.dataset}, {comparison.image}, {comparison.degradation}: the crop with the largest gain on '
        f'{next(iter(comparison.restored))}; PSNR of the whole image, {comparison.protocol}'
    )
    make_output_folder(path.parent)
    panels = [*panels, ('true image', comparison.truth)]
    draw_comparison(path, title, panels, _place(comparison, CROP_SIZE), CROP_SIZE)


def to_picture(comparison: Comparison) -> Picture:
    """As the report shows it."""
    given = {'low resolution': comparison.given} if len(comparison.network_input) != len(comparison.truth) else {}
    return Picture(
        f'{comparison.dataset}, {comparison.degradation}',
        comparison.image,
        {**given, **comparison.restored, 'true image': comparison.truth},
        comparison.scores,
        _place(comparison, ZOOM_SIZE),
    )


def show(
    networks: Sequence[Contender],
    sources: Sequence[Source],
    protocol: Protocol,
    degradations: Sequence[Degradation],
    scores: Sequence[Score],
    workdirs: Sequence[str],
    output: pathlib.Path,
    count: int,
    *,
    gates: Sequence[str] = (),
    report: bool = False,
) -> None:
    """Draw what a sweep has scored: pictures, the loss of each workdir, and gates and report where they are asked for.

    All processes of a job must call this alike; the first one writes.

    Args:
        networks: that were scored; the first one chooses the pictures. None: there are no pictures.
        sources: that they were scored on.
        protocol: whose scores stand at the pictures.
        degradations: that were undone.
        scores: of the sweep.
        workdirs: whose metrics.jsonl, where there is one, holds a training curve.
        output: the sweep's folder; gets pictures/, losses.png and index.html.
        count: pictures of each source and degradation.
        gates: of the first network, as in `gate_maps.gate_names`, to be mapped over each picture.
        report: whether to write index.html.
    """
    compared = []
    for source in sources if networks and count else ():
        for degradation in degradations:
            predictors = {network.name: network.predictors(degradation)[0] for network in networks}
            compared.append(compare_largest_gains(predictors, source, protocol, degradation, scores, count))

    def write() -> None:
        files = {path: pathlib.Path(local_path(path, 'a workdir')) / 'metrics.jsonl' for path in workdirs}
        curves = {path: metrics for path, metrics in files.items() if metrics.exists()}
        for index, metrics in enumerate(curves.values()):
            plot_losses(metrics, output / ('losses.png' if index == 0 else f'losses_{index + 1}.png'))
        pictures, folder = [], output / 'pictures'
        names = file_names([(s.name, str(d), image) for s in sources for d in degradations for image in s.names])
        for comparison in itertools.chain.from_iterable(compared):
            name = names[comparison.key]
            draw(comparison, folder / f'{name}.png')
            pictures.append(to_picture(comparison))
            if gates:
                path = folder / f'{name}{_GATES}'
                title = f'{networks[0].name}: {comparison.image}, {comparison.degradation}'
                write_gate_maps(path, title, *networks[0].weights, comparison.network_input, gates)
        if report:
            title = '; '.join(network.name for network in networks)
            write_report(output, f'Evaluation of {title or "baselines"}', scores, pictures, curves)

    agreement.by_first(write)


def _place(comparison: Comparison, size: int) -> tuple[int, int]:
    baseline, network = list(comparison.restored.values())[:2]
    return choose_crop(comparison.truth, network, baseline, size)
