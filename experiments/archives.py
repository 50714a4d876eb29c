"""What travels between machines: a run's results in one small file, and the state of an unfinished one in parts.

NAME.zip         run.json (config, pieces), metrics.jsonl, train.log, and of a finished run weights.safetensors
NAME.state.0 …   a compressed tar of all that the run goes on from, cut so that each part may travel
"""

import gzip
import io
import json
import pathlib
import tarfile
import zipfile
import zlib
from collections.abc import Sequence

import ml_collections

from nsr_jax import shipped, trained
from nsr_jax.atomic_files import make_output_folder, write_atomically
from nsr_jax.errors import UserError
from nsr_jax.models.build import build_network
from nsr_jax.models.cost import parameter_shapes
from nsr_jax.training.checkpoints import save_model
from nsr_jax.training.workdir import CONFIG

LARGEST_PART = 15 * 2**20
METRICS, PIECES, LOG, RUN, WEIGHTS = 'metrics.jsonl', 'pieces.jsonl', 'train.log', 'run.json', 'weights.safetensors'
_LONGEST_LOG = 200_000
_ZIP_DATE = (2020, 1, 1, 0, 0, 0)


def last_checkpoint(workdir: pathlib.Path) -> pathlib.Path | None:
    """The checkpoint of the last step, which is not always that of the best score; None where there is none."""
    steps = [path for path in (workdir / trained.FOLDER).glob('*') if path.name.isdigit()]
    return max(steps, key=lambda path: int(path.name), default=None)


def read_pieces(workdir: pathlib.Path) -> list[dict]:
    """How the run was trained so far: for each piece its seconds, exit code, hardware and software."""
    path = workdir / PIECES
    return [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()] if path.exists() else []


def is_finished(workdir: pathlib.Path) -> bool:
    """Whether the last piece ended because the run was done."""
    pieces = read_pieces(workdir)
    return bool(pieces) and pieces[-1]['exit_code'] == 0


def write_results(workdir: pathlib.Path, output: pathlib.Path, command: str) -> None:
    """Write `output`/NAME.zip of a run, finished or not.

    Raises:
        UserError: a finished run's weights do not fit half precision, or cannot be read.
    """
    contents = {name: (workdir / name).read_bytes() for name in (METRICS, LOG) if (workdir / name).exists()}
    if LOG in contents:
        contents[LOG] = contents[LOG][-_LONGEST_LOG:]
    run = {'name': workdir.name, 'command': command, 'finished': is_finished(workdir), 'pieces': read_pieces(workdir)}
    if run['finished']:
        model = trained.load_model(last_checkpoint(workdir))
        run |= {'step': model.step, 'config': json.loads(model.config.to_json())}
        contents[WEIGHTS] = shipped.pack(model.params)
    contents[RUN] = (json.dumps(run, indent=1) + '\n').encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, each in contents.items():
            archive.writestr(zipfile.ZipInfo(name, _ZIP_DATE), each, zipfile.ZIP_DEFLATED)
    write_atomically(output / f'{workdir.name}.zip', buffer.getvalue())


def read_results(path: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Make the workdir `folder`/NAME of a NAME.zip: logs and, of a finished run, a checkpoint of its weights.

    Raises:
        UserError: the file is something else or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            contents = {name: archive.read(name) for name in archive.namelist()}
        run = json.loads(contents.pop(RUN))
        workdir = make_output_folder(folder / run['name'])
        packed = contents.pop(WEIGHTS, None)
        contents = {name: contents[name] for name in (METRICS, LOG) if name in contents}
        pieces, finished = run['pieces'], run['finished']
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f'{path}: not the results of a run: {error!r}') from error
    if finished:
        config = ml_collections.ConfigDict(run['config'])
        params = shipped.unpack(packed, parameter_shapes(build_network(config.model)), str(path))
        save_model(workdir, params, config, run['step'])
        contents[CONFIG] = json.dumps(run['config'], indent=2) + '\n'
    contents[PIECES] = ''.join(json.dumps(piece) + '\n' for piece in pieces)
    contents[RUN] = json.dumps(run, indent=1) + '\n'
    for name, each in contents.items():
        write_atomically(workdir / name, each)
    return workdir


def write_state(workdir: pathlib.Path, output: pathlib.Path) -> None:
    """Write `output`/NAME.state.0 …: the last checkpoint, the config and the logs of an unfinished run."""
    last = last_checkpoint(workdir)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w') as archive:
        for path in [last, *(workdir / name for name in (CONFIG, METRICS, PIECES, LOG))]:
            if path is not None and path.exists():
                archive.add(path, str(path.relative_to(workdir)))
    contents = gzip.compress(buffer.getvalue(), compresslevel=1)
    for number, start in enumerate(range(0, len(contents), LARGEST_PART)):
        write_atomically(output / f'{workdir.name}.state.{number}', contents[start : start + LARGEST_PART])


def read_state(parts: Sequence[pathlib.Path], workdir: pathlib.Path) -> None:
    """Make the workdir of an unfinished run of all parts of its state.

    Raises:
        UserError: parts are missing or damaged.
    """
    numbered = sorted(parts, key=lambda path: int(path.suffix[1:]))
    try:
        contents = gzip.decompress(b''.join(path.read_bytes() for path in numbered))  # which checks the whole of it
        with tarfile.open(fileobj=io.BytesIO(contents)) as archive:
            _extract(archive, workdir)
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise UserError(f'{numbered[0]}: not the whole state of a run: {error}') from error


def _extract(archive: tarfile.TarFile, folder: pathlib.Path) -> None:
    """Write what `write_state` packs, and nothing else; Python before 3.11.4 has no filter that sees to it."""
    members = archive.getmembers()
    for member in members:
        path = pathlib.PurePosixPath(member.name)
        if path.is_absolute() or '..' in path.parts or not (member.isdir() or member.isfile()):
            raise tarfile.TarError(f'{member.name!r} in it is no file or folder of a run')
    make_output_folder(folder)
    for member in members:  # a folder stands before what is in it
        if member.isdir():
            make_output_folder(folder / member.name)
        else:
            write_atomically(folder / member.name, archive.extractfile(member).read())
