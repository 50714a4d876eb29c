"""The TFDS builder for every image set: array_record files, written and read without TensorFlow."""

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import os
import pathlib
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from nsr_jax.atomic_files import sweep, temporary_folder
from nsr_jax.data.digests import digest_files
from nsr_jax.errors import UserError, first_of, listed
from nsr_jax.images.reading import check_file, decode_image, read_file, read_plain, read_stream
from nsr_jax.images.sizes import check_pair, crop_to_multiple
from nsr_jax.images.writing import encode_png
from nsr_jax.ops.imresize import imresize

_PIXELS_VERSION = 1  # raise it when decoding, cropping or shrinking gives other pixels than before
_LONGEST_WORD = 40  # of a source's name, in the name of a folder
_IMAGES_PER_SHARD = 50  # in an array_record file, whose bytes TFDS holds in memory while it writes it
_LONGEST_REASON = 200  # characters of a library's message that are shown

# Raises `UserError` if an image of this shape, (H, W, C), and name is of no use.
CheckShape = Callable[[tuple[int, int, int], str], None]


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """Where the bytes of an image are: a file, which may lie below a `folder` that names it, or a member of a zip."""

    path: pathlib.Path
    member: str = ''
    folder: pathlib.Path | None = None

    @property
    def name(self) -> str:
        """The file's own name, or its path below the folder, with its extension."""
        if self.folder:
            return self.path.relative_to(self.folder).as_posix()
        return pathlib.PurePosixPath(self.member).name if self.member else self.path.name

    def __str__(self) -> str:
        return f'{self.path}:{self.member}' if self.member else str(self.path)

    def read(self) -> bytes:
        """The encoded bytes. Raises `UserError` for a file that cannot be read or is too large, or a damaged zip."""
        if not self.member:
            return read_file(self.path)
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as file:
                return read_stream(file, str(self))
        except UserError:
            raise
        except Exception as error:  # zipfile raises many kinds for what is damaged, encrypted or unknown to it
            raise UserError(f'{self}: cannot be read: {error or "it is damaged"}') from error


@dataclasses.dataclass(frozen=True)
class ImagePair:
    """An image and the input to restore it from, which is None if it has yet to be made."""

    hr: ImageFile
    lr: ImageFile | None = None


@dataclasses.dataclass(eq=False)
class ImagePairsConfig(tfds.core.BuilderConfig):
    """One split of one image set at one scale. Make it with `image_pairs_config`.

    `has_inputs` tells whether each image comes with an input to restore it from. `border` is imresize's, for inputs
    that are made. `name` ends in a digest of all that the records depend on: the contents of the files (`digests`, by
    path), their names and order, and what is made of them. So files with other contents are another dataset, and stale
    records are never read. `check` is called for each image while it is prepared. `converts` tells whether images that
    are not 8-bit gray or RGB are taken, too, by `read_plain`; `converted` gets their names while they are prepared,
    those of inputs as 'input of NAME'.
    """

    split: str = ''
    scale: int = 1
    has_inputs: bool = False
    border: str = 'clamp'
    pairs: Sequence[ImagePair] = dataclasses.field(default=(), repr=False)
    digests: Mapping[pathlib.Path, str] = dataclasses.field(default_factory=dict, repr=False)
    check: CheckShape | None = dataclasses.field(default=None, repr=False)
    converts: bool = False
    converted: list[str] = dataclasses.field(default_factory=list, repr=False)


def image_pairs_config(
    source: str,
    split: str,
    pairs: Sequence[ImagePair],
    scale: int,
    *,
    has_inputs: bool,
    border: str = 'clamp',
    tfds_dir: str | os.PathLike | None = None,
    check: CheckShape | None = None,
    converts: bool = False,
) -> ImagePairsConfig:
    """The config of `pairs`, in this order.

    Digests of the files are kept in `tfds_dir`, where records are prepared; without it all files are read.

    Raises:
        UserError: a file is missing, cannot be read, or is larger than any image's.
    """
    pairs = pairs if has_inputs else [ImagePair(pair.hr) for pair in pairs]
    files = [file for pair in pairs for file in (pair.hr, pair.lr) if file]
    for file in files:
        if not file.member:
            check_file(file.path)
    digests = digest_files((file.path for file in files), tfds_dir and pathlib.Path(tfds_dir) / ImagePairs.name)
    are_made = has_inputs and any(pair.lr is None for pair in pairs)
    # At scale 1 inputs are never made, and the files are among the identities.
    lr = f'x{scale}_{border}' if are_made else f'x{scale}' if has_inputs or scale == 1 else f'x{scale}_clean'
    identities = [
        file and (file.name if file.folder else file.path.name, file.member, digests[file.path])
        for pair in pairs
        for file in (pair.hr, pair.lr)
    ]
    fingerprint = hashlib.sha256(json.dumps([_PIXELS_VERSION, source, split, lr, identities]).encode())
    words = (re.sub(r'[^0-9A-Za-z]+', '_', source)[:_LONGEST_WORD], split, lr, fingerprint.hexdigest()[:32])
    return ImagePairsConfig(
        name='_'.join(words),
        split=split,
        scale=scale,
        has_inputs=has_inputs,
        border=border,
        pairs=tuple(pairs),
        digests=digests,
        check=check,
        converts=converts,
    )


