"""Scores of predictors on sources, image by image; no image is left out."""

import concurrent.futures
import dataclasses
import functools
import queue
from collections.abc import Collection, Mapping, Sequence

import jax

from nsr_jax import agreement
from nsr_jax.data.sources import Source
from nsr_jax.errors import UserError, listed
from nsr_jax.evaluation.protocols import check_channels, check_size, score
from nsr_jax.evaluation.scores import COLUMNS, Score
from nsr_jax.inference.prediction import predict
from nsr_jax.inference.tiling import Tiling
from nsr_jax.metrics import Metric
from nsr_jax.models.build import Network
from nsr_jax.pace import shown
from nsr_jax.tasks import Degradation, find_protocols
from nsr_jax.tasks.task import Predictor, Protocol


def device_predictors(network: Network, params: dict, tiling: Tiling, *, ensemble: bool = False) -> list[Predictor]:
    """A network as one predictor for each local device, to which its parameters are copied once.

    Args:
        params: its parameters, which this process holds in full.
        ensemble: whether to average over eight orientations, as in `predict`.
    """
    return [
        functools.partial(predict, network, jax.device_put(params, device), tiling=tiling, ensemble=ensemble)
        for device in jax.local_devices()
    ]


def evaluate(
    predictors: Sequence[Predictor],
    source: Source,
    protocols: Sequence[Protocol],
    degradation: Degradation,
    metrics: Mapping[str, Metric],
    *,
    model: str,
) -> list[Score]:
    """Score every image of a source.

    An image is predicted once for all protocols that give the network the same input. All processes of a job must call
    this alike: each scores its share of the images, and all get all scores.

    Args:
        predictors: the evaluated model, once for each device of this process; each takes the next image when it is
            free.
        source: opened at the degradation's scale.
        protocols: of the degradation's task.

    Returns:
        One score for each image and protocol, images in the source's order.

    Raises:
        UserError: an image cannot be read, predicted or scored, in any process; the line names it. Or a protocol is
            for another task.
    """
    find_protocols(degradation.task, [protocol.name for protocol in protocols])  # raises for those of another task
    free: queue.SimpleQueue[Predictor] = queue.SimpleQueue()
    for predictor in predictors:
        free.put(predictor)

    def score_image(index: int) -> list[Score]:
        example, predictions, scores = source[index], {}, []
        predictor = free.get()
        try:
            for protocol in protocols:
                make_input = protocol.network_input
                if make_input not in predictions:
                    predictions[make_input] = predictor(make_input(example, degradation.level))
                values = score(protocol, predictions[make_input], example.hr, degradation.scale, metrics)
                scores.append(Score(source.name, str(degradation), model, protocol.name, example.name, values))
        except UserError as error:
            raise UserError(f'{source.name}, {example.name}: {error}') from error
        finally:
            free.put(predictor)
        return scores

    share = range(jax.process_index(), len(source), jax.process_count())
    threads = concurrent.futures.ThreadPoolExecutor(len(predictors))
    with agreement.agreed():
        try:
            scored = threads.map(score_image, share)
            scored = shown(scored, f'{model} on {source.name}', len(share), is_shown=agreement.is_first())
            found = [[dataclasses.astuple(each) for each in image_scores] for image_scores in scored]
        finally:  # do not wait for the other images after a failure or Ctrl-C
            threads.shutdown(wait=False, cancel_futures=True)
    told = agreement.gather(found)
    by_image = [told[index % len(told)][index // len(told)] for index in range(len(source))]
    return [Score(*fields) for image_scores in by_image for fields in image_scores]


def check_images(
    sources: Sequence[Source],
    protocols: Sequence[Protocol],
    degradation: Degradation,
    metrics: Mapping[str, Metric],
    channels: Collection[int],
) -> None:
    """Decode every image and check that networks of these numbers of channels can be scored on it, before they run.

    Raises:
        UserError: a protocol is for another task; a metric has the name of a column; or images are broken, too small,
            or refused by `protocols.check_channels`. The line names them.
    """
    find_protocols(degradation.task, [protocol.name for protocol in protocols])  # raises for those of another task
    for name in COLUMNS.intersection(metrics):
        raise UserError(f'a metric cannot be called {name!r}: the tables have another column of this name')

    def check(source: Source, index: int) -> None:
        hr = source[index].hr
        for protocol in protocols:
            for each in channels:
                check_channels(protocol, protocol.truth(hr[:1, :1]).shape[-1], each)
            check_size(protocol, hr.shape[:2], degradation.scale, metrics)

    failures = []
    for source in sources:
        for index, name in enumerate(source.names):
            try:
                check(source, index)
            except UserError as error:
                failures.append(f'{source.name}, {name}: {error}')
    if failures:
        raise UserError(listed(failures, 'images cannot be scored'))
