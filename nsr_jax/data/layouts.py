"""The files of each source: lists of images and their inputs, as they lie on disk."""

import importlib.util
import pathlib
import zipfile
from collections.abc import Mapping, Sequence

from nsr_jax.data.builders import ImageFile, ImagePair
from nsr_jax.data.training_sets import TrainingSet
from nsr_jax.errors import UserError, listed
from nsr_jax.images.reading import check_name, list_images, list_photos

# Colour photographs that come with scikit-image, in a fixed split, so that scores can be compared.
PHOTOS = {
    'train': (
        'astronaut.png',
        'hubble_deep_field.jpg',
        'ihc.png',
        'motorcycle_left.png',
        'motorcycle_right.png',
        'retina.jpg',
        'rocket.jpg',
    ),
    'held_out': ('chelsea.png', 'coffee.png'),
}
# The folders of low-resolution partners, by the border that they were made with.
LR_FOLDERS = {'clamp': 'LR_bicubic', 'mirror': 'LR_bicubic_newmatlab'}
DIV2K_URL = 'https://data.vision.ee.ethz.ch/cvl/DIV2K/'
DIV2K_SPLITS = {'train': 'train', 'validation': 'valid'}
DIV2K_SCALES = (2, 3, 4)


def photos(split: str) -> list[ImagePair]:
    """The photographs in scikit-image's wheel, without inputs.

    Raises:
        UserError: scikit-image, or one of its photographs, is not installed.
    """
    package = importlib.util.find_spec('skimage')
    if package is None or package.origin is None:
        raise UserError('photos: these images come with scikit-image, which is not installed: pip install scikit-image')
    folder = pathlib.Path(package.origin).parent / 'data'
    missing = [name for name in PHOTOS[split] if not (folder / name).is_file()]
    if missing:
        raise UserError(f'photos: the installed scikit-image lacks {", ".join(missing)} in {folder}')
    return [ImagePair(ImageFile(folder / name)) for name in PHOTOS[split]]


def is_folder_of_pairs(folder: pathlib.Path) -> bool:
    """Whether a folder holds the two folders that `folder_of_pairs` reads."""
    return all((folder / name).is_dir() for name in ('input', 'target'))


def folder_of_pairs(folder: pathlib.Path) -> list[ImagePair]:
    """The photographs in `target/` and below, each with the one in `input/` whose path there is the same.

    Suffixes may differ; files are those of `list_photos`.

    Raises:
        UserError: there are no images, some have no partner, or differ from another in their suffix alone; the line
            names all.
    """
    found, twins = [], []
    for place in (folder / 'input', folder / 'target'):
        files: dict[str, ImageFile] = {}
        for path in list_photos(place):
            file = ImageFile(path, folder=place)
            first = files.setdefault(str(pathlib.PurePath(file.name).with_suffix('')), file)
            twins += [f'{place.name}/{first.name} and {file.name}'] if first != file else []
        found.append(files)
    if twins:
        raise UserError(f'{folder}: keep one of each: {listed(twins, "images have the name of another")}')
    inputs, targets = found
    alone = [f'target/{targets[name].name} has no partner in input/' for name in targets if name not in inputs]
    alone += [f'input/{inputs[name].name} has no partner in target/' for name in inputs if name not in targets]
    if alone:
        raise UserError(f'{folder}: {listed(alone, "images have no partner")}')
    return [ImagePair(file, inputs[name]) for name, file in targets.items()]


def training_set(known: TrainingSet, folders: Mapping[str, pathlib.Path]) -> list[ImagePair]:
    """The images of a known training set, sorted by name, without inputs.

    Args:
        folders: the folders that may hold them, by name in lower case.

    Raises:
        UserError: a folder or an image is missing.
    """
    paths = []
    for name in known.folders:
        if name.lower() not in folders:
            raise UserError(
                f'{known.name}: no folder train/{name} in data_dir ($NSR_DATA_DIR); it is {known.description}'
            )
        paths += known.choose(name, list_images(folders[name.lower()]))
    return [ImagePair(ImageFile(path)) for path in sorted(paths, key=lambda path: path.name)]


def benchmark(folder: pathlib.Path, scale: int, border: str) -> list[ImagePair]:
    """A folder with the images in `HR/` and, possibly, partners in a folder for the scale and border.

    That folder is `LR_bicubic/X{scale}/` (border 'clamp') or `LR_bicubic_newmatlab/X{scale}/` ('mirror'), with files
    named as the images or with x{scale} after their stems. Without it there are no inputs.

    Raises:
        UserError: there are no images, or a partner is missing.
    """
    references = list_images(folder / 'HR')
    partners = folder / LR_FOLDERS[border] / f'X{scale}'
    if scale == 1 or not partners.is_dir():
        return [ImagePair(ImageFile(path)) for path in references]
    return [ImagePair(ImageFile(path), ImageFile(_partner(path, partners, scale))) for path in references]


def _partner(reference: pathlib.Path, partners: pathlib.Path, scale: int) -> pathlib.Path:
    for name in (f'{reference.stem}.png', f'{reference.stem}x{scale}.png'):
        if (partners / name).is_file():
            return partners / name
    raise UserError(f'{partners / reference.stem}.png is missing: the low-resolution partner of {reference}')


def div2k(split: str, scale: int, folders: Sequence[pathlib.Path]) -> list[ImagePair]:
    """DIV2K with MATLAB's bicubic partners, in its official zip files, from the first of `folders` that has them.

    Raises:
        UserError: a zip file is missing or damaged, or lacks a partner, or there is no such scale.
    """
    part = DIV2K_SPLITS[split]
    if scale != 1 and scale not in DIV2K_SCALES:
        raise UserError(f'div2k: no low-resolution images for scale {scale}; there are {DIV2K_SCALES}')
    names = [f'DIV2K_{part}_HR.zip'] + ([f'DIV2K_{part}_LR_bicubic_X{scale}.zip'] if scale > 1 else [])
    complete = [folder for folder in folders if all((folder / name).is_file() for name in names)]
    if not complete:
        places = ' or '.join(map(str, folders))
        raise UserError(f'div2k: put {" and ".join(names)} in {places}; download them from {DIV2K_URL}')
    references = _members(complete[0] / names[0])
    if scale == 1:
        return [ImagePair(file) for file in references.values()]
    partners = _members(complete[0] / names[1])
    missing = [stem for stem in references if f'{stem}x{scale}' not in partners]
    if missing:
        raise UserError(f'{complete[0] / names[1]}: {missing[0]}x{scale}.png is missing')
    return [ImagePair(file, partners[f'{stem}x{scale}']) for stem, file in references.items()]


def _members(path: pathlib.Path) -> dict[str, ImageFile]:
    """The PNG files in a zip file by stem, sorted."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [pathlib.PurePosixPath(name) for name in sorted(archive.namelist())]
    except Exception as error:  # as in `ImageFile.read`
        raise UserError(f'{path}: cannot be read: {error}') from error
    images = [member for member in members if member.suffix == '.png' and not member.name.startswith('.')]
    if not images:
        raise UserError(f'{path} contains no PNG image')
    for image in images:
        check_name(str(image), path)
    return {image.stem: ImageFile(path, str(image)) for image in images}
