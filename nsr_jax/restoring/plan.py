"""Decides which image becomes which file before anything is restored."""

import glob
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from absl import logging

from nsr_jax.errors import UserError, first_of
from nsr_jax.images.formats import SIGNATURE_BYTES, SUFFIXES, format_of

STANDARD = '-'  # stands for standard input and output
NO_SUFFIX = '.png'  # of an output whose input does not name its format
# Raw photographs begin as TIFF files do, but cannot be restored.
_RAW = {
    '.3fr', '.arw', '.cr2', '.dcr', '.dng', '.erf', '.fff', '.iiq', '.k25', '.kdc', '.mef', '.mos', '.nef', '.nrw',
    '.pef', '.raw', '.sr2', '.srf', '.srw',
}  # fmt: skip
_SOUGHT = f'images are files that end in {", ".join(SUFFIXES)}, or that begin as such files do'


class Job(NamedTuple):
    """One image to restore.

    Attributes:
        source: the input file; None: standard input.
        target: the output file; None: standard output.
    """

    source: pathlib.Path | None
    target: pathlib.Path | None

    @property
    def is_done(self) -> bool:
        """Whether the target exists; targets are never written in part."""
        return self.target is not None and self.target.exists()

    @property
    def size(self) -> int:
        """Bytes of the input; 0 if it is standard input, or gone."""
        return self.source.stat().st_size if self.source and self.source.exists() else 0

    @property
    def format(self) -> str | None:
        """The one of `formats.FORMATS` that the target's suffix names; None: it names none."""
        return None if self.target is None else SUFFIXES.get(self.target.suffix.lower())

    def __str__(self) -> str:
        return 'standard input' if self.source is None else str(self.source)


def plan(
    inputs: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    *,
    suffix: str | None = None,
    ending: str = '',
    recursive: bool = False,
) -> list[Job]:
    """The images to restore and the files they become, in the order of the inputs.

    An input that is a file goes directly into the output folder; an image in a folder keeps its place below that
    folder, and one that matches a pattern its place below the part of the pattern without wildcards. A name of an
    existing file or folder is never a pattern. In folders and patterns, files without an image's suffix are recognized
    by their first bytes, and the log counts and names files that are not images. Hidden files are skipped, and so is an
    output folder inside an input, because its images have been restored already.

    Args:
        inputs: image files; folders, for all images in them; patterns with *, ? and [] ('**' for any folders); '-' for
            standard input.
        output: the folder of the outputs; or the output file, if it has an image's suffix, there is no folder of this
            name, and the only input is one file or standard input; '-' for standard output, which takes one image.
        suffix: of all outputs; None: each keeps the suffix of its input, or gets '.png' if that is not an image's or
            there is no name. In folders and patterns, a suffix that is not an image's is kept before it, so that
            a.jpg_original and a.jpg do not become one file.
        ending: added to the names of the outputs, before the suffix.
        recursive: whether to take images in subfolders too.

    Raises:
        UserError: there is no input; a path does not exist; a folder or pattern has no images; two inputs would become
            one file; standard output would get several; an output is an input or a folder, or lies outside of the
            output folder because of a link; or an ending or a suffix does not fit.
    """
    if not inputs:
        raise UserError('nothing to restore: name image files, folders or patterns, or - for standard input')
    if '/' in ending or '\0' in ending:
        raise UserError(f'--suffix={ending}: an ending of file names has no / in it')
    if is_file(inputs, output):
        return [_job_of_file(inputs[0], pathlib.Path(output), suffix, ending)]
    if ending and output == STANDARD:
        raise UserError(f'--suffix={ending} is for names of files: standard output has none')
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
            target = folder and folder / below / _name_of_output(source, suffix, ending, str(source) in named)
            job = Job(source, target)
            if target in jobs:
                if sources[identity] == jobs[target].source:
                    continue  # named twice
                if target is None:
                    raise UserError('standard output takes only one image: give a folder as --output')
                raise UserError(f'{jobs[target]} and {job} would both become {target}: restore them into two folders')
            if target and target.exists() and _identity(target) in sources:
                replaced = sources[_identity(target)]
                raise UserError(f'{target} would overwrite the input {replaced}: give another --output')
            if folder and target and not target.parent.resolve().is_relative_to(folder.resolve()):
                raise UserError(f'{target.parent}: a link in {folder} leads out of it')
            if target and target.is_dir():
                raise UserError(f'{target} is a folder: {job} cannot be restored to it')
            jobs[target] = job
    except OSError as error:
        raise UserError(f'{error.filename}: cannot be read: {error.strerror}') from error
    return list(jobs.values())


