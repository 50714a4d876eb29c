"""Image sources by name: what training draws from and what evaluation scores."""

import dataclasses
import functools
import hashlib
import numbers
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

from nsr_jax.data import builders, catalogue, layouts
from nsr_jax.data.benchmark_sets import DIV2K_VALIDATION, find_benchmark
from nsr_jax.data.training_sets import find_training_set
from nsr_jax.errors import UserError
from nsr_jax.images.reading import check_name, decode_image, image_shape
from nsr_jax.images.sizes import check_pair, crop_to_multiple
from nsr_jax.ops.imresize import BORDERS
from nsr_jax.paths import check_for_libraries, local_path
from nsr_jax.tasks.task import Example

_PHOTOS_SPLITS = ('train', 'held_out')
_DIV2K_SPLITS = ('train', 'validation')
_TRAINING_SPLITS = ('train',)
_BENCHMARK_SPLITS = ('test',)
_FOLDER_SPLITS = ('train', 'test')
# The records of a folder, which is all one split, are called after neither of its two.
_WHOLE_FOLDER = 'images'


class Source(Sequence[Example]):
    """The images of one split by index, sorted by name and decoded when they are asked for. Can be pickled.

    Attributes:
        name: what tables call the source.
        names: the examples' names.
        scale: HR size / LR size.
        has_inputs: whether examples come with what they are to be restored from.
        fingerprint: the same wherever the files hold the same, and another one where they do not; where none is given,
            it is made of the records when it is asked for.
    """

    def __init__(
        self,
        name: str,
        names: Sequence[str],
        records: Sequence[Mapping[str, bytes]],
        scale: int,
        *,
        has_inputs: bool,
        fingerprint: str = '',
        collection: str = '',
    ):
        if len(names) != len(records):
            raise ValueError(f'{name}: {len(names)} names for {len(records)} records')
        self.name = name
        self.names = tuple(names)
        self.scale = scale
        self.has_inputs = has_inputs
        self._collection = collection
        self._records = records
        if fingerprint:
            self.fingerprint = fingerprint

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of all records; for a source that was made without one."""
        digest = hashlib.sha256(repr((self.name, self.names, self.scale)).encode())
        for record in self._records:
            for feature in sorted(record):
                contents = hashlib.sha256(_encoded(record, feature)).hexdigest()
                digest.update(f'{feature} {contents}\n'.encode())
        return digest.hexdigest()[:32]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Example:
        if not -len(self) <= index < len(self):
            raise IndexError(f'{self.name} has {len(self)} images, index {index} is none of them')
        index %= len(self)
        record, name = self._records[index], self.names[index]
        hr = crop_to_multiple(decode_image(_encoded(record, 'hr'), name), self.scale, name)
        if not self.has_inputs:
            return Example(name, hr, None, self._collection)
        lr = decode_image(_encoded(record, 'lr'), f'input of {name}')
        check_pair(hr, lr, self.scale, name, f'input of {name}')
        return Example(name, hr, lr, self._collection)

    def select(self, is_wanted: Callable[[str], bool]) -> 'Source':
        """The source of those images whose names are wanted; itself where all are."""
        kept = [index for index, name in enumerate(self.names) if is_wanted(name)]
        if len(kept) == len(self):
            return self
        names = [self.names[index] for index in kept]
        digest = hashlib.sha256(repr(names).encode(errors='surrogateescape')).hexdigest()[:16]
        return Source(
            self.name,
            names,
            _Selection(self._records, kept),
            self.scale,
            has_inputs=self.has_inputs,
            fingerprint=f'{self.fingerprint}_{digest}',
            collection=self._collection,
        )

    def hr_shape(self, index: int) -> tuple[int, int, int]:
        """Height, width and channels of a clean image's file, not decoded: not turned upright, not cropped."""
        return image_shape(_encoded(self._records[index], 'hr'), self.names[index])

    def __iter__(self) -> Iterator[Example]:
        return (self[index] for index in range(len(self)))


@dataclasses.dataclass(frozen=True)
class _Selection(Sequence[Mapping[str, bytes]]):
    """Some of the records, which are read when they are asked for."""

    records: Sequence[Mapping[str, bytes]]
    kept: Sequence[int]

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index: int) -> Mapping[str, bytes]:
        return self.records[self.kept[index]]


def _encoded(record: Mapping[str, bytes], feature: str) -> bytes:
    return record[feature] or b''  # a damaged record may have none, which is no image


