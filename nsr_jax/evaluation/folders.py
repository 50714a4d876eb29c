"""Two folders of images, predictions and true images, as pairs that can be scored."""

import collections
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from nsr_jax.errors import UserError, listed
from nsr_jax.evaluation.protocols import check_channels, check_size
from nsr_jax.images.reading import list_images, read_image
from nsr_jax.images.sizes import crop_to_multiple
from nsr_jax.metrics import Metric
from nsr_jax.tasks.task import Protocol


def match(predictions: str, truths: str) -> tuple[list[tuple[pathlib.Path, pathlib.Path]], str]:
    """Pair the images of two folders by their names.

    Returns:
        Each prediction with its true image, sorted by the latter's name; and the ending that all predictions have.

    Raises:
        UserError: an image has no partner or several, or no single ending fits best. The line names all such images.
    """
    found, failures = [], []
    for paths in (list_images(predictions), list_images(truths)):
        found.append({path.stem: path for path in paths})
        failures += [f'{path} has the name of {twin.name}' for path in paths if (twin := found[-1][path.stem]) != path]
    given, true = found
    cuts = [(stem[:length], stem[length:]) for stem in given for length in range(1, len(stem) + 1)]
    endings = collections.Counter(ending for start, ending in cuts if start in true)
    most = max(endings.values(), default=0)
    likely = [ending for ending, count in endings.items() if count == most]
    if len(likely) != 1:
        many = f'names fit with several endings ({", ".join(map(repr, likely))}): only one may be in the folder'
        none = f'no name begins with the name of an image in {truths}, such as {min(true)}'
        raise UserError(listed([*failures, f'{predictions}: {many if likely else none}'], 'problems with names'))
    ending = likely[0]
    wanted = {stem + ending: path for stem, path in true.items()}
    failures += [f'{path} has no {name} in {predictions}' for name, path in wanted.items() if name not in given]
    failures += [f'{path} has no partner in {truths}' for name, path in given.items() if name not in wanted]
    if failures:
        raise UserError(listed(failures, 'images without a partner'))
    return [(given[name], path) for name, path in wanted.items()], ending


def read_pair(prediction: pathlib.Path, truth: pathlib.Path, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Both images, uint8 (H, W, 1 or 3); the true one is cropped to a multiple of the scale if only then they fit.

    Raises:
        UserError: one cannot be read, is not 8-bit gray or RGB, or the sizes differ.
    """
    given, hr = read_image(prediction), read_image(truth)
    cropped = hr if given.shape[:2] == hr.shape[:2] else crop_to_multiple(hr, scale, str(truth))
    if given.shape[:2] != cropped.shape[:2]:
        sizes = [f'{image.shape[1]}x{image.shape[0]}' for image in (given, hr)]
        hint = '; give --scale if its sides were cut to a multiple of that' if scale == 1 else ''
        raise UserError(f'{prediction} has {sizes[0]} pixels, {truth} {sizes[1]}{hint}')
    return given, cropped


def check_fit(protocol: Protocol, given: np.ndarray, hr: np.ndarray, scale: int, metrics: Mapping[str, Metric]) -> None:
    """Raise `UserError` if a prediction cannot be scored by a protocol: both uint8 (H, W, 1 or 3) of one size."""
    channels = protocol.truth(hr[:1, :1]).shape[-1]
    if channels < min(given.shape[-1], hr.shape[-1]):
        raise UserError(f'protocol {protocol.name} scores predictions of Y alone, and this one is in colour')
    check_channels(protocol, channels, given.shape[-1])
    check_size(protocol, hr.shape[:2], scale, metrics)


def find_refusals(
    pairs: Sequence[tuple[pathlib.Path, pathlib.Path]],
    protocols: Sequence[Protocol],
    scale: int,
    metrics: Mapping[str, Metric],
) -> dict[str, list[str]]:
    """Why protocols do not fit, by their names: a line for each image. Raises `UserError` as `read_pair`, for all."""
    refusals, failures = collections.defaultdict(list), []
    for prediction, truth in pairs:
        try:
            given, hr = read_pair(prediction, truth, scale)
        except UserError as error:
            failures.append(str(error))
            continue
        for protocol in protocols:
            try:
                check_fit(protocol, given, hr, scale, metrics)
            except UserError as error:
                refusals[protocol.name].append(f'{prediction}: {error}')
    if failures:
        raise UserError(listed(failures, 'predictions cannot be compared'))
    return refusals
