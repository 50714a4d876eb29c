"""Image sources by name: what training draws from and what evaluation scores."""

import dataclasses
import hashlib
import numbers
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from nsr_jax.data import builders, catalogue, layouts
from nsr_jax.data.benchmark_sets import DIV2K_VALIDATION, find_benchmark
from nsr_jax.data.training_sets import find_training_set
from nsr_jax.errors import UserError
from nsr_jax.images.reading import check_name, decode_image, image_shape, list_photos
from nsr_jax.images.sizes import check_pair, crop_to_multiple
from nsr_jax.ops.imresize import BORDERS
from nsr_jax.paths import check_for_libraries, has_two_meanings, is_folder_here, local_path
from nsr_jax.tasks.task import Example

# A folder is one set with two names for its split, so its records are named after neither.
_WHOLE_FOLDER = 'images'


@dataclasses.dataclass(eq=False, repr=False)
class Source(Sequence[Example]):
    """The images of one split by index, sorted by name and decoded on access. Can be pickled.

    Attributes:
        name: of the source, as tables print it.
        names: of the examples.
        records: the encoded images of each example: `hr`, and `lr` if `has_inputs`.
        scale: HR size / LR size.
        has_inputs: whether examples come with the input to restore them from.
        fingerprint: a text that is the same if and only if the contents of the files are.
        collection: as in `Example`.
        to_gray: turns colour images gray, as in `tasks.Task`; None: they stay.
    """

    name: str
    names: tuple[str, ...]
    records: Sequence[Mapping[str, bytes]]
    scale: int
    has_inputs: bool
    fingerprint: str
    collection: str = ''
    to_gray: Callable[[np.ndarray], np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Example:
        if not -len(self) <= index < len(self):
            raise IndexError(f'index {index} is out of range: {self.name} has {len(self)} images')
        index %= len(self)
        record, name = self.records[index], self.names[index]
        hr = crop_to_multiple(self._decode(record, 'hr', name), self.scale, name)
        if not self.has_inputs:
            return Example(name, hr, None, self.collection)
        lr = self._decode(record, 'lr', f'input of {name}')
        check_pair(hr, lr, self.scale, name, f'input of {name}')
        return Example(name, hr, lr, self.collection)

    def _decode(self, record: Mapping[str, bytes], feature: str, name: str) -> np.ndarray:
        image = decode_image(_encoded(record, feature), name)
        return self.to_gray(image)[..., None] if self.to_gray and image.shape[-1] == 3 else image

    def in_gray(self, to_gray: Callable[[np.ndarray], np.ndarray]) -> 'Source':
        """The source with its colour images turned gray, as in `tasks.Task`."""
        return dataclasses.replace(self, to_gray=to_gray, fingerprint=f'{self.fingerprint}_gray')

    def select(self, is_wanted: Callable[[str], bool]) -> 'Source':
        """The source of those images whose names are wanted; itself if all are."""
        kept = [index for index, name in enumerate(self.names) if is_wanted(name)]
        if len(kept) == len(self):
            return self
        names = [self.names[index] for index in kept]
        digest = hashlib.sha256(repr(names).encode(errors='surrogateescape')).hexdigest()[:16]
        records, fingerprint = _Selection(self.records, kept), f'{self.fingerprint}_{digest}'
        return dataclasses.replace(self, names=tuple(names), records=records, fingerprint=fingerprint)

    def hr_shape(self, index: int) -> tuple[int, int, int]:
        """Height, width and channels in the file of a clean image, before it is turned upright and cropped."""
        return image_shape(_encoded(self.records[index], 'hr'), self.names[index])

    def __iter__(self) -> Iterator[Example]:
        return (self[index] for index in range(len(self)))


@dataclasses.dataclass(frozen=True)
class _Selection(Sequence[Mapping[str, bytes]]):
    """Some of the records, read on access."""

    records: Sequence[Mapping[str, bytes]]
    kept: Sequence[int]

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index: int) -> Mapping[str, bytes]:
        return self.records[self.kept[index]]


def _encoded(record: Mapping[str, bytes], feature: str) -> bytes:
    return record[feature] or b''  # which is no image: a damaged record may have none