def open_source(
    name: str | os.PathLike,
    split: str | None,
    scale: int,
    *,
    data_dir: str | os.PathLike | None = None,
    tfds_dir: str | os.PathLike | None = None,
    inputs: Literal['made', 'shrunk', 'given'] = 'shrunk',
    border: str = 'clamp',
    check: Callable[[tuple[int, int, int], str], None] | None = None,
) -> Source:
    """Open an image source, preparing its records first where that was not done or its files have changed.

    Args:
        name: one of
            'photos': photographs that come with scikit-image; splits 'train' and 'held_out';
            'div2k': DIV2K from its official zip files in `data_dir`/DIV2K or `tfds_dir`/downloads/manual, with
            MATLAB's bicubic partners; splits 'train' and 'validation';
            'div2k/bicubic_x{scale}': the dataset of the TFDS catalogue, prepared elsewhere as array_record under
            `tfds_dir`; splits 'train' and 'validation'; it keeps no file names, so its images are numbered;
            a benchmark, in any case, such as 'set5': a folder `data_dir`/test/NAME with `HR/` and, if there,
            `LR_bicubic/`; split 'test'; of those that `benchmarks` knows all images must be there;
            a training set, in any case, such as 'bsds500': a folder of images `data_dir`/train/NAME; split 'train';
            't91_bsds200', 'bsds400' or 'train400': what published networks were trained on (see `training_sets`), from
            such folders; all images must be there; split 'train';
        the path of a folder: of images, with `HR/` as a benchmark, or with `input/` and `target/` for pairs, whose
            files have the same names but for the extension; its images are one set, which answers to 'train' and
            'test'.
        split: `None` or '' is the split for evaluation, which is the last one named above.
        scale: HR size / LR size.
        data_dir: the folder of image sets; `None` or '' is $NSR_DATA_DIR.
        tfds_dir: where records are prepared; `None` or '' is $TFDS_DATA_DIR, else ~/tensorflow_datasets.
        inputs: what images are restored from, as in `tasks.Task`. 'made': the task makes it, the source gives none.
          'shrunk': LR, which the source has or makes; at scale 1 there is none. 'given': what the source has.
        border: how LR is made, or which LR is read, where a benchmark has both: 'clamp' or 'mirror' (see `imresize`).
          DIV2K's LR is the official one in any case.
        check: of an image's shape (H, W, C) and name, asked where records have to be prepared; raises `UserError` for
            an image that is of no use, which is told together with those that are broken.

    Raises:
        UserError: an unknown name, split, scale or border; a path that is refused by `local_path` or
            `check_for_libraries`; missing, broken or changed-in-size files; no inputs where they must be given.
    """
    name = os.fspath(name)
    if not isinstance(scale, numbers.Integral) or scale < 1:
        raise UserError(f'scale must be a whole number from 1, got {scale}')
    if border not in BORDERS:
        raise UserError(f'border must be one of {", ".join(BORDERS)}, got {border!r}')
    data_folder, collection = _data_folder(data_dir), ''
    tfds_folder = records_folder(tfds_dir)
    has_inputs = inputs == 'given' or (inputs == 'shrunk' and scale > 1)

    if match := re.fullmatch(r'div2k/bicubic_x([234])', name):
        if scale not in (1, int(match[1])):
            raise UserError(f'{name}: its images are for scale {match[1]}, not {scale}')
        split = _check_split(name, split, _DIV2K_SPLITS)
        records, fingerprint = catalogue.catalogue_records(tfds_folder / name, split, tfds_folder)
        names = [f'{split}_{index:04d}' for index in range(len(records))]
        about = {'has_inputs': has_inputs, 'fingerprint': fingerprint, 'collection': DIV2K_VALIDATION.name}
        return Source(name, names, records, scale, **about)

    if name == 'photos':
        part = split = _check_split(name, split, _PHOTOS_SPLITS)
        pairs = layouts.photos(split)
    elif name == 'div2k':
        part = split = _check_split(name, split, _DIV2K_SPLITS)
        places = [data_folder / 'DIV2K'] if data_folder else []
        pairs = layouts.div2k(split, scale if has_inputs else 1, [*places, tfds_folder / 'downloads' / 'manual'])
        collection = DIV2K_VALIDATION.name
        if split == 'validation':
            DIV2K_VALIDATION.check([pair.hr.name for pair in pairs], pairs[0].hr.path)
    elif training_set := find_training_set(name):
        name, part = training_set.name, _check_split(name, split, _TRAINING_SPLITS)
        pairs = layouts.training_set(training_set, _training_sets(data_folder))
    else:
        part = _WHOLE_FOLDER
        folder = _find_benchmark(name, data_folder)
        known = find_benchmark(name) if folder else None
        _check_split(name, split, _BENCHMARK_SPLITS if folder else _FOLDER_SPLITS)
        folder = folder or _find_folder(name, data_folder)
        name = folder.name
        check_name(name, folder.parent)
        if os.path.isdir(folder / 'HR'):
            pairs = layouts.benchmark(folder, scale if has_inputs else 1, border)
        elif layouts.is_folder_of_pairs(folder):
            pairs = layouts.folder_of_pairs(folder)
        else:
            pairs = layouts.folder_of_images(folder)
        if known:
            known.check([pair.hr.name for pair in pairs], folder / 'HR')
    if inputs == 'given' and any(pair.lr is None for pair in pairs):
        raise UserError(f'{name}: has no input images; pairs are a folder with the folders input and target in it')
    config = builders.image_pairs_config(
        name, part, pairs, scale, has_inputs=has_inputs, border=border, tfds_dir=tfds_folder
    )
    records = builders.open_records(dataclasses.replace(config, check=check), tfds_folder)
    about = {'has_inputs': has_inputs, 'fingerprint': config.name, 'collection': collection}
    return Source(name, [pair.hr.name for pair in pairs], records, scale, **about)