def is_file(inputs: Sequence[str | os.PathLike], output: str | os.PathLike) -> bool:
    """Whether `output` names the file of the only output, as `plan` understands it."""
    name = os.fspath(output)
    if pathlib.Path(name).suffix.lower() not in SUFFIXES or name.endswith('/') or os.path.isdir(name):
        return False
    return len(inputs) == 1 and (inputs[0] == STANDARD or os.path.isfile(inputs[0]))


def _job_of_file(item: str | os.PathLike, target: pathlib.Path, suffix: str | None, ending: str) -> Job:
    source = None if item == STANDARD else pathlib.Path(item)
    if ending:
        raise UserError(f'--suffix={ending} is for a folder as --output: {target} is the whole name')
    if suffix and SUFFIXES[suffix] != SUFFIXES[target.suffix.lower()]:
        raise UserError(f'--output={target} does not fit --format={SUFFIXES[suffix].lower()}')
    if source and target.exists() and target.samefile(source):
        raise UserError(f'{target} would overwrite the input {source}: give another --output')
    return Job(source, target)


def _name_of_output(source: pathlib.Path | None, suffix: str | None, ending: str, is_named: bool) -> str:
    if source is None:
        return f'stdin{ending}{suffix or NO_SUFFIX}'
    if source.suffix.lower() in SUFFIXES:
        return source.stem + ending + (suffix or source.suffix)
    return (source.stem if is_named else source.name) + ending + (suffix or NO_SUFFIX)


def _find(item: str, output: pathlib.Path | None, recursive: bool) -> list[tuple[pathlib.Path | None, pathlib.Path]]:
    """The images that one argument names (None for standard input), each with its place below the output folder."""
    path = pathlib.Path(item)
    if item == STANDARD:
        return [(None, pathlib.Path())]
    if path.is_dir():
        base, files = path, _walk(path, recursive)
    elif path.exists():
        return [(path, pathlib.Path())]
    elif glob.has_magic(item):
        base, pattern = _split_pattern(path)
        files = (base / match for match in glob.iglob(pattern, root_dir=base, recursive=True))
    else:
        raise UserError(f'{item}: no such file or folder')
    images = _images(files, base, output)
    if not images:
        raise UserError(f'{item}: no image {"in this folder" if path == base else "matches"}; {_SOUGHT}')
    return [(image, image.parent.relative_to(base)) for image in images]


def _split_pattern(path: pathlib.Path) -> tuple[pathlib.Path, str]:
    """The existing folder that a pattern begins with, whatever characters it has, and the rest of the pattern."""
    base = pathlib.Path()
    for count, part in enumerate(path.parts):
        if glob.has_magic(part) and not (base / part).is_dir():
            return base, os.path.join(*path.parts[count:])
        base /= part
    raise UserError(f'{path}: no such file or folder')


def _walk(folder: pathlib.Path, recursive: bool) -> Iterator[pathlib.Path]:
    """All files of a folder, and of those below it; links to folders are not followed because they may lead back."""

    def give_up(error: OSError) -> None:
        raise error

    for root, folders, names in os.walk(folder, onerror=give_up):
        yield from (pathlib.Path(root, name) for name in names)
        if not recursive:
            folders.clear()


def _images(paths: Iterator[pathlib.Path], base: pathlib.Path, output: pathlib.Path | None) -> list[pathlib.Path]:
    """The image files among paths below `base`, sorted; the log names other files."""
    made = output.resolve() if output else None
    is_inside = made is not None and base.resolve() in made.parents
    images, others = [], []
    for path in paths:
        is_hidden = any(part.startswith('.') for part in path.relative_to(base).parts)
        if is_hidden or path.is_dir() or (is_inside and made in path.resolve().parents):
            continue
        (images if _is_image(path) else others).append(path)
    if others:
        names = first_of([repr(str(path.relative_to(base))) for path in sorted(others)])
        logging.info('%s: skipping %d files that are not images: %s', base, len(others), names)
    return sorted(images)


def _is_image(path: pathlib.Path) -> bool:
    """Whether the suffix or the first bytes are an image's; pipes and devices, which may block, are not opened."""
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


def _identity(path: pathlib.Path) -> tuple[int, int]:
    """Equal for all names of one file: links, and other spellings if the file system ignores case."""
    status = path.stat()
    return status.st_dev, status.st_ino
