"""A network and baselines on several datasets: scores, tables and pictures in one folder."""

import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from nsr_jax.data.sources import Example, Source
from nsr_jax.errors import UserError
from nsr_jax.evaluation.evaluate import Predictor, Score, evaluate, find_baselines
from nsr_jax.evaluation.pictures import choose_crop, draw_comparison
from nsr_jax.evaluation.protocols import Protocol, round_prediction
from nsr_jax.evaluation.tables import write_tables

CROP_SIZE = 96  # pixels of the true image


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
        raise UserError(
            f'--config describes another network than the checkpoint {checkpoint}: {"; ".join(differences)}'
        )


def compare(
    network: tuple[str, Predictor] | None,
    baselines: Mapping[str, Predictor],
    sources: Sequence[Source],
    protocols: Sequence[Protocol],
    scale: int,
    output: pathlib.Path,
    num_pictures: int,
) -> list[Score]:
    """Score every model on every source; write the tables after each source, and pictures where there is a network.

    Args:
        network: name and predictor, or None for baselines alone.
        baselines: predictors by name.
        sources: opened at `scale`.
        protocols: how to score; pictures show the first one's scores.
        scale: the super-resolution factor.
        output: an existing folder for the tables and `pictures/DATASET_xSCALE_IMAGE.png`.
        num_pictures: of each source, the images in which the network gains most on bicubic.

    Raises:
        UserError: two sources have one name, an image cannot be scored, or a file cannot be written.
    """
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f'two datasets are called {name}: their scores could not be told apart')
    predictors = dict(baselines) | dict([network] if network else [])
    scores: list[Score] = []
    for source in sources:
        by_model = {
            model: evaluate(predictor, source, protocols, scale, model=model) for model, predictor in predictors.items()
        }
        scores += [score for model_scores in by_model.values() for score in model_scores]
        write_tables(output, scores)
        logging.info('%s: %d images scored', source.name, len(source))
        if network and num_pictures:
            _draw_pictures(network, source, by_model, protocols[0], scale, output / 'pictures', num_pictures)
    return scores


def _draw_pictures(
    network: tuple[str, Predictor],
    source: Source,
    by_model: Mapping[str, Sequence[Score]],
    protocol: Protocol,
    scale: int,
    folder: pathlib.Path,
    count: int,
) -> None:
    folder.mkdir(exist_ok=True)
    bicubic = find_baselines(['bicubic'], scale)['bicubic']
    baseline = by_model.get('bicubic') or evaluate(bicubic, source, [protocol], scale, model='bicubic')
    psnrs = [
        np.array([score.psnr for score in model_scores if score.protocol == protocol.name])
        for model_scores in (baseline, by_model[network[0]])
    ]
    for index in np.argsort(psnrs[0] - psnrs[1])[:count]:
        example = source[int(index)]
        predictors = {
            f'bicubic\n{psnrs[0][index]:.2f} dB': bicubic,
            f'{network[0]}\n{psnrs[1][index]:.2f} dB': network[1],
        }
        path = folder / f'{source.name.replace("/", "_")}_x{scale}_{pathlib.Path(example.name).stem}.png'
        title = (
            f'{source.name}, {example.name}, ×{scale}: the crop with the largest gain on bicubic; '
            f'PSNR of the whole image, {protocol.name}'
        )
        _draw_picture(path, title, predictors, source.name, example, protocol, scale)


def _draw_picture(
    path: pathlib.Path,
    title: str,
    predictors: Mapping[str, Predictor],
    source_name: str,
    example: Example,
    protocol: Protocol,
    scale: int,
) -> None:
    image = protocol.network_input(source_name, example, scale)
    baseline, prediction = predictions = [
        round_prediction(predictor(image), example.hr.shape[-1]) for predictor in predictors.values()
    ]
    enlarged = image.repeat(scale, axis=0).repeat(scale, axis=1)
    panels = [('low resolution', enlarged), *zip(predictors, predictions, strict=True), ('high resolution', example.hr)]
    place = choose_crop(example.hr, prediction, baseline, CROP_SIZE)
    draw_comparison(path, title, panels, place, CROP_SIZE)