def records_folder(tfds_dir: str | os.PathLike | None) -> pathlib.Path:
    """Where records are prepared: `tfds_dir`, else $TFDS_DATA_DIR, else ~/tensorflow_datasets; an absolute path.

    Raises:
        UserError: as in `local_path` and `check_for_libraries`.
    """
    default = os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
    what = 'tfds_dir' if tfds_dir else '$TFDS_DATA_DIR (the folder of prepared datasets)'
    folder = pathlib.Path(local_path(tfds_dir or default, what)).absolute()  # TFDS would expand what begins with ~
    check_for_libraries(folder, what)
    return folder


def _data_folder(data_dir: str | os.PathLike | None) -> pathlib.Path | None:
    path, what = (data_dir, 'data_dir') if data_dir else (os.environ.get('NSR_DATA_DIR'), '$NSR_DATA_DIR')
    return pathlib.Path(local_path(path, what)) if path else None


def _check_split(name: str, split: str | None, splits: Sequence[str]) -> str:
    if split and split not in splits:
        raise UserError(f'{name}: no split {split!r}; there is {", ".join(splits)}')
    return split or splits[-1]


def _benchmarks(data_folder: pathlib.Path | None) -> dict[str, pathlib.Path]:
    """The folders with `HR/` under `data_folder`/test by their names in lower case."""
    if data_folder is None:
        return {}
    return {path.parent.name.lower(): path.parent for path in sorted(data_folder.glob('test/*/HR'))}


def _training_sets(data_folder: pathlib.Path | None) -> dict[str, pathlib.Path]:
    """The folders under `data_folder`/train by their names in lower case."""
    if data_folder is None:
        return {}
    return {path.name.lower(): path for path in sorted(data_folder.glob('train/*')) if path.is_dir()}


def _find_benchmark(name: str, data_folder: pathlib.Path | None) -> pathlib.Path | None:
    found, known = _benchmarks(data_folder), find_benchmark(name)
    names = (name, known.name, known.other_name) if known else (name,)
    return next((found[each.lower()] for each in names if each.lower() in found), None)


def _find_folder(name: str, data_folder: pathlib.Path | None) -> pathlib.Path:
    path = name and local_path(name, 'a dataset')
    if os.path.isdir(path):  # which is False where it may not be looked at
        return pathlib.Path(path).resolve()
    training_sets = _training_sets(data_folder)
    if name.lower() in training_sets:
        return training_sets[name.lower()]
    if data_folder is None:
        benchmarks = 'a benchmark (none is known: neither data_dir nor $NSR_DATA_DIR names their folder)'
    else:
        found = ', '.join(path.name for path in _benchmarks(data_folder).values()) or 'none'
        benchmarks = f'a benchmark in {data_folder / "test"} (there: {found})'
        if known := find_benchmark(name):
            place = data_folder / 'test' / known.name / 'HR'
            raise UserError(f'{known} is not there: put its images into {place}; it comes from {known.origin}')
    raise UserError(
        f'unknown source {name!r}; accepted are photos, div2k, div2k/bicubic_x2 (x3, x4), {benchmarks}, '
        f'a training set ({", ".join(path.name for path in training_sets.values()) or "none is known"}), '
        'and the path of a folder of images'
    )
