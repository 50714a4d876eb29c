"""Write a network with its weights to one file that runs without this package: StableHLO, made by `jax.export`.

    python -m nsr_jax.export --checkpoint=runs/x2 --output=x2.stablehlo

The same file runs on CPUs, CUDA GPUs and TPUs, for every batch, height and width. x2.stablehlo.json describes it for a
server; docs/export.md shows how to serve it.
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
from nsr_jax.trained import WHICH

PLATFORMS = ('cpu', 'cuda', 'tpu')


def export_network(network: Network, params: Any) -> export.Exported:
    """A network and its parameters as one function from images to restored images, like `network.apply`.

    It maps float32 (batch, height, width, channels), nominally on [0, 1], to float32 (batch, scale height, scale width,
    channels), not clipped. Batch, height and width are at least 1 and may differ from call to call. All arithmetic is
    float32 on every platform, unless the network's own dtype is lower.

    Gates pool over their whole input, so a network with gates restores a whole image differently from its tiles. The
    function does no tiling: this is left to the caller.
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
    """Lower without the paths and lines of this machine's source code: the same network gives the same file."""
    option = 'jax_traceback_in_locations_limit'
    before = getattr(jax.config, option)
    jax.config.update(option, 0)
    try:
        yield
    finally:
        jax.config.update(option, before)


def write_export(
    model: str | os.PathLike, output: str | os.PathLike, overwrite: bool = False, which: str = 'best'
) -> dict[str, Any]:
    """Write a network to the file `output`, and its description to `output`.json.

    Args:
        model: the folder of a training run or of one checkpoint, or a name in `shipped.SHIPPED`.
        output: the file to write; its folder is made if it is missing.
        overwrite: whether existing files are replaced.
        which: of a training run's checkpoints to take: the best one, or the last one ('last').

    Returns:
        The contents of the JSON file.

    Raises:
        UserError: there is no such model; `output` exists, is a folder or cannot be written; or the package flatbuffers
            is missing.
    """
    path, card_path = _check_output(output, overwrite)
    if importlib.util.find_spec('flatbuffers') is None:
        raise UserError('to export, JAX needs the package flatbuffers: pip install flatbuffers')
    parts = shipped.find_parts(model)
    if len(parts) > 1:
        raise UserError(f'--checkpoint={model} stands for {" and ".join(parts)}: name one of them')
    loaded = shipped.load_part(parts[0], which)
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
        # For restoring images as `nsr_jax.restore` does.
        'gated': network.is_gated,
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
    # If only the first file is written, the checksum in the second one shows it.
    write_atomically(path, contents)
    write_atomically(card_path, json.dumps(card, indent=1, allow_nan=False) + '\n')
    return card


def _check_output(output: str | os.PathLike, overwrite: bool) -> tuple[pathlib.Path, pathlib.Path]:
    """The paths of the file and of its description."""
    if os.path.isdir(output) or os.fspath(output).endswith('/'):
        raise UserError(f'--output={output} is a folder: name a file, such as x2.stablehlo')
    paths = pathlib.Path(output), pathlib.Path(f'{os.fspath(output)}.json')
    for path in paths:
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:  # for example a name that is too long
            raise UserError(f'{path} cannot be written: {error.strerror}') from error
        if not os.path.isfile(path):
            raise UserError(f'{path} is a folder, a device or a link to nothing, not a file')
        if not overwrite:
            raise UserError(f'{path} already exists: --overwrite replaces it')
    return paths


def main(argv: Sequence[str]) -> None:
    """Command line: `--checkpoint` and `--output`."""
    if argv[1:]:
        raise UserError(f'unexpected argument {argv[1]!r}: options start with --')
    given = flags.FLAGS
    checkpoint, output = given.checkpoint, local_path(given.output, '--output')
    card = write_export(checkpoint, output, given.overwrite, given.which)
    size = os.path.getsize(output) / 1e6
    origin = f'step {card["step"]}, weights {card["weights"]}'
    logging.info('%s, %s: %.2f MB for %s in %s', checkpoint, origin, size, ', '.join(PLATFORMS), output)
    logging.info('its description for a server: %s.json', output)


if __name__ == '__main__':
    names = ', '.join(shipped.SHIPPED)
    flags.DEFINE_string('checkpoint', None, f'The folder of a training run or of one checkpoint, or one of: {names}.')
    flags.DEFINE_enum('which', 'best', WHICH, "Of a training run's checkpoints to take.")
    flags.DEFINE_string('output', None, 'File to write; its description gets the same name with .json added.')
    flags.DEFINE_bool('overwrite', False, 'Replace existing files.')
    flags.mark_flags_as_required(['checkpoint', 'output'])
    command_line.run(main)
