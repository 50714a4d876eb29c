"""Predictions of whole images, and the authors' rule for images larger than the gate was trained on.

A gate pools over all it is given, so a network answers a whole image otherwise than its patches. Arithmetic is
float32 throughout on every backend, unless the network's own dtype is lower.
"""

import functools
from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nsr_jax.errors import UserError

TILINGS = ('whole', 'authors')

PATCH = 48  # the size of the low-resolution patches that the authors trained on
BORDER = 4  # what each patch's output loses on each side
STRIDE = PATCH - 2 * BORDER - 8
SMALLEST_SIDE = 4 * PATCH  # images with a shorter side are seen whole
EDGE_WEIGHT = 0.3


def check_tiling(tiling: str) -> str:
    """Return `tiling`; UserError if there is no such rule."""
    if tiling not in TILINGS:
        raise UserError(f'unknown tiling {tiling!r}: one of {", ".join(TILINGS)} needed')
    return tiling


@functools.partial(jax.jit, static_argnames='network')
def _whole(network: nn.Module, params, images: jax.Array) -> jax.Array:
    return network.apply({'params': params}, images)


@functools.partial(jax.jit, static_argnames='network')
def _body(network: nn.Module, params, patches: jax.Array) -> jax.Array:
    return network.apply({'params': params}, patches, method='body').astype(jnp.float32)


@functools.partial(jax.jit, static_argnames='network')
def _skip_and_assemble(network: nn.Module, params, images: jax.Array, body: jax.Array) -> jax.Array:
    skip = network.apply({'params': params}, images, method='skip').astype(jnp.float32)
    return network.apply({'params': params}, body + skip, method='assemble')


def patch_places(height: int, width: int) -> Iterator[tuple[int, int, float]]:
    """The authors' patches of an image (height, width): row and column in the padded image, and weight of each.

    A patch at (row, column) of the image padded by `BORDER` gives, once its border is removed, the pixels from
    (row, column) on of the image itself. Regular patches in the middle weigh 1, one line of patches along each edge
    weighs 0.3 and reaches what the regular ones leave out.
    """
    rows, columns = ((side + 2 * BORDER - PATCH) // STRIDE + 1 for side in (height, width))
    last_row, last_column = height + 2 * BORDER - PATCH, width + 2 * BORDER - PATCH
    spare_row, spare_column = last_row - (rows - 1) * STRIDE, last_column - (columns - 1) * STRIDE
    down, across = STRIDE * np.arange(rows), STRIDE * np.arange(columns)
    for row in down:
        for column in across:
            yield int(row) + spare_row // 2, int(column) + spare_column // 2, 1.0
    for column in across:
        yield 0, int(column), EDGE_WEIGHT
        yield last_row, int(column) + spare_column, EDGE_WEIGHT
    for row in down:
        yield int(row), last_column, EDGE_WEIGHT
        yield int(row) + spare_row, 0, EDGE_WEIGHT


def _by_patches(network: nn.Module, params, image: np.ndarray, patch_batch: int) -> np.ndarray:
    height, width = image.shape[:2]
    padded = np.pad(image, ((BORDER, BORDER), (BORDER, BORDER), (0, 0)), mode='reflect')
    places = list(patch_places(height, width))
    canvas = np.zeros((height, width, network.scale**2 * network.channels), np.float32)
    weights = np.zeros((height, width, 1), np.float32)
    kept = PATCH - 2 * BORDER
    for start in range(0, len(places), patch_batch):
        batch = places[start : start + patch_batch]
        patches = np.zeros((patch_batch, PATCH, PATCH, image.shape[-1]), np.float32)  # unused ones stay zero
        for patch, (row, column, _) in zip(patches, batch, strict=False):
            patch[:] = padded[row : row + PATCH, column : column + PATCH]
        outputs = np.asarray(_body(network, params, patches))[:, BORDER:-BORDER, BORDER:-BORDER]
        for output, (row, column, weight) in zip(outputs, batch, strict=False):
            canvas[row : row + kept, column : column + kept] += weight * output
            weights[row : row + kept, column : column + kept] += weight
    return np.asarray(_skip_and_assemble(network, params, image[None], (canvas / weights)[None]))[0]


def _network_image(image: np.ndarray, channels: int) -> np.ndarray:
    if image.ndim != 3 or image.shape[-1] not in (1, 3):
        raise UserError(f'an image must be (height, width, 1 or 3), not {image.shape}')
    if image.shape[-1] == 3 and channels == 1:
        raise UserError('a network for gray images cannot restore a colour image')
    image = image.astype(np.float32) / 255 if image.dtype == np.uint8 else image.astype(np.float32)
    return np.repeat(image, channels, axis=-1) if image.shape[-1] < channels else image


def predict(
    network: nn.Module, params, image: np.ndarray, *, tiling: str = 'whole', patch_batch: int = 16
) -> np.ndarray:
    """Restore one image.

    Args:
        network: a `RestorationNetwork`.
        params: its parameters, those of the 'params' collection; an argument of the compiled functions, so that new
          parameters cost no compilation.
        image: (H, W, C), uint8 or float on [0, 1]; gray is replicated for a network of colours.
        tiling: 'whole': the image at once, compiled once for each size. 'authors': the paper's code: where the network
          has gates and both sides are at least 192, all but the skip convolution runs on 48x48 patches, whose weighted
          mean is the output; otherwise the image at once.
        patch_batch: how many patches run at once; always that many, so that one compilation serves all images.

    Returns:
        float32 (scale H, scale W, the network's channels), nominally on [0, 1], not clipped.

    Raises:
        UserError: the tiling is unknown, or the image's shape or channels do not fit.
    """
    check_tiling(tiling)
    image = _network_image(image, network.channels)
    # Without this, GPUs would multiply in TF32, which moves scores.
    with jax.default_matmul_precision('float32'):
        if tiling == 'authors' and network.groups > 1 and min(image.shape[:2]) >= SMALLEST_SIDE:
            return _by_patches(network, params, image, patch_batch)
        return np.asarray(_whole(network, params, image[None]), np.float32)[0]
