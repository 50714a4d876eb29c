"""Write a network with its weights to one file that runs without this package: StableHLO, made by `jax.export`.

    python -m nsr_jax.export --checkpoint=runs/x2 --output=x2.stablehlo

The same file runs on CPUs, CUDA GPUs and TPUs, whatever it is written on, for every batch, height and width. What a
server has to know beside it stands in x2.stablehlo.json; docs/export.md shows how to serve.
"""

from nsr_jax import environment  # noqa: F401  before whatever imports JAX

# isort: split
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags, logging
from jax import export

import nsr_jax
from nsr_jax import command_line, shipped
from nsr_jax.atomic_files import make_output_folder, write_atomically
from nsr_jax.errors import UserError
from nsr_jax.inference.restorer import TILING
from nsr_jax.models.build import Network, build_network
from nsr_jax.models.cost import count_parameters
from nsr_jax.paths import local_path
from nsr_jax.trained import LoadedModel

PLATFORMS = ('cpu', 'cuda', 'tpu')


def export_network(network: Network, params: Any) -> export.Exported:
    """A network and its parameters as one function from images to restored images.

    What it takes and gives is what `network.apply` does: float32 (batch, height, width, channels), nominally on [0, 1],
    to float32 (batch, scale height, scale width, channels), not clipped. Batch, height and width are from 1 and may
    differ from call to call. All arithmetic is float32 on every platform, unless the network's own dtype is lower.

    A network with gates gives an image as a whole another answer than its tiles, for the gates pool over all they are
    given. That is left to the caller: the function has no tiling inside.
    """

    def restore(images: jax.Array) -> jax.Array:
        return network.apply({'params': params}, images)

    batch, height, width = export.symbolic_shape('batch, height, width')
    images = jax.ShapeDtypeStruct((batch, height, width, network.channels), jnp.float32)
    # Without a precision, GPUs would multiply in TF32, and TPUs in bfloat16.
    with jax.default_matmul_precision('float32'), _without_source_paths():
        return export.export(jax.jit(restore), platforms=PLATFORMS)(images)


@contextlib.contextmanager
def _without_source_paths() -> Iterator[None]:
    """Lower without the paths of this machine and the lines that called: the same network gives the same file."""
    option = 'jax_traceback_in_locations_limit'
    before = getattr(jax.config, option)
    jax.config.update(option, 0)
    try:
        yield
    finally:
        jax.config.update(option, before)


def write_export(model: str | os.PathLike, output: str | os.PathLike, overwrite: bool = False) -> dict[str, Any]:
    """Write a network to the file `output`, and beside it `output`.json, which describes it.

    Args:
        model: a training run's workdir, the folder of one checkpoint, or a name in `shipped.SHIPPED`.
        output: the file to write; its folder is made where it is missing.
        overwrite: whether files of these names are replaced.

    Returns:
        What is in the JSON file.

    Raises:
        UserError: there is no such model, `output` is there already, is a folder or cannot be written, or the package
            flatbuffers is missing.
    """
    path, card_path = _check_output(output, overwrite)
    if importlib.util.find_spec('flatbuffers') is None:
        raise UserError('to export, JAX needs the package flatbuffers: pip install flatbuffers')
    loaded = _load(model)
    network = build_network(loaded.config.model)
    make_output_folder(path.parent)

    exported = export_network(network, loaded.params)
    contents = bytes(exported.serialize())
    channels = network.channels
    card = {
        'file': path.name,
        'sha256': hashlib.sha256(contents).hexdigest(),
        'task': loaded.config.task,
        'scale': network.scale,
        'channels': channels,
        'input': f'float32 (batch, height, width, {channels}), nominally on [0, 1]',
        'output': f'float32 (batch, {network.scale} * height, {network.scale} * width, {channels}), not clipped',
        # What is needed to restore an image as `nsr_jax.restore` does.
        'gated': network.groups > 1,
        'tile': TILING.tile,
        'overlap': TILING.overlap,
        'platforms': list(exported.platforms),
        'calling_convention': exported.calling_convention_version,
        'versions': {'nsr_jax': nsr_jax.__version__}
        | {package: importlib.metadata.version(package) for package in ('jax', 'jaxlib')},
        'checkpoint': os.fspath(model),
        'step': loaded.step,
        'weights': loaded.kind or 'of the step',
        'parameters': count_parameters(network),
        'config': json.loads(loaded.config.to_json()),
    }
    if (name := os.fspath(model)) in shipped.SHIPPED:
        card['terms'] = shipped.read_card(name).terms
    # Whoever finds an older description beside a newer file sees it by the checksum.
    write_atomically(path, contents)
    write_atomically(card_path, json.dumps(card, indent=1, allow_nan=False) + '\n')
    return card


def _check_output(output: str | os.PathLike, overwrite: bool) -> tuple[pathlib.Path, pathlib.Path]:
    """The file and the one that describes it."""
    if os.path.isdir(output) or os.fspath(output).endswith('/'):
        raise UserError(f'--output={output} is a folder: name a file, such as x2.stablehlo')
    paths = pathlib.Path(output), pathlib.Path(f'{os.fspath(output)}.json')
    for path in paths:
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:  # a name that is too long, for one
            raise UserError(f'{path} cannot be written: {error.strerror}') from error
        if not os.path.isfile(path):
            raise UserError(f'{path} is a folder, a device or a link to nothing, not a file')
        if not overwrite:
            raise UserError(f'{path} is there already: --overwrite replaces it')
    return paths


def _load(model: str | os.PathLike) -> LoadedModel:
    parts = shipped.find_parts(model)
    if len(parts) > 1:
        raise UserError(f'--checkpoint={model} stands for {" and ".join(parts)}: name one of them')
    return shipped.load_part(parts[0])


def main(argv: Sequence[str]) -> None:
    """Command line: `--checkpoint` and `--output`."""
    if argv[1:]:
        raise UserError(f'unexpected argument {argv[1]!r}: options start with --')
    given = flags.FLAGS
    checkpoint, output = given.checkpoint, local_path(given.output, '--output')
    card = write_export(checkpoint, output, given.overwrite)
    size = os.path.getsize(output) / 1e6
    origin = f'step {card["step"]}, weights {card["weights"]}'
    logging.info('%s, %s: %.2f MB for %s in %s', checkpoint, origin, size, ', '.join(PLATFORMS), output)
    logging.info('what a server needs to know of it: %s.json', output)


if __name__ == '__main__':
    names = ', '.join(shipped.SHIPPED)
    flags.DEFINE_string('checkpoint', None, f"A training run's workdir, one checkpoint's folder, or one of: {names}.")
    flags.DEFINE_string('output', None, 'File to write; its description goes beside it, with .json added to the name.')
    flags.DEFINE_bool('overwrite', False, 'Replace files that are there already.')
    flags.mark_flags_as_required(['checkpoint', 'output'])
    command_line.run(main)
