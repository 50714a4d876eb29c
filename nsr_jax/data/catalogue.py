"""Datasets of the TFDS catalogue that were prepared elsewhere."""

import hashlib
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from nsr_jax.data.builders import ImagePairs, damage_told, quiet_tfds, undecoded
from nsr_jax.data.digests import digest_files
from nsr_jax.errors import UserError

_FEATURES = 'tensorflow_datasets.core.features.'


def catalogue_records(
    folder: pathlib.Path, split: str, tfds_dir: pathlib.Path
) -> tuple[Sequence[Mapping[str, bytes]], str]:
    """Open the newest version of a dataset, in `folder`, with the images `hr` and `lr`.

    Digests of its files are kept in `tfds_dir`.

    Returns:
        the records, undecoded, and a fingerprint of their contents.

    Raises:
        UserError: no dataset, another file format than array_record, no such split, other features, or damage.
    """
    infos = [path for path in folder.glob('*/dataset_info.json') if re.fullmatch(r'\d+\.\d+\.\d+', path.parent.name)]
    versions = sorted((path.parent for path in infos), key=lambda path: tuple(map(int, path.name.split('.'))))
    if not versions:
        raise UserError(
            f'{folder}: no prepared dataset there; prepare it with TFDS in file_format="array_record", '
            'or use the source div2k, which is built from the official zip files'
        )
    newest = versions[-1]
    with quiet_tfds(), damage_told(newest):
        _check_features(newest)
        builder = tfds.builder_from_directory(newest)
        form = builder.info.file_format
        if form != tfds.core.FileFormat.ARRAY_RECORD:
            raise UserError(f'{newest}: prepared as {form and form.value}; it must be array_record to be read here')
        if split not in builder.info.splits:
            raise UserError(f'{newest}: no split {split!r}; it has {", ".join(builder.info.splits)}')
        described: Any = builder.info.features  # a dictionary of them
        features = dict(described)
        if not all(isinstance(features.get(name), tfds.features.Image) for name in ('hr', 'lr')):
            raise UserError(f'{newest}: its features are {", ".join(features)}; the images hr and lr are needed')
        files = [newest / 'features.json', newest / 'dataset_info.json']
        files += map(pathlib.Path, builder.info.splits[split].filepaths)
        digests = digest_files(files, tfds_dir / ImagePairs.name)
        contents = json.dumps([split, [[path.name, digest] for path, digest in digests.items()]])
        fingerprint = hashlib.sha256(contents.encode()).hexdigest()[:32]
        return undecoded(builder, split, newest), f'{folder.parent.name}_{folder.name}_{split}_{fingerprint}'


def _check_features(folder: pathlib.Path) -> None:
    """Refuse foreign class names, because TFDS would import their modules, and data would choose what code runs."""
    path = folder / 'features.json'

    def check(pairs: list[tuple[str, Any]]) -> None:
        for key, name in pairs:
            is_class = key in ('pythonClassName', 'python_class_name', 'type') and isinstance(name, str)
            if is_class and not name.startswith(_FEATURES):
                raise UserError(f'{path}: refers to {name!r}, which is no feature of TFDS; refused')

    json.loads(path.read_text(encoding='utf-8'), object_pairs_hook=check)
