"""Restore images with a trained network.

    python -m nsr_jax.restore photo.png folder/ --output=out/ --model=runs/x2

Every image becomes a PNG file of the same stem in the output folder, gray or RGB as it came.
"""

import os
import pathlib
import sys
from collections.abc import Sequence

import flax.linen as nn
import numpy as np
import tqdm
from absl import flags, logging

from nsr_jax import command
from nsr_jax.data.images import list_images, read_image, write_image
from nsr_jax.errors import UserError
from nsr_jax.evaluation.inference import predict
from nsr_jax.evaluation.protocols import round_prediction
from nsr_jax.evaluation.tiling import Tiling
from nsr_jax.files import make_output_folder
from nsr_jax.models.build import build_network
from nsr_jax.training.checkpoints import load_model

EXIT_SOME_FAILED = 1
TILING = Tiling('feathered')  # as good as the whole image at once where measured, and its memory is bounded


def restore_image(network: nn.Module, params, image: np.ndarray) -> np.ndarray:
    """Restore one image.

    The network sees the image by feathered tiles. A network of colours is given a gray image in each of its channels,
    and their mean is the result.

    Args:
        network: a `RestorationNetwork`.
        params: its parameters, those of the 'params' collection.
        image: uint8 (H, W, C), C 1 or 3.

    Returns:
        uint8 (scale H, scale W, C), rounded.

    Raises:
        UserError: a colour image for a network of gray ones, or the network's answer is not finite.
    """
    prediction = predict(network, params, image, tiling=TILING)
    if not np.isfinite(prediction).all():
        raise UserError('the network answers with values that are not finite')
    return round_prediction(prediction, image.shape[-1]).astype(np.uint8)


def plan(inputs: Sequence[str | os.PathLike], output: str | os.PathLike) -> list[tuple[pathlib.Path, pathlib.Path]]:
    """Which image becomes which file: pairs of the input's path and the output's, in the order given.

    Args:
        inputs: image files, and folders of which all images are taken.
        output: the folder of the outputs.

    Raises:
        UserError: no input, a path that is not there, a folder without images, two inputs of one stem, or an output
            that is one of the inputs.
    """
    if not inputs:
        raise UserError('nothing to restore: name image files, or folders of images')
    sources: list[pathlib.Path] = []
    for path in map(pathlib.Path, inputs):
        if not path.exists():
            raise UserError(f'{path}: no such file or folder')
        sources += list_images(path) if path.is_dir() else [path]
    identities = {_identity(source): source for source in sources}
    taken: dict[pathlib.Path, pathlib.Path] = {}
    for source in sources:
        target = pathlib.Path(output) / f'{source.stem}.png'
        if target in taken:
            raise UserError(f'{taken[target]} and {source} would both become {target}; restore them into two folders')
        if target.exists() and _identity(target) in identities:
            raise UserError(
                f'{target} would overwrite the input {identities[_identity(target)]}; give another --output'
            )
        taken[target] = source
    return [(source, target) for target, source in taken.items()]


def restore_files(inputs: Sequence[str | os.PathLike], output: str | os.PathLike, model: str | os.PathLike) -> int:
    """Restore files and folders into the folder `output`; returns how many images failed.

    An image that fails is reported on standard error, and the others are restored. Files of an earlier run are
    replaced.

    Args:
        inputs: as in `plan`.
        output: made where it is missing.
        model: a workdir, or the folder of one checkpoint.

    Raises:
        UserError: before any image is restored: as in `plan`, there is no model, or the output cannot be written.
    """
    pairs = plan(inputs, output)
    loaded = load_model(model)
    network = build_network(loaded.config.model)
    make_output_folder(output)
    logging.info('%s, step %d: %d images', loaded.path, loaded.step, len(pairs))
    failed = 0
    for source, target in tqdm.tqdm(pairs, unit='image', disable=None):
        try:
            _restore_file(network, loaded.params, source, target)
        except UserError as error:
            failed += 1
            tqdm.tqdm.write(f'error: {error}', file=sys.stderr)
    logging.info('%d of %d images restored to %s', len(pairs) - failed, len(pairs), output)
    return failed


def _restore_file(network: nn.Module, params, source: pathlib.Path, target: pathlib.Path) -> None:
    image = read_image(source)
    try:
        restored = restore_image(network, params, image)
    except UserError as error:
        raise UserError(f'{source}: {error}') from error
    write_image(target, restored)


def _identity(path: pathlib.Path) -> tuple[int, int]:
    """The same for all names of one file: links, and other spellings where capitals do not count."""
    status = path.stat()
    return status.st_dev, status.st_ino


def main(argv: Sequence[str]) -> int:
    """Command line: files and folders, `--output` and `--model`."""
    output, model = (os.path.expanduser(path) for path in (flags.FLAGS.output, flags.FLAGS.model))
    return EXIT_SOME_FAILED if restore_files(argv[1:], output, model) else 0


if __name__ == '__main__':
    flags.DEFINE_string('output', None, 'Folder to write the restored images to.')
    flags.DEFINE_string('model', None, "Folder of the network: a training run's workdir, or one checkpoint.")
    flags.mark_flags_as_required(['output', 'model'])
    command.run(main)