def open_source(
    name: str | os.PathLike,
    split: str | None,
    scale: int,
    *,
    data_dir: str | os.PathLike | None = None,
    tfds_dir: str | os.PathLike | None = None,
    inputs: Literal['made', 'shrunk', 'given'] = 'shrunk',
    border: str = 'clamp',
    check: builders.CheckShape | None = None,
) -> Source:
    """Open an image source; its records are prepared first if they are missing or its files have changed.

    Args:
        name: a set that is known by its name, in any case, or a folder. A name that a folder in the present folder has
            too, exactly so, is refused: `./photos` and `photos/` are the folder, `PHOTOS` is the set. One of
            'photos': photographs that come with scikit-image; splits 'train' and 'held_out';
            'div2k': DIV2K from its official zip files in `data_dir`/DIV2K or `tfds_dir`/downloads/manual, with
            MATLAB's bicubic partners; splits 'train' and 'validation';
            'div2k/bicubic_x{scale}': the dataset of the TFDS catalogue, prepared elsewhere as array_record under
            `tfds_dir`; splits 'train' and 'validation'; it has no file names, so its images are numbered;
            a benchmark, such as 'set5': a folder `data_dir`/test/NAME with `HR/` and possibly
            `LR_bicubic/`; split 'test'; a set that `benchmark_sets` knows must be complete;
            a training set, such as 'bsds500': a folder of images `data_dir`/train/NAME; split 'train';
            't91_bsds200', 'bsds400' or 'train400': training sets of published networks (see `training_sets`), from
            such folders; they must be complete; split 'train';
            the path of a folder: of images of any kind that restoring reads, also in subfolders, which are converted
            to 8-bit gray or RGB if they are not such; with `input/` and `target/` for pairs of such images, whose
            paths there are the same but for the suffix; or with `HR/` as a benchmark; its images are one set with
            the splits 'train' and 'test'.
        split: None or '' is the split for evaluation, which is the last one named above.
        scale: HR size / LR size.
        data_dir: the folder of image sets; None or '' is $NSR_DATA_DIR.
        tfds_dir: where records are prepared; None or '' is $TFDS_DATA_DIR, else ~/tensorflow_datasets.
        inputs: where inputs come from, as in `tasks.Task`. 'made': the task makes them, the source has none.
            'shrunk': the source has or makes LR; at scale 1 there is none. 'given': the source has them.
        border: how LR is made, or which LR is read if a benchmark has both: 'clamp' or 'mirror' (see `imresize`).
            DIV2K always has its official LR.
        check: called for each image while records are prepared; images that it refuses are reported together with
            broken ones.

    Raises:
        UserError: an unknown or ambiguous name; an unknown split, scale or border; a path that `local_path` or
            `check_for_libraries` refuses; files that are missing, broken or of other sizes; no inputs although they
            must be given.
    """
    name = os.fspath(name)
    if not isinstance(scale, numbers.Integral) or scale < 1:
        raise UserError(f'scale must be a whole number from 1, got {scale}')
    if border not in BORDERS:
        raise UserError(f'border must be one of {", ".join(BORDERS)}, got {border!r}')
    data_folder, collection = _data_folder(data_dir), ''
    tfds_folder = records_folder(tfds_dir)
    has_inputs, converts = inputs == 'given' or (inputs == 'shrunk' and scale > 1), False

    _check_ambiguity(name, data_folder)
    if match := re.fullmatch(r'div2k/bicubic_x([234])', name.lower()):
        name = name.lower()
        if scale not in (1, int(match[1])):
            raise UserError(f'{name}: its images are for scale {match[1]}, not {scale}')
        split = _check_split(name, split, tuple(layouts.DIV2K_SPLITS))
        records, fingerprint = catalogue.catalogue_records(tfds_folder / name, split, tfds_folder)
        names = tuple(f'{split}_{index:04d}' for index in range(len(records)))
        return Source(name, names, records, scale, has_inputs, fingerprint, collection=DIV2K_VALIDATION.name)

    if name.lower() == 'photos':
        name = 'photos'
        part = split = _check_split(name, split, tuple(layouts.PHOTOS))
        pairs = layouts.photos(split)
    elif name.lower() == 'div2k':
        name = 'div2k'
        part = split = _check_split(name, split, tuple(layouts.DIV2K_SPLITS))
        places = [data_folder / 'DIV2K'] if data_folder else []
        pairs = layouts.div2k(split, scale if has_inputs else 1, [*places, tfds_folder / 'downloads' / 'manual'])
        collection = DIV2K_VALIDATION.name
        if split == 'validation':
            DIV2K_VALIDATION.check([pair.hr.name for pair in pairs], pairs[0].hr.path)
    elif training_set := find_training_set(name):
        name, part = training_set.name, _check_split(name, split, ('train',))
        pairs = layouts.training_set(training_set, _image_sets(data_folder, 'train'))
    else:
        part = _WHOLE_FOLDER
        folder = _find_benchmark(name, data_folder)
        known = find_benchmark(name) if folder else None
        _check_split(name, split, ('test',) if folder else ('train', 'test'))
        folder = folder or _find_folder(name, data_folder)
        name = folder.name
        check_name(name, folder.parent)
        if os.path.isdir(folder / 'HR'):
            pairs = layouts.benchmark(folder, scale if has_inputs else 1, border)
        elif layouts.is_folder_of_pairs(folder):
            pairs, converts = layouts.folder_of_pairs(folder), True
        else:
            pairs = [builders.ImagePair(builders.ImageFile(path, folder=folder)) for path in list_photos(folder)]
            converts = True
        if known:
            known.check([pair.hr.name for pair in pairs], folder / 'HR')
    if inputs == 'given' and any(pair.lr is None for pair in pairs):
        raise UserError(f'{name}: has no input images: pairs are a folder with the folders input and target in it')
    config = builders.image_pairs_config(
        name,
        part,
        pairs,
        scale,
        has_inputs=has_inputs,
        border=border,
        tfds_dir=tfds_folder,
        check=check,
        converts=converts,
    )
    records = builders.open_records(config, tfds_folder)
    names = tuple(pair.hr.name for pair in pairs)
    return Source(name, names, records, scale, has_inputs, config.name, collection=collection)


