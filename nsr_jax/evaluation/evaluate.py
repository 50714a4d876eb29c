"""Scores of predictors on sources, image by image and as means; no image is left out."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import flax.linen as nn
import jax
import numpy as np
import tqdm

from nsr_jax.data.sources import Source
from nsr_jax.errors import UserError
from nsr_jax.evaluation.inference import check_tiling, predict
from nsr_jax.evaluation.protocols import Protocol, score
from nsr_jax.ops.imresize import imresize

# From the image that a network is given, (h, w, C), uint8 or float on [0, 1], to its restoration, float on [0, 1],
# (scale h, scale w, C').
Predictor = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Score:
    """What one model's prediction of one image scored.

    Attributes:
        dataset: the source's name.
        scale: the super-resolution factor.
        model: the name of the network or of the baseline.
        protocol: the name of a protocol in `protocols.PROTOCOLS`.
        image: the example's name.
        psnr: in dB; infinite for a perfect prediction.
        ssim: at most 1.
    """

    dataset: str
    scale: int
    model: str
    protocol: str
    image: str
    psnr: float
    ssim: float


@dataclasses.dataclass(frozen=True)
class Mean:
    """The mean over the images of one dataset: fields as in `Score`, and how many `images` there are."""

    dataset: str
    scale: int
    model: str
    protocol: str
    images: int
    psnr: float
    ssim: float


def bicubic(scale: int, image: np.ndarray) -> np.ndarray:
    """The baseline: a uint8 image enlarged by MATLAB's bicubic `imresize`, float64 on [0, 1]."""
    return imresize(image, scale) / 255


# Each of these called with the scale and an image gives a prediction.
BASELINES = {'bicubic': bicubic}


def find_baselines(names: Sequence[str], scale: int) -> dict[str, Predictor]:
    """The predictors of these names at this scale.

    Raises:
        UserError: a name is unknown.
    """
    for name in names:
        if name not in BASELINES:
            raise UserError(f'unknown baseline {name!r}: one of {", ".join(BASELINES)} needed')
    return {name: functools.partial(BASELINES[name], scale) for name in names}


def network_predictor(network: nn.Module, params, tiling: str) -> Predictor:
    """A network and its parameters as a predictor; the parameters are moved to the device once.

    Raises:
        UserError: the tiling is unknown.
    """
    return functools.partial(predict, network, jax.device_put(params), tiling=check_tiling(tiling))


def evaluate(
    predictor: Predictor, source: Source, protocols: Sequence[Protocol], scale: int, *, model: str
) -> list[Score]:
    """Score every image of a source.

    An image is predicted once for all protocols that give the network the same input.

    Args:
        predictor: what is evaluated.
        source: opened at `scale`.
        protocols: how to score.
        scale: the super-resolution factor.
        model: the name that the scores carry.

    Returns:
        One score for each image and protocol, images in the source's order.

    Raises:
        UserError: an image cannot be read, predicted or scored; the line names it.
    """
    scores = []
    # On a terminal only: a log file is no place for a moving bar.
    for example in tqdm.tqdm(source, desc=f'{model} on {source.name}', unit='image', leave=False, disable=None):
        predictions = {}
        try:
            for protocol in protocols:
                if protocol.network_input not in predictions:
                    predictions[protocol.network_input] = predictor(protocol.network_input(source.name, example, scale))
                psnr, ssim = score(protocol, predictions[protocol.network_input], example.hr, scale)
                scores.append(Score(source.name, scale, model, protocol.name, example.name, psnr, ssim))
        except UserError as error:
            raise UserError(f'{source.name}, {example.name}: {error}') from error
    return scores


def means(scores: Sequence[Score]) -> list[Mean]:
    """The mean PSNR and SSIM over the images of each dataset, scale, model and protocol, in the order they came."""
    groups: dict[tuple[str, int, str, str], list[Score]] = {}
    for each in scores:
        groups.setdefault((each.dataset, each.scale, each.model, each.protocol), []).append(each)
    results = []
    for key, group in groups.items():
        psnr, ssim = np.mean([(each.psnr, each.ssim) for each in group], axis=0)
        results.append(Mean(*key, len(group), float(psnr), float(ssim)))
    return results


def evaluate_network(
    network: nn.Module, params, sources: Sequence[Source], protocol: Protocol, scale: int, tiling: str
) -> Mapping[str, tuple[float, float]]:
    """Mean scores of a network during training: {dataset: (PSNR in dB, SSIM)} in the order of `sources`.

    Compiled functions are kept from call to call; new parameters of the same shapes cost no compilation.

    Args:
        network: a `RestorationNetwork`.
        params: its parameters, as arrays that this process holds in full.
        sources: opened at `scale`.
        protocol: how to score.
        scale: the super-resolution factor.
        tiling: one of `inference.TILINGS`.

    Raises:
        UserError: as in `evaluate`, or the tiling is unknown.
    """
    predictor = network_predictor(network, params, tiling)
    results = {}
    for source in sources:
        (mean,) = means(evaluate(predictor, source, [protocol], scale, model='network'))
        results[source.name] = mean.psnr, mean.ssim
    return results
