"""The weights that come with the package: plain tensors, and for each network a card that describes their origin.

nsr_jax/weights/NAME.safetensors   the parameters in float16, under names such as block_00/conv_1/direction
                NAME.json          the card, see `Card`

Reading them never runs code from them. `python -m nsr_jax.package_weights` makes both files from a checkpoint.
"""

import dataclasses
import hashlib
import importlib.resources
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import ml_collections
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from nsr_jax.errors import UserError
from nsr_jax.metrics import METRICS
from nsr_jax.models.build import build_network
from nsr_jax.models.cost import parameter_shapes
from nsr_jax.paths import has_two_meanings, is_folder_here, local_path
from nsr_jax.trained import FOLDER as CHECKPOINTS
from nsr_jax.trained import LoadedModel, load_model, refuse_file

FOLDER = pathlib.Path(str(importlib.resources.files('nsr_jax') / 'weights'))
# Task, scale and channels of each network.
SHIPPED = {
    'sr_x2': ('sr', 2, 3),
    'sr_x3': ('sr', 3, 3),
    'sr_x4': ('sr', 4, 3),
    'denoise_gray': ('denoise', 1, 1),
    'denoise_colour': ('denoise', 1, 3),
    'jpeg_gray': ('jpeg', 1, 1),
    'jpeg_colour': ('jpeg', 1, 3),
}
BY_IMAGE = ('denoise', 'jpeg')  # tasks with one network for gray images and one for colour images
# In a folder of `nsr_jax.hub_folder`; the card is a `Card` as JSON.
HUB_WEIGHTS, HUB_CARD = 'model.safetensors', 'config.json'
LARGEST_ERROR = 1e-3  # of a packed parameter, relative to the largest one in its tensor


@dataclasses.dataclass(frozen=True)
class Card:
    """The description of shipped weights, which can be written as JSON.

    Attributes:
        name: one of `SHIPPED`.
        config: the whole config of the training.
        step: of the optimizer.
        parameters: their number.
        sha256: of the file of tensors.
        data: the training images.
        terms: on which these images may be used.
        hardware: of the training.
        command: of the training.
        scores: means on whole test sets, for this network and for its input ('bicubic', 'degraded'): records of
            `evaluation.scores.Mean`. Those of the network say by which `tiling` and `ensemble` it was applied, except
            in cards of earlier versions.
        kind: of weights, as in `trained.LoadedModel`.
    """

    name: str
    config: Mapping[str, Any]
    step: int
    parameters: int
    sha256: str
    data: str
    terms: str
    hardware: str
    command: str
    scores: Sequence[Mapping[str, Any]]
    kind: str = ''

    @property
    def origin(self) -> str:
        """The length of the training, and the kind of weights: '40,000 steps (EMA)'."""
        return f'{self.step:,} steps' + f' ({self.kind})' * bool(self.kind)

    @property
    def title(self) -> str:
        """The purpose of the network, in a few words."""
        task, scale, channels = SHIPPED[self.name]
        if task == 'sr':
            return f'enlarges x{scale}'
        low, high = self.config['degradation']['sigma' if task == 'denoise' else 'quality']
        if task == 'jpeg':
            return f'removes JPEG artifacts of quality {low:g} to {high:g}, in {"Y" if channels == 1 else "RGB"}'
        images = 'gray images' if channels == 1 else 'colour images'
        return f'removes noise of sigma {low:g} to {high:g} (of 255) from {images}'

    @property
    def size(self) -> int:
        """Size of the file of tensors in bytes; raises `UserError` if the file is missing."""
        path = FOLDER / f'{self.name}.safetensors'
        try:
            return path.stat().st_size
        except OSError as error:
            raise UserError(f'{path}: cannot be read: {error.strerror}') from error

    @property
    def score_lines(self) -> list[str]:
        """The scores, with a line for each test set."""
        cells: dict[str, list[str]] = {}
        for score in self.scores:
            key = f'{score["dataset"]} ({score["images"]} images), {score["degradation"]}, protocol {score["protocol"]}'
            numbers = [each.text_with_unit(float(score[name])) for name, each in METRICS.items() if name in score]
            cells.setdefault(key, []).append(f'{score["model"]} {" / ".join(numbers)}')
        return [f'{key}: {"; ".join(values)}' for key, values in cells.items()]


def shipped_names() -> list[str]:
    """The names of the networks that are installed, in the order of `SHIPPED`."""
    return [name for name in SHIPPED if (FOLDER / f'{name}.json').is_file()]


def find_shipped(name: str) -> str:
    """The name itself; raises `UserError`, which lists the installed networks, if there is none of this name."""
    there = shipped_names()
    if name not in there:
        raise UserError(f'no weights called {name} come with the package; there are: {", ".join(there) or "none"}')
    return name


def read_card(name: str) -> Card:
    """The card of a network that comes with the package.

    Raises:
        UserError: there is no such network, or its card cannot be read.
    """
    card = _read_card(FOLDER / f'{find_shipped(name)}.json')
    if card.name != name:
        raise UserError(f'{FOLDER / name}.json: not the card of a network: it describes {card.name!r}')
    return card


def load_shipped(name: str) -> LoadedModel:
    """A network that comes with the package; its parameters are float32, on the default device.

    Raises:
        UserError: there is no such network, or its file is damaged.
    """
    return _load(read_card(name), FOLDER / f'{name}.safetensors')


def _read_card(path: pathlib.Path) -> Card:
    try:
        card = Card(**json.loads(path.read_text(encoding='utf-8')))
        _ = ml_collections.ConfigDict(card.config).model
        _ = card.title, card.score_lines, card.origin, f'{card.parameters:,}'
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise UserError(f'{path}: not the card of a network: {error}') from error
    return card