def is_div2k(name: str) -> bool:
    """Whether a name is that of DIV2K, and not of a folder such as div2k/."""
    return re.fullmatch('div2k(/bicubic_x[234])?', name, re.IGNORECASE) is not None


def records_folder(tfds_dir: str | os.PathLike | None) -> pathlib.Path:
    """The folder of prepared records: `tfds_dir`, else $TFDS_DATA_DIR, else ~/tensorflow_datasets; an absolute path.

    Raises:
        UserError: as in `local_path` and `check_for_libraries`.
    """
    default = os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
    what = 'tfds_dir' if tfds_dir else '$TFDS_DATA_DIR (the folder of prepared datasets)'
    folder = pathlib.Path(local_path(tfds_dir or default, what)).absolute()  # TFDS would expand a leading ~
    check_for_libraries(folder, what)
    return folder


def _data_folder(data_dir: str | os.PathLike | None) -> pathlib.Path | None:
    path, what = (data_dir, 'data_dir') if data_dir else (os.environ.get('NSR_DATA_DIR'), '$NSR_DATA_DIR')
    return pathlib.Path(local_path(path, what)) if path else None


def _check_split(name: str, split: str | None, splits: Sequence[str]) -> str:
    if split and split not in splits:
        raise UserError(f'{name}: no split {split!r}; there is {", ".join(splits)}')
    return split or splits[-1]


def _image_sets(data_folder: pathlib.Path | None, kind: Literal['test', 'train']) -> dict[str, pathlib.Path]:
    """The folders in `data_folder`/`kind`, for 'test' those with `HR/`, by their names in lower case."""
    paths = sorted(data_folder.glob(f'{kind}/*')) if data_folder else []
    return {path.name.lower(): path for path in paths if os.path.isdir(path / 'HR' if kind == 'test' else path)}


def _find_benchmark(name: str, data_folder: pathlib.Path | None) -> pathlib.Path | None:
    found, known = _image_sets(data_folder, 'test'), find_benchmark(name)
    names = (name, known.name, known.other_name) if known else (name,)
    return next((found[each.lower()] for each in names if each.lower() in found), None)


def _check_ambiguity(name: str, data_folder: pathlib.Path | None) -> None:
    """Raise `UserError` for the name of a known set that is that of a folder here, too."""
    if not is_folder_here(name):
        return
    places = [
        sets[name.lower()] for kind in ('test', 'train') if name.lower() in (sets := _image_sets(data_folder, kind))
    ]
    is_known = name.lower() in ('photos', 'div2k') or find_training_set(name) or find_benchmark(name) or places
    if is_known and not any(os.path.samefile(place, name) for place in places):
        raise has_two_meanings(name, 'the name of a known set', 'set')


def _find_folder(name: str, data_folder: pathlib.Path | None) -> pathlib.Path:
    path = name and local_path(name, 'a dataset')
    if os.path.isdir(path):  # False, where pathlib would raise, if it may not be looked at
        return pathlib.Path(path).resolve()
    if os.path.basename(name) != name:
        raise UserError(f'{name}: there is no such folder')
    training_sets = _image_sets(data_folder, 'train')
    if name.lower() in training_sets:
        return training_sets[name.lower()]
    if data_folder is None:
        benchmarks = 'a benchmark (none is known: neither data_dir nor $NSR_DATA_DIR names their folder)'
    else:
        found = ', '.join(path.name for path in _image_sets(data_folder, 'test').values()) or 'none'
        benchmarks = f'a benchmark in {data_folder / "test"} (there: {found})'
        if known := find_benchmark(name):
            place = data_folder / 'test' / known.name / 'HR'
            raise UserError(f'{known} is not there: put its images into {place}; it comes from {known.origin}')
    raise UserError(
        f'unknown source {name!r}; accepted are photos, div2k, div2k/bicubic_x2 (x3, x4), {benchmarks}, '
        f'a training set ({", ".join(path.name for path in training_sets.values()) or "none is known"}), '
        'and the path of a folder of images'
    )
