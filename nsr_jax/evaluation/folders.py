"""Two folders of images, predictions and true images, as pairs that can be scored."""

import collections
import pathlib
import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from absl import logging

from nsr_jax.errors import UserError, first_of, listed
from nsr_jax.evaluation.protocols import check_channels, check_size
from nsr_jax.images.formats import SUFFIXES
from nsr_jax.images.reading import list_images, read_opaque
from nsr_jax.images.sizes import crop_to_multiple
from nsr_jax.metrics import Metric
from nsr_jax.tasks.task import Protocol

TRUTH_FOLDERS = ('hr', 'gt', 'target')  # usual names of true images' folders, and usual endings of their own names
# An ending of true images is of whole words, such as _HR or _x2_GT; the last is no number, which would be an index.
_TRUTH_ENDING = re.compile(r'[-_. ](.*[-_. ])?[^-_. ]*[^-_. 0-9][^-_. ]*')


def match(predictions: str, truths: str) -> tuple[list[tuple[pathlib.Path, pathlib.Path]], str, str]:
    """Pair the images of two folders by what their names begin with; the log names files that are no images.

    Returns:
        Each prediction with its true image, sorted by the latter's name; the ending of all predictions' names, and that
        of all true images' names, which may be ''.

    Raises:
        UserError: an image has no partner or several, or the endings that fit best make several sets of pairs. The line
            names all such images or endings.
    """
    found, failures = [], []
    for paths in (_list(predictions), _list(truths)):
        found.append({path.stem: path for path in paths})
        failures += [f'{path} has the name of {twin.name}' for path in paths if (twin := found[-1][path.stem]) != path]
    given, true = found
    likely = _likely_endings(given, true)
    if len(likely) != 1:
        endings = ', '.join(repr(own) + (f' for {cut!r} of true images' if cut else '') for own, cut in likely)
        many = f'names fit with several endings ({endings}): only one may be in the folder'
        none = (
            f'no name begins with the name of an image in {truths}, whole or before an ending that all there share, '
            f'such as {min(true)}'
        )
        raise UserError(listed([*failures, f'{predictions}: {many if likely else none}'], 'problems with names'))
    ending, truth_ending = likely[0]
    wanted = {stem.removesuffix(truth_ending) + ending: path for stem, path in true.items()}
    failures += [f'{path} has no {name} in {predictions}' for name, path in wanted.items() if name not in given]
    failures += [f'{path} has no partner in {truths}' for name, path in given.items() if name not in wanted]
    if failures:
        raise UserError(listed(failures, 'images without a partner'))
    return [(given[name], path) for name, path in wanted.items()], ending, truth_ending


def _list(folder: str) -> list[pathlib.Path]:
    """The images of a folder; the log counts and names the files that are passed over because of their suffix."""
    images = list_images(folder, SUFFIXES)
    others = [path for path in pathlib.Path(folder).iterdir() if path.suffix.lower() not in SUFFIXES]
    names = sorted(repr(path.name) for path in others if path.name[0] != '.' and path.is_file())
    if names:
        sought, count = ', '.join(SUFFIXES), len(names)
        logging.info('%s: %d files that do not end in %s are passed over: %s', folder, count, sought, first_of(names))
    return images


def _likely_endings(given: Collection[str], true: Collection[str]) -> list[tuple[str, str]]:
    """The endings of predictions and of true images that make most pairs, once for each set of pairs."""
    fits: dict[frozenset[tuple[str, str]], tuple[str, str]] = {}
    for truth_ending in _truth_endings(true):
        starts = {stem.removesuffix(truth_ending): stem for stem in true}
        pairs = collections.defaultdict(set)
        for stem in given:
            for length in range(1, len(stem) + 1):
                if stem[:length] in starts:
                    pairs[stem[length:]].add((stem, starts[stem[:length]]))
        for ending, found in pairs.items():
            fits.setdefault(frozenset(found), (ending, truth_ending))
    most = max(map(len, fits), default=0)
    return [endings for pairs, endings in fits.items() if len(pairs) == most]


def _truth_endings(stems: Collection[str]) -> list[str]:
    """What may be left out at the end of all names, the shortest first: nothing, or an ending that all share.

    A single name shares all of it with itself, so there it must be a usual one, such as _HR.
    """
    shortest = min(stems, key=len)
    endings = [shortest[start:] for start in range(len(shortest) - 1, 0, -1)]  # something must be left of each name
    shared = [each for each in endings if _TRUTH_ENDING.fullmatch(each) and all(stem.endswith(each) for stem in stems)]
    return ['', *(ending for ending in shared if len(stems) > 1 or ending[1:].lower() in TRUTH_FOLDERS)]


def read_pair(prediction: pathlib.Path, truth: pathlib.Path, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Both images, uint8 (H, W, 1 or 3); the true one is cropped to a multiple of the scale if only then they fit.

    Raises:
        UserError: one is none of the images that `read_opaque` takes, or the sizes differ.
    """
    given, hr = read_opaque(prediction), read_opaque(truth)
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
