"""Scores of predictors on sources, image by image and as means; no image is left out."""

import concurrent.futures
import dataclasses
import functools
import queue
from collections.abc import Collection, Mapping, Sequence

import flax.linen as nn
import jax
import numpy as np
import tqdm

from nsr_jax import agreement
from nsr_jax.data.sources import Source
from nsr_jax.errors import UserError, listed
from nsr_jax.evaluation.protocols import check_channels, check_size, score
from nsr_jax.inference.prediction import predict
from nsr_jax.inference.tiling import Tiling
from nsr_jax.tasks import Degradation, find_protocols
from nsr_jax.tasks.task import Predictor, Protocol


@dataclasses.dataclass(frozen=True)
class Score:
    """What one model's prediction of one image scored.

    Attributes:
        dataset: the source's name.
        degradation: what was to be undone, in words: 'x2', 'sigma 25', 'quality 10'.
        model: the name of the network or of the baseline.
        protocol: the name of a protocol in `tasks.all_protocols`.
        image: the example's name.
        psnr: in dB; infinite for a perfect prediction.
        ssim: at most 1.
    """

    dataset: str
    degradation: str
    model: str
    protocol: str
    image: str
    psnr: float
    ssim: float


@dataclasses.dataclass(frozen=True)
class Mean:
    """The mean over the images of one dataset: fields as in `Score`, and how many `images` there are."""

    dataset: str
    degradation: str
    model: str
    protocol: str
    images: int
    psnr: float
    ssim: float


def device_predictors(network: nn.Module, params: dict, tiling: Tiling, *, ensemble: bool = False) -> list[Predictor]:
    """A network as one predictor for each local device, which the parameters are moved to once.

    Args:
        network: what is evaluated.
        params: arrays that this process holds in full.
        tiling: what the network sees at once.
        ensemble: whether the eight orientations of each tile, or of an image that is seen whole, are averaged.
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
    *,
    model: str,
) -> list[Score]:
    """Score every image of a source.

    An image is predicted once for all protocols that give the network the same input. Where a job has several
    processes, all of them must call this alike: each scores its share of the images, and all get all scores.

    Args:
        predictors: what is evaluated, once for each device of this process; each takes the next image when it is done
          with one.
        source: opened at the degradation's scale.
        protocols: how to score; of the degradation's task.
        degradation: what is to be undone.
        model: the name that the scores carry.

    Returns:
        One score for each image and protocol, images in the source's order.

    Raises:
        UserError: an image cannot be read, predicted or scored, in any process; the line names it. Or a protocol is
            for another task.
    """
    _check_task(protocols, degradation)
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
                psnr, ssim = score(protocol, predictions[make_input], example.hr, degradation.scale)
                scores.append(Score(source.name, str(degradation), model, protocol.name, example.name, psnr, ssim))
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
            # On a terminal only: a log file is no place for a moving bar.
            disable = None if agreement.is_first() else True
            look = {'total': len(share), 'unit': 'image', 'leave': False, 'disable': disable}
            bar = tqdm.tqdm(scored, f'{model} on {source.name}', **look)
            found = [[dataclasses.astuple(each) for each in image_scores] for image_scores in bar]
        finally:  # of an image that fails, or of Ctrl-C, one hears before the other images are done
            threads.shutdown(wait=False, cancel_futures=True)
    told = agreement.gather(found)
    by_image = [told[index % len(told)][index // len(told)] for index in range(len(source))]
    return [Score(*fields) for image_scores in by_image for fields in image_scores]


def _check_task(protocols: Sequence[Protocol], degradation: Degradation) -> None:
    find_protocols(degradation.task, [protocol.name for protocol in protocols])


def means(scores: Sequence[Score]) -> list[Mean]:
    """The mean PSNR and SSIM over the images of each dataset, degradation, model and protocol, in their order.

    One infinite PSNR makes the mean infinite.
    """
    groups: dict[tuple[str, str, str, str], list[Score]] = {}
    for each in scores:
        groups.setdefault((each.dataset, each.degradation, each.model, each.protocol), []).append(each)
    results = []
    for key, group in groups.items():
        psnr, ssim = np.mean([(each.psnr, each.ssim) for each in group], axis=0)
        results.append(Mean(*key, len(group), float(psnr), float(ssim)))
    return results


def check_images(
    sources: Sequence[Source], protocols: Sequence[Protocol], degradation: Degradation, channels: Collection[int]
) -> None:
    """Decode every image and check that it can be scored, by networks of so many channels; nothing is computed.

    Raises:
        UserError: a protocol is for another task; or images are broken, too small, or as in `protocols.check_channels`.
            The line names them.
    """
    _check_task(protocols, degradation)

    def check(source: Source, index: int) -> None:
        hr = source[index].hr
        for protocol in protocols:
            for each in channels:
                check_channels(protocol, protocol.truth(hr[:1, :1]).shape[-1], each)
            check_size(protocol, hr.shape[:2], degradation.scale)

    failures = []
    for source in sources:
        for index, name in enumerate(source.names):
            try:
                check(source, index)
            except UserError as error:
                failures.append(f'{source.name}, {name}: {error}')
    if failures:
        raise UserError(listed(failures, 'images cannot be scored'))


def evaluate_network(
    network: nn.Module,
    params: dict,
    sources: Sequence[Source],
    protocol: Protocol,
    degradation: Degradation,
    tiling: Tiling,
) -> Mapping[str, tuple[float, float]]:
    """Mean scores of a network during training: {dataset: (PSNR in dB, SSIM)} in the order of `sources`.

    Compiled functions are kept from call to call; new parameters of the same shapes cost no compilation. All processes
    of a job must call this alike, and get the same means.

    Args:
        network: a `RestorationNetwork`.
        params: its parameters, as arrays that this process holds in full.
        sources: opened at the network's scale.
        protocol: how to score.
        degradation: what is to be undone.
        tiling: what the network sees at once.

    Raises:
        UserError: as in `evaluate`.
    """
    predictors = device_predictors(network, params, tiling)
    results = {}
    for source in sources:
        (mean,) = means(evaluate(predictors, source, [protocol], degradation, model='network'))
        results[source.name] = mean.psnr, mean.ssim
    return results
