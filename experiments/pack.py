"""Put together what a bare machine needs for some comparisons: the images as they are, and wheels that it lacks.

    NSR_DATA_DIR=... python -m experiments.pack --runs=sr_x2_nsr,sr_x2

The images are the original files: nothing that can be made of them is smaller, and the machine makes its array_record
files of them in seconds, by the same builder as everywhere. `--wheels` downloads for Python 3.12 on x86-64 Linux.
"""

import importlib.metadata
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence

from absl import flags

from experiments.comparisons import FOLDER, Comparison, find_comparison
from nsr_jax import command_line
from nsr_jax.atomic_files import make_output_folder
from nsr_jax.data.benchmark_sets import find_benchmark
from nsr_jax.data.training_sets import find_training_set
from nsr_jax.errors import UserError

# What training imports besides JAX with CUDA, Flax, Optax, Orbax, SciPy, Pillow, safetensors, tqdm and what they need.
WHEELS = (
    'array_record', 'dm-tree', 'docstring_parser', 'googleapis-common-protos', 'immutabledict', 'ml_collections',
    'simple-parsing', 'six', 'tensorboardX', 'tensorflow-datasets', 'tensorflow-metadata', 'termcolor', 'toml',
)  # fmt: skip
SOURCES = ('promise',)  # has no wheel, and is pure Python
PLATFORMS = ('manylinux_2_28_x86_64', 'manylinux_2_17_x86_64', 'manylinux2014_x86_64', 'manylinux1_x86_64')
LARGEST_MEBIBYTES = 64  # of what travels: the repository and all that is carried


def image_files(run: Comparison, data_dir: pathlib.Path) -> Iterator[pathlib.Path]:
    """The files that a run trains on and is scored on while it trains.

    Raises:
        UserError: one is missing.
    """
    config = run.config()
    known = find_training_set(config.data.source)
    for folder in known.folders:
        found = data_dir / 'train' / folder
        yield from known.choose(folder, sorted(found.iterdir()) if found.is_dir() else [])
    for name in config.evaluation.datasets.split(','):
        folder = data_dir / 'test' / find_benchmark(name).name
        if not folder.is_dir():
            raise UserError(f'{folder}: no such folder; it holds the images of {find_benchmark(name)}')
        partners = [folder / 'LR_bicubic' / f'X{config.model.scale}'] if config.model.scale > 1 else []
        for each in [folder / 'HR', *partners]:
            yield from sorted(path for path in each.iterdir() if path.is_file())


def pack_images(runs: Sequence[Comparison], data_dir: pathlib.Path, output: pathlib.Path) -> None:
    """Copy the runs' images into `output`/data, laid out as in `data_dir`; what else was there is removed."""
    files = dict.fromkeys(path for run in runs for path in image_files(run, data_dir))
    shutil.rmtree(output / 'data', ignore_errors=True)
    for path in files:
        copy = output / 'data' / path.relative_to(data_dir)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def pack_wheels(output: pathlib.Path) -> None:
    """Download into `output`/wheels, in the versions that are installed here.

    Raises:
        UserError: pip fails.
    """
    shutil.rmtree(output / 'wheels', ignore_errors=True)
    pip = [sys.executable, '-m', 'pip', '--quiet', '--disable-pip-version-check']
    target = ['--only-binary=:all:', '--python-version=3.12', '--implementation=cp']
    target += [f'--platform={platform}' for platform in PLATFORMS]
    for arguments in (
        ['download', '--no-deps', *target, '--dest', str(output / 'wheels'), *map(_pinned, WHEELS)],
        ['wheel', '--no-deps', '--wheel-dir', str(output / 'wheels'), *map(_pinned, SOURCES)],
    ):
        process = subprocess.run([*pip, *arguments], capture_output=True, text=True, check=False)
        if process.returncode:
            raise UserError(f'pip {arguments[0]}: {process.stderr.strip().splitlines()[-1]}')


def _pinned(name: str) -> str:
    return f'{name}=={importlib.metadata.version(name)}'


def travelling(carried: Sequence[str | os.PathLike]) -> int:
    """Bytes of the repository's own files, without ignored ones, and of the carried paths that are there."""
    listed = subprocess.run(
        ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'], capture_output=True, check=True
    ).stdout
    paths = [pathlib.Path(os.fsdecode(name)) for name in listed.split(b'\0') if name]
    for path in map(pathlib.Path, carried):
        paths += path.rglob('*') if path.is_dir() else [path]
    return sum(path.stat().st_size for path in paths if path.is_file())


def main(argv: Sequence[str]) -> None:
    """Pack, weigh, and say how to go on."""
    if argv[1:]:
        raise UserError(f'unexpected argument {argv[1]!r}: options start with --')
    given = flags.FLAGS
    runs = [find_comparison(name) for name in given.runs]
    data_dir = os.environ.get('NSR_DATA_DIR')
    if not data_dir:
        raise UserError('NSR_DATA_DIR must name the folder of image sets')
    output = make_output_folder(given.output)
    pack_images(runs, pathlib.Path(data_dir), output)
    if given.wheels:
        pack_wheels(output)
    carried = [given.output] + sorted({f'{FOLDER}/{run.warm_start}/checkpoints' for run in runs if run.warm_start})
    if missing := [path for path in carried if not pathlib.Path(path).is_dir()]:
        raise UserError(f'{missing[0]}: not there; train it, or unpack it, before what begins with it')
    mebibytes = travelling(carried) / 2**20
    if mebibytes > LARGEST_MEBIBYTES:
        raise UserError(f'{mebibytes:.1f} MiB would travel, {LARGEST_MEBIBYTES} are allowed: pack fewer runs at a time')
    names = ','.join(run.name for run in runs)
    sys.stdout.write(f'{mebibytes:.1f} MiB travel; carry {" ".join(carried)}\n')
    sys.stdout.write(f'there: PACK={given.output} experiments/on_gpu.sh --runs={names} --seconds=500\n')


if __name__ == '__main__':
    flags.DEFINE_list('runs', None, 'Names in experiments/comparisons.py.')
    flags.DEFINE_string('output', f'{FOLDER}/pack', 'Folder to write into; ignored by git.')
    flags.DEFINE_bool('wheels', True, 'Download the wheels too; those of an earlier call stay otherwise.')
    flags.mark_flag_as_required('runs')
    command_line.run(main)
