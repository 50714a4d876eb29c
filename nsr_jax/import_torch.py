"""Convert a checkpoint of the method's PyTorch code into one of this library; PyTorch itself is not needed.

    python -m nsr_jax.import_torch epoch_30.pth --config=configs/sr.py:scale=2,preset=edsr_s_nsr --output=runs/x2

The config describes the network; the file must hold all of its weights and no others.
"""

from nsr_jax import environment  # noqa: F401  before whatever imports JAX

# isort: split
import math
import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import flags, logging
from flax import traverse_util
from ml_collections import config_flags

from nsr_jax import command_line
from nsr_jax.atomic_files import make_output_folder
from nsr_jax.errors import UserError, first_of
from nsr_jax.models.build import build_network
from nsr_jax.models.cost import parameter_shapes
from nsr_jax.paths import check_for_libraries, local_path
from nsr_jax.torch_file import read_torch_checkpoint
from nsr_jax.trained import FOLDER
from nsr_jax.training.checkpoints import save_model

_MOST_LISTED = 6

# The name of each parameter within its convolution: here, and in the PyTorch file.
_LEAVES = {
    ('direction',): 'weight_v',
    ('scale',): 'weight_g',
    ('bias',): 'bias',
    ('gate', 'kernel'): 'mlp.0.weight',
    ('gate', 'bias'): 'mlp.0.bias',
}


def to_parameters(state_dict: Mapping[str, np.ndarray], shapes: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of a PyTorch file as a parameter tree of `RestorationNetwork`; it works for gradients, too.

    Args:
        state_dict: arrays by key: `weight_v (k*Cout, Cin, kh, kw)` with the filters ordered (k, d, Cout/d),
            `weight_g (k*Cout, 1, 1, 1)`, `bias (k*Cout,)`, `mlp.0.weight (k*d, Cin)`, `mlp.0.bias (k*d,)`.
        shapes: the parameter tree to fill, whose leaves have a `shape` (`parameter_shapes` of the network).

    Returns:
        A tree like `shapes` of float32 NumPy arrays.

    Raises:
        UserError: keys are missing or left over, or have other shapes; the message lists them.
    """
    leaves: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(shapes)
    expected = {_torch_key(path, shapes): (path, leaf.shape) for path, leaf in leaves.items()}
    missing = [key for key in expected if key not in state_dict]
    left_over = [key for key in state_dict if key not in expected]
    if missing or left_over:
        parts = [f'missing: {", ".join(missing)}'] if missing else []
        parts += [f'left over: {first_of(left_over, _MOST_LISTED)}'] if left_over else []
        raise UserError(f'the weights are not those of the network of the config; {"; ".join(parts)}')
    wrong, parameters = [], {}
    for key, (path, shape) in expected.items():
        array = np.asarray(state_dict[key])
        torch_shape, axes = _in_torch(path, shape)
        if array.shape == torch_shape:
            parameters[path] = np.ascontiguousarray(array.transpose(axes).reshape(shape), np.float32)
        else:
            wrong.append(f'{key} is {array.shape}, not {torch_shape}')
    if wrong:
        raise UserError(f'the weights are not those of the network of the config; {first_of(wrong, _MOST_LISTED)}')
    return traverse_util.unflatten_dict(parameters)


def import_checkpoint(path: str | pathlib.Path, config: ml_collections.ConfigDict, output: str | pathlib.Path) -> None:
    """Convert the PyTorch file `path` into a checkpoint in the folder `output`, for `trained.load_model`.

    Raises:
        UserError: the file cannot be read (see `read_torch_checkpoint`), does not hold `config.model`'s network, or
            `output` exists and is not an empty folder, or cannot be made.
    """
    output = pathlib.Path(output)
    check_for_libraries(output, '--output')
    try:
        is_free = not os.path.lexists(output) or (os.path.isdir(output) and not os.listdir(output))
    except OSError as error:
        raise UserError(f'{output}: cannot be read: {error.strerror}') from error
    if not is_free:
        raise UserError(f'{output} already exists; give --output a new or an empty folder')
    shapes = parameter_shapes(build_network(config.model))
    contents = read_torch_checkpoint(path)
    state_dict = contents.get('model_state_dict')
    if not isinstance(state_dict, dict) or not all(
        isinstance(key, str) and isinstance(array, np.ndarray) for key, array in state_dict.items()
    ):
        held = first_of([str(key) for key in contents], _MOST_LISTED)
        raise UserError(f'{path} has no model_state_dict of tensors; it holds {held}')
    try:
        parameters = to_parameters(state_dict, shapes)
    except UserError as error:
        raise UserError(f'{path}: {error}') from error
    make_output_folder(output)
    try:
        save_model(output, parameters, config, step=0)
    except BaseException:  # also Ctrl-C: the next attempt needs an empty folder
        shutil.rmtree(output / FOLDER, ignore_errors=True)
        raise
    count = sum(array.size for array in jax.tree.leaves(parameters))
    logging.info('%s: %d parameters in %d arrays -> %s', path, count, len(state_dict), output)


def _torch_key(path: tuple[str, ...], tree: Mapping[str, Any]) -> str:
    """A parameter's name in the PyTorch file, where head, blocks (from 1) and tail are one list."""
    blocks = sum(name.startswith('block_') for name in tree)
    if path[0].startswith('block_'):
        convolution = {'conv_1': 0, 'conv_2': 2}[path[1]]
        return f'body.{int(path[0].removeprefix("block_")) + 1}.body.{convolution}.{_LEAVES[path[2:]]}'
    prefix = {'head': 'body.0', 'tail': f'body.{blocks + 1}', 'skip': 'skip.0'}[path[0]]
    return f'{prefix}.{_LEAVES[path[1:]]}'


def _in_torch(path: tuple[str, ...], shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape in the PyTorch file of a parameter of `shape`, and the order of its axes here, where filters are last.

    The axis of the filters is unfolded here.
    """
    if path[-1] == 'direction':
        height, width, channels, *filters = shape
        return (math.prod(filters), channels, height, width), (2, 3, 1, 0)
    if path[-1] == 'scale':
        return (math.prod(shape), 1, 1, 1), (0, 1, 2, 3)
    if path[-2:] == ('gate', 'kernel'):
        return (math.prod(shape[1:]), shape[0]), (1, 0)
    return (math.prod(shape),), (0,)


def main(argv: Sequence[str]) -> None:
    """Command line: one PyTorch file, `--config` and `--output`."""
    if len(argv) != 2:
        raise UserError(f'give one PyTorch file, not {len(argv) - 1}')
    path, output = local_path(argv[1], 'the PyTorch file'), local_path(flags.FLAGS.output, '--output')
    import_checkpoint(path, flags.FLAGS.config, output)


if __name__ == '__main__':
    config_flags.DEFINE_config_file('config', None, 'Describes the network in the file.')
    flags.DEFINE_string('output', None, 'New or empty folder for the checkpoint.')
    flags.mark_flags_as_required(['config', 'output'])
    command_line.run(main)
