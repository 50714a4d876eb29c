"""Image sources by name: what training draws from and what evaluation scores."""

import dataclasses
import functools
import hashlib
import numbers
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from nsr_jax.data.benchmark_sets import DIV2K_VALIDATION, find_benchmark
from nsr_jax.data.training_sets import find_training_set
from nsr_jax.errors import UserError
from nsr_jax.images.decoding import check_name, check_pair, crop_to_multiple, decode_image, image_shape
from nsr_jax.ops.imresize import BORDERS
from nsr_jax.paths import check_for_libraries, local_path

_PHOTOS_SPLITS = ('train', 'held_out')
_DIV2K_SPLITS = ('train', 'validation')
_TRAINING_SPLITS = ('train',)
_BENCHMARK_SPLITS = ('test',)
_FOLDER_SPLITS = ('train', 'test')
# The records of a folder, which is all one split, are called after neither of its two.
_WHOLE_FOLDER = 'images'


@dataclasses.dataclass(frozen=True)
class Example:
    """One image of a source, decoded.

    Attributes:
        name: the file's name with its extension, without its folder.
        hr: (H, W, C) uint8, RGB or gray (C = 1), cropped to a multiple of the scale.
        lr: (H / scale, W / scale, C) uint8; `None` at scale 1.
    """

    name: str
    hr: np.ndarray
    lr: np.ndarray | None


class Source(Sequence[Example]):
    """The images of one split by index, sorted by name and decoded when they are asked for. Can be pickled.

    Attributes:
        name: what tables call the source.
        names: the examples' names.
        scale: HR size / LR size.
        fingerprint: the same wherever the files hold the same, and another one where they do not; where none is given,
            it is made of the records when it is asked for.
    """

    def __init__(
        self,
        name: str,
        names: Sequence[str],
        records: Sequence[Mapping[str, bytes]],
        scale: int,
        fingerprint: str = '',
    ):
        if len(names) != len(records):
            raise ValueError(f'{name}: {len(names)} names for {len(records)} records')
        self.name = name
        self.names = tuple(names)
        self.scale = scale
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
        if self.scale == 1:
            return Example(name, hr, None)
        lr = decode_image(_encoded(record, 'lr'), f'low-resolution partner of {name}')
        check_pair(hr, lr, self.scale, name, f'low-resolution partner of {name}')
        return Example(name, hr, lr)

    def hr_shape(self, index: int) -> tuple[int, int, int]:
        """Height, width and channels of a clean image's file, not decoded: not turned upright, not cropped."""
        return image_shape(_encoded(self._records[index], 'hr'), self.names[index])

    def __iter__(self) -> Iterator[Example]:
        return (self[index] for index in range(len(self)))


def _encoded(record: Mapping[str, bytes], feature: str) -> bytes:
    return record[feature] or b''  # a damaged record may have none, which is no image


def open_source(
    name: str | os.PathLike,
    split: str | None,
    scale: int,
    *,
    data_dir: str | os.PathLike | None = None,
    tfds_dir: str | os.PathLike | None = None,
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
        the path of a folder: of images, or with `HR/` as a benchmark; its images are one set, which answers to
            'train' and 'test'.
        split: `None` or '' is the split for evaluation, which is the last one named above.
        scale: HR size / LR size; at 1 there is no LR.
        data_dir: the folder of image sets; `None` or '' is $NSR_DATA_DIR.
        tfds_dir: where records are prepared; `None` or '' is $TFDS_DATA_DIR, else ~/tensorflow_datasets.
        border: how LR is made, or which LR is read, where a benchmark has both: 'clamp' or 'mirror' (see `imresize`).
          DIV2K's LR is the official one in any case.
        check: of an image's shape (H, W, C) and name, asked where records have to be prepared; raises `UserError` for
            an image that is of no use, which is told together with those that are broken.

    Raises:
        UserError: an unknown name, split, scale or border; a path that is refused by `local_path` or
            `check_for_libraries`; missing, broken or changed-in-size files.
    """
    # Not at the top: who imports `Source` to name a type, as restoring does, needs no TFDS.
    from nsr_jax.data import builders, catalogue, layouts

    name = os.fspath(name)
    if not isinstance(scale, numbers.Integral) or scale < 1:
        raise UserError(f'scale must be a whole number from 1, got {scale}')
    if border not in BORDERS:
        raise UserError(f'border must be one of {", ".join(BORDERS)}, got {border!r}')
    data_folder = _data_folder(data_dir)
    tfds_folder = records_folder(tfds_dir)

    if match := re.fullmatch(r'div2k/bicubic_x([234])', name):
        if scale not in (1, int(match[1])):
            raise UserError(f'{name}: its images are for scale {match[1]}, not {scale}')
        split = _check_split(name, split, _DIV2K_SPLITS)
        records, fingerprint = catalogue.catalogue_records(tfds_folder / name, split, tfds_folder)
        return Source(name, [f'{split}_{index:04d}' for index in range(len(records))], records, scale, fingerprint)

    if name == 'photos':
        part = split = _check_split(name, split, _PHOTOS_SPLITS)
        pairs = layouts.photos(split)
    elif name == 'div2k':
        part = split = _check_split(name, split, _DIV2K_SPLITS)
        places = [data_folder / 'DIV2K'] if data_folder else []
        pairs = layouts.div2k(split, scale, [*places, tfds_folder / 'downloads' / 'manual'])
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
        is_benchmark = os.path.isdir(folder / 'HR')
        pairs = layouts.benchmark(folder, scale, border) if is_benchmark else layouts.folder_of_images(folder)
        if known:
            known.check([pair.hr.name for pair in pairs], folder / 'HR')
    config = builders.image_pairs_config(name, part, pairs, scale, border, tfds_folder)
    records = builders.open_records(dataclasses.replace(config, check=check), tfds_folder)
    return Source(name, [pair.hr.name for pair in pairs], records, scale, fingerprint=config.name)


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
