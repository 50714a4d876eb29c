"""Which image becomes which file, decided before anything is restored."""

import glob
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from absl import logging

from nsr_jax.errors import UserError
from nsr_jax.images.formats import SIGNATURE_BYTES, SUFFIXES, format_of

STANDARD = '-'  # how standard input and output are written in a command
NO_SUFFIX = '.png'  # of an output whose input does not name its format
# Raw photographs begin as TIFF files do, but cannot be restored.
_RAW = {
    '.3fr', '.arw', '.cr2', '.dcr', '.dng', '.erf', '.fff', '.iiq', '.k25', '.kdc', '.mef', '.mos', '.nef', '.nrw',
    '.pef', '.raw', '.sr2', '.srf', '.srw',
}  # fmt: skip
_SOUGHT = f'{", ".join(SUFFIXES)}, or begin as such files do'
_MOST_NAMES = 10  # of files that are passed over, in one line


class Job(NamedTuple):
    """One image to restore.

    Attributes:
        source: its file; None: standard input.
        target: the file it becomes; None: standard output.
    """

    source: pathlib.Path | None
    target: pathlib.Path | None

    @property
    def is_done(self) -> bool:
        """Whether the target is there already; a target is never there in part."""
        return self.target is not None and self.target.exists()

    @property
    def format(self) -> str | None:
        """One of `formats.FORMATS`, which the target's suffix names; None: it names none, or there is no suffix."""
        return None if self.target is None else SUFFIXES.get(self.target.suffix.lower())

    def __str__(self) -> str:
        return 'standard input' if self.source is None else str(self.source)


# An image, None for standard input, and the folder below the output that it goes into.
_Found = tuple[pathlib.Path | None, pathlib.Path]


def plan(
    inputs: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    *,
    suffix: str | None = None,
    recursive: bool = False,
) -> list[Job]:
    """Which image becomes which file, in the order given.

    An image file becomes a file of its name directly in the output folder, one of a folder keeps its place below that
    folder, and one of a pattern its place below the part of the pattern without wildcards. Files and folders that are
    there are taken by their names, whatever characters these have. In folders and patterns, a file without the suffix
    of an image is known by its first bytes; files that are no images are counted and named in one line of the log.
    Hidden files are passed over, and so is the output folder where it lies below an input: its images were restored
    already.

    Args:
        inputs: image files; folders, of which all images are taken; patterns with *, ? and [] ('**' for any folders);
            '-' for standard input.
        output: the folder of the outputs; '-' for standard output, where there is one image alone.
        suffix: of all outputs; None: each keeps the suffix of its input, and gets '.png' where that is not one of an
            image or there is no name. In folders and patterns a suffix that is not one of an image is kept before it,
            so that a.jpg_original and a.jpg do not become one file.
        recursive: whether images in folders of folders are taken too.

    Raises:
        UserError: no input, a path that is not there, a folder or pattern without images, two inputs that would become
            one file, several for standard output, or an output that is one of the inputs, is a folder, or would lie
            outside of the output folder because of a link.
    """
    if not inputs:
        raise UserError('nothing to restore: name image files, folders or patterns, or - for standard input')
    folder = None if output == STANDARD else pathlib.Path(output)
    named = {str(pathlib.Path(item)) for item in inputs}
    try:
        found = [place for item in inputs for place in _find(os.fspath(item), folder, recursive)]
        sources: dict[tuple[int, int] | None, pathlib.Path | None] = {}
        for source, _ in found:
            sources.setdefault(source and _identity(source), source)
        jobs: dict[pathlib.Path | None, Job] = {}
        for source, below in found:
            identity = source and _identity(source)
            target = folder and folder / below / _name_of_output(source, suffix, str(source) in named)
            job = Job(source, target)
            if target in jobs:
                if sources[identity] != jobs[target].source:
                    _refuse(jobs[target], job)
                continue  # named twice
            if target and target.exists() and _identity(target) in sources:
                replaced = sources[_identity(target)]
                raise UserError(f'{target} would overwrite the input {replaced}: give another --output')
            if folder and target and not target.parent.resolve().is_relative_to(folder.resolve()):
                raise UserError(f'{target.parent}: a link in {folder} leads out of it')
            if target and target.is_dir():
                raise UserError(f'{target} is a folder: {job} cannot become it')
            jobs[target] = job
    except OSError as error:
        raise UserError(f'{error.filename}: cannot be looked at: {error.strerror}') from error
    return list(jobs.values())