def _load(card: Card, path: pathlib.Path) -> LoadedModel:
    try:
        contents = path.read_bytes()
    except OSError as error:
        raise UserError(f'{path}: cannot be read: {error.strerror}') from error
    if hashlib.sha256(contents).hexdigest() != card.sha256:
        raise UserError(f'{path} is damaged: its SHA-256 is not the one that its card gives; get it again')
    config = ml_collections.ConfigDict(card.config).lock()
    params = unpack(contents, parameter_shapes(build_network(config.model)), str(path))
    return LoadedModel(config, params, card.step, path, card.kind)


def find_parts(model: str | os.PathLike) -> list[str]:
    """The shipped names or the one folder that `model` stands for; loads nothing.

    Args:
        model: a name in `SHIPPED`; one of `BY_IMAGE` for those of its gray and its colour network that are installed;
            or the folder of a training run, of one checkpoint or from a model hub. Names may be in capitals.

    Raises:
        UserError: it is none of these, these weights do not come with the package, or a folder here has this name, too.
    """
    name = os.fspath(model) if isinstance(model, str | os.PathLike) else None
    if not isinstance(name, str):
        raise UserError(f'a model must be a name or the path of a folder, not {model!r}')
    network = name.lower()
    if network in (*BY_IMAGE, *SHIPPED) and is_folder_here(name):
        raise has_two_meanings(name, 'a network of the package', 'network')
    if network in BY_IMAGE:
        there = [each for each in shipped_names() if SHIPPED[each][0] == network]
        return there or [find_shipped(f'{network}_colour')]
    if network in SHIPPED:
        return [find_shipped(network)]
    refuse_file(local_path(name, 'model'))
    if not os.path.isdir(local_path(name, 'model')):  # pathlib would raise for a name that is too long
        if os.path.basename(name) != name:
            raise UserError(f'{name}: there is no such folder')
        there = ', '.join(shipped_names()) or 'none'
        raise UserError(f'no model {name}: neither a folder nor weights that come with the package; these are: {there}')
    return [name]


def load_part(name: str, which: str = 'best') -> LoadedModel:
    """The network of a name from `find_parts`; raises `UserError` if it cannot be read.

    Args:
        name: of a network that comes with the package, or a folder: of a training run or checkpoint, or by
            `nsr_jax.hub_folder`.
        which: of a workdir's checkpoints to take, as for `trained.load_model`.
    """
    return load_shipped(name) if name in SHIPPED else _load_folder(name, which)


def _load_folder(name: str, which: str) -> LoadedModel:
    folder = pathlib.Path(local_path(name, 'model'))
    if (folder / HUB_WEIGHTS).is_file() and not (folder / CHECKPOINTS).is_dir():  # a run may hold its own export
        model = _load(_read_card(folder / HUB_CARD), folder / HUB_WEIGHTS)
        return dataclasses.replace(model, path=folder.resolve())  # in tables it has the folder's name
    return load_model(name, which)


def load_named(checkpoints: Sequence[str], shipped: Sequence[str], which: str = 'best') -> dict[str, LoadedModel]:
    """Networks by their names in tables; raises `UserError` if one is missing or cannot be read.

    Args:
        checkpoints: folders of training runs, of checkpoints or by `nsr_jax.hub_folder`.
        shipped: names of networks that come with the package.
        which: of a workdir's checkpoints to take, as for `trained.load_model`.
    """
    runs = {path.rstrip('/'): _load_folder(path, which) for path in checkpoints}
    named = {f'{path}, {model.origin}': model for path, model in runs.items()}
    return named | {name: load_shipped(name) for name in shipped}


def pack(params: Mapping[str, Any]) -> bytes:
    """A parameter tree as a safetensors file in float16.

    Raises:
        UserError: a parameter is not finite, or float16 cannot represent a tensor to `LARGEST_ERROR`.
    """
    tensors = {}
    for name, leaf in traverse_util.flatten_dict(params, sep='/').items():
        leaf = np.asarray(leaf, np.float32)
        if not np.isfinite(leaf).all():
            raise UserError(f'parameter {name} holds values that are not finite')
        with np.errstate(over='ignore'):
            tensors[name] = np.ascontiguousarray(leaf.astype(np.float16))
        error = np.abs(tensors[name].astype(np.float32) - leaf).max()
        if not error <= LARGEST_ERROR * np.abs(leaf).max():
            raise UserError(f'parameter {name} cannot be kept in float16: values up to {np.abs(leaf).max():g}')
    return safetensors.numpy.save(tensors)


def unpack(contents: bytes, shapes: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The parameter tree in a file by `pack`.

    Args:
        contents: of the file.
        shapes: the expected tree, whose leaves have a `shape` (`parameter_shapes` of the network).
        name: of the file, for error messages.

    Returns:
        A tree like `shapes` of float32 arrays on the default device.

    Raises:
        UserError: the file is something else, or holds other parameters.
    """
    try:
        tensors = safetensors.numpy.load(contents)
    except (safetensors.SafetensorError, ValueError, TypeError, LookupError) as error:
        raise UserError(f'{name}: not a file of tensors: {error}') from error
    leaves: dict[str, Any] = traverse_util.flatten_dict(shapes, sep='/')
    if {key: tensor.shape for key, tensor in tensors.items()} != {key: leaf.shape for key, leaf in leaves.items()}:
        raise UserError(f'{name}: its tensors are not the parameters of the network on its card')
    arrays = {key: jnp.asarray(tensor, jnp.float32) for key, tensor in tensors.items()}
    return traverse_util.unflatten_dict(arrays, sep='/')