class _LocalInfo(tfds.core.DatasetInfo):
    """The metadata of a dataset that is not one of Google's."""

    def initialize_from_bucket(self) -> None:
        """Do nothing, where TFDS would ask Google and leave an empty temporary folder each time."""


class ImagePairs(tfds.core.ShardBasedBuilder):
    """Records of encoded images: `name` (text), `hr`, and `lr` if wanted, in the order of the config's pairs.

    Both keep the bytes of their files, unless these are converted. All images are decoded once here, to find broken
    ones, other modes and pairs whose sizes do not fit before training starts. Shards are written one by one in the
    order of the pairs: TFDS's usual builder would sort by hash, in memory, and needs TensorFlow for splits over 1000
    MiB.
    """

    builder_config: ImagePairsConfig
    name = 'nsr_image_pairs'
    VERSION = tfds.core.Version('1.0.0')
    # Otherwise TFDS looks the source file up through importlib_resources, which is not installed with it.
    code_path = None

    def _info(self) -> tfds.core.DatasetInfo:
        features = {'name': tfds.features.Text(), 'hr': tfds.features.Image(shape=(None, None, None))}
        if self.builder_config.has_inputs:
            features['lr'] = tfds.features.Image(shape=(None, None, None))
        return _LocalInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _shard_iterators_per_split(self, dl_manager: Any) -> Mapping[str, Sequence[Callable[[], Iterator]]]:
        starts = range(0, len(self.builder_config.pairs), _IMAGES_PER_SHARD)
        return {self.builder_config.split: [functools.partial(self._examples, start) for start in starts]}

    def _examples(self, start: int) -> Iterator[tuple[str, dict[str, bytes | str]]]:
        scale, border, pairs = self.builder_config.scale, self.builder_config.border, self.builder_config.pairs
        for index, pair in enumerate(pairs[start : start + _IMAGES_PER_SHARD], start=start):
            try:
                hr_bytes, hr, lr_bytes = self._read(pair)
            except UserError as error:
                failures = [str(error), *self._failures(index + 1)]
                raise UserError(listed(failures, 'images cannot be used')) from error
            example = {'name': pair.hr.name, 'hr': hr_bytes}
            if self.builder_config.has_inputs:
                example['lr'] = lr_bytes or encode_png(imresize(hr, 1 / scale, border=border))
            yield pair.hr.name, example

    def _read(self, pair: ImagePair) -> tuple[bytes, np.ndarray, bytes | None]:
        """Read and check a pair: the bytes of the image, its pixels, and the bytes of its input if that is a file."""
        scale, name, lr_bytes = self.builder_config.scale, str(pair.hr), None
        hr_bytes, hr = self._decode(pair.hr, pair.hr.name)
        hr = crop_to_multiple(hr, scale, name)
        if self.builder_config.check:
            self.builder_config.check(hr.shape, name)
        if pair.lr is not None:
            lr_bytes, lr = self._decode(pair.lr, f'input of {pair.hr.name}')
            check_pair(hr, lr, scale, name, str(pair.lr))
        return hr_bytes, hr, lr_bytes

    def _decode(self, file: ImageFile, name: str) -> tuple[bytes, np.ndarray]:
        """The bytes and the pixels of an image, which is converted if it must be and may be, and is then named so."""
        data = file.read()
        try:
            return data, decode_image(data, str(file))
        except UserError:
            if not self.builder_config.converts:
                raise
        pixels = read_plain(data, str(file))
        self.builder_config.converted.append(name)
        return encode_png(pixels), pixels

    def _failures(self, start: int) -> Iterator[str]:
        """The errors of the images from this one on, so that the user learns of all at once."""
        for pair in self.builder_config.pairs[start:]:
            try:
                self._read(pair)
            except UserError as error:
                yield str(error)