def _name_of_output(source: pathlib.Path | None, suffix: str | None, is_named: bool) -> str:
    if source is None:
        return f'stdin{suffix or NO_SUFFIX}'
    if source.suffix.lower() in SUFFIXES:
        return source.stem + (suffix or source.suffix)
    return (source.stem if is_named else source.name) + (suffix or NO_SUFFIX)


def _find(item: str, output: pathlib.Path | None, recursive: bool) -> Iterator[_Found]:
    """The images that one argument names."""
    path, here = pathlib.Path(item), pathlib.Path()
    if item == STANDARD:
        yield None, here
    elif path.is_dir():
        images = _images(_walk(path, recursive), path, output)
        if not images:
            raise UserError(f'{item}: no image in this folder; files are sought that end in {_SOUGHT}')
        yield from ((image, image.parent.relative_to(path)) for image in images)
    elif path.exists():
        yield path, here
    elif glob.has_magic(item):
        base, pattern = _split_pattern(path)
        matches = glob.iglob(pattern, root_dir=base, recursive=True)
        images = _images((base / match for match in matches), base, output)
        if not images:
            raise UserError(f'{item}: no image matches; files are sought that end in {_SOUGHT}')
        yield from ((image, image.parent.relative_to(base)) for image in images)
    else:
        raise UserError(f'{item}: no such file or folder')


def _split_pattern(path: pathlib.Path) -> tuple[pathlib.Path, str]:
    """The folder that a pattern begins in, whatever characters its name has, and the pattern below it."""
    base = pathlib.Path()
    for count, part in enumerate(path.parts):
        if glob.has_magic(part) and not (base / part).is_dir():
            return base, os.path.join(*path.parts[count:])
        base /= part
    raise UserError(f'{path}: no such file or folder')


def _walk(folder: pathlib.Path, recursive: bool) -> Iterator[pathlib.Path]:
    """All files of a folder, and of those below it; links to folders are not followed: they may lead back."""

    def give_up(error: OSError) -> None:
        raise error

    for root, folders, names in os.walk(folder, onerror=give_up):
        yield from (pathlib.Path(root, name) for name in names)
        if not recursive:
            folders.clear()


def _images(paths: Iterator[pathlib.Path], base: pathlib.Path, output: pathlib.Path | None) -> list[pathlib.Path]:
    """The image files among paths below `base`, sorted; the log names the others."""
    made = output.resolve() if output else None
    is_inside = made is not None and base.resolve() in made.parents
    images, others = [], []
    for path in paths:
        is_hidden = any(part.startswith('.') for part in path.relative_to(base).parts)
        if is_hidden or path.is_dir() or (is_inside and made in path.resolve().parents):
            continue
        (images if _is_image(path) else others).append(path)
    if others:
        names = ', '.join(repr(str(path.relative_to(base))) for path in sorted(others)[:_MOST_NAMES])
        more = f' and {len(others) - _MOST_NAMES} more' if len(others) > _MOST_NAMES else ''
        logging.info('%s: %d files that are no images are passed over: %s%s', base, len(others), names, more)
    return sorted(images)


def _is_image(path: pathlib.Path) -> bool:
    """Whether it is one by its suffix or its first bytes; pipes and devices, which may wait, are not opened."""
    if not path.is_file():
        return False
    if path.suffix.lower() in SUFFIXES:
        return True
    if path.suffix.lower() in _RAW:
        return False
    try:
        with path.open('rb') as file:
            return format_of(file.read(SIGNATURE_BYTES)) is not None
    except OSError:
        return False


def _refuse(first: Job, second: Job) -> None:
    if first.target is None:
        raise UserError('standard output takes one image alone: give a folder as --output')
    raise UserError(f'{first} and {second} would both become {first.target}: restore them into two folders')


def _identity(path: pathlib.Path) -> tuple[int, int]:
    """The same for all names of one file: links, and other spellings where capitals do not count."""
    status = path.stat()
    return status.st_dev, status.st_ino
