"""Convert a checkpoint of the method's PyTorch code into one of this library; PyTorch itself is not needed.

    python -m nsr_jax.import_torch epoch_30.pth --config=configs/sr.py:scale=2,preset=edsr_s_nsr --output=runs/x2

The config describes the network; the file must hold all of its weights and no others.
"""

from nsr_jax import environment  # noqa: F401  before whatever imports JAX

# isort: split
import os
import pathlib
import shutil
from collections.abc import Sequence

import jax
import ml_collections
import numpy as np
from absl import flags, logging
from ml_collections import config_flags

from nsr_jax import command_line, project
from nsr_jax.atomic_files import make_output_folder
from nsr_jax.errors import UserError, first_of
from nsr_jax.models.build import build_network
from nsr_jax.models.cost import parameter_shapes
from nsr_jax.paths import check_for_libraries, local_path
from nsr_jax.torch_file import read_torch_checkpoint
from nsr_jax.torch_layout import to_parameters
from nsr_jax.trained import FOLDER
from nsr_jax.training.checkpoints import save_model


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
        held = first_of([str(key) for key in contents])
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


def main(argv: Sequence[str]) -> None:
    """Command line: one PyTorch file, `--config` and `--output`."""
    if len(argv) != 2:
        raise UserError(f'give one PyTorch file, not {len(argv) - 1}')
    path, output = local_path(argv[1], 'the PyTorch file'), local_path(flags.FLAGS.output, '--output')
    import_checkpoint(path, flags.FLAGS.config, output)


if __name__ == '__main__':
    config_flags.DEFINE_config_file('config', None, 'Describes the network in the file.')
    flags.DEFINE_string('output', None, 'New or empty folder for the checkpoint.')
    command_line.require_config(project.list_configs)
    flags.mark_flag_as_required('output')
    command_line.run(main)