def open_records(config: ImagePairsConfig, tfds_dir: str | os.PathLike) -> Sequence[Mapping[str, bytes]]:
    """Prepare the config's records under `tfds_dir` unless they are there; returns them undecoded, by index.

    They are written into a temporary folder and moved once they are complete, so no later call mistakes the remains of
    an interrupted preparation for a dataset; the next call of any config removes the remains. Several processes may
    prepare the same records: the first to finish wins.

    Raises:
        UserError: a broken image, a pair that does not fit, files that have changed since the config was made, a folder
            that cannot be written, or damaged records.
    """
    place = pathlib.Path(tfds_dir) / ImagePairs.name
    folder = place / config.name
    sweep(place)
    with quiet_tfds(), damage_told(folder):
        builder = _builder(config, tfds_dir)
        if builder.is_prepared():
            return undecoded(builder, config.split, folder)
    logging.info('Preparing %d images (%s) in %s', len(config.pairs), config.name, builder.data_dir)
    try:
        place.mkdir(parents=True, exist_ok=True)
        with temporary_folder(place) as temporary:
            _prepare(config, temporary, pathlib.Path(builder.data_dir))
    except (OSError, RuntimeError) as error:  # array_record raises the latter, for example on a full disk
        with quiet_tfds(), damage_told(folder):
            if not builder.is_prepared():
                raise UserError(f'{builder.data_dir}: cannot be prepared: {_one_line(error)}') from error
    if config.converted:
        logging.info(
            '%d of the images are converted to 8-bit gray or RGB: %s', len(config.converted), first_of(config.converted)
        )
    with quiet_tfds(), damage_told(folder):
        return undecoded(_builder(config, tfds_dir), config.split, folder)


def _prepare(config: ImagePairsConfig, temporary: pathlib.Path, target: pathlib.Path) -> None:
    """Write the records below a temporary folder, and move them to the target unless the files changed meanwhile."""
    with quiet_tfds():
        builder = _builder(config, temporary)
        builder.download_and_prepare()
    if digest_files(config.digests) != config.digests:
        folder = config.pairs[0].hr.path.parent
        raise UserError(f'{folder}: files change while they are read: wait until they are written')
    target.parent.mkdir(parents=True, exist_ok=True)
    os.rename(builder.data_path, target)


def _builder(config: ImagePairsConfig, tfds_dir: str | os.PathLike) -> ImagePairs:
    return ImagePairs(data_dir=tfds_dir, config=config, file_format='array_record')


def undecoded(builder: tfds.core.DatasetBuilder, split: str, folder: pathlib.Path) -> Sequence[Mapping[str, bytes]]:
    """The records of a split by index, with images as encoded bytes; reading a damaged one raises `UserError`."""
    features: Any = builder.info.features  # a dictionary of them
    images = (name for name, feature in features.items() if isinstance(feature, tfds.features.Image))
    decoders = {name: tfds.decode.SkipDecoding() for name in images}
    read: Any = builder.as_data_source  # its decorator loses the declared arguments
    return _Records(read(split, decoders=decoders), folder)


class _Records(Sequence[Mapping[str, bytes]]):
    """Records by index, of a folder that may be damaged."""

    def __init__(self, records: Sequence[Mapping[str, bytes]], folder: pathlib.Path):
        self._records, self._folder = records, folder

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Mapping[str, bytes]:
        if not -len(self) <= index < len(self):
            raise IndexError(f'index {index} is out of range: there are {len(self)} records')
        with damage_told(self._folder):
            return self._records[index]


@contextlib.contextmanager
def damage_told(folder: pathlib.Path) -> Iterator[None]:
    """Within this context, turn any error from reading a damaged folder of records into a `UserError`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # TFDS, protobuf and array_record raise many kinds
        raise UserError(f'{folder}: damaged ({_one_line(error)}); remove it, and it is prepared again') from error


def _one_line(error: BaseException) -> str:
    return ' '.join(str(error).split())[:_LONGEST_REASON]


@contextlib.contextmanager
def quiet_tfds() -> Iterator[None]:
    """Within this context, let through only the errors of TFDS, which reports all its steps on stdout and by absl."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
