"""MATLAB's `imresize(image, scale, 'bicubic')` in NumPy, which makes the field's low-resolution images."""

import math

import numpy as np
import scipy.sparse

from nsr_jax.ops.arrays import plain_array

BORDERS = ('clamp', 'mirror')
KERNEL_WIDTH = 4


def imresize(image: np.ndarray, scale: float, *, border: str = 'clamp') -> np.ndarray:
    """Resize by one factor on both axes with the antialiased cubic kernel (a = -0.5), computed in float64.

    Integer images are rounded half up and clipped to their type after EACH pass, the vertical one first, which
    reproduces MATLAB's files bit by bit. Floating-point images are neither rounded nor clipped.

    Args:
        image: (H, W) or (H, W, C), any integer or floating-point type.
        scale: output size / input size; below 1 the kernel is widened by 1 / scale (antialiasing).
        border: what lies outside: 'clamp' repeats the border pixel (older MATLAB, the files of Set5, Set14 and BSD100),
            'mirror' reflects the image about its border (newer MATLAB).

    Returns:
        (ceil(H * scale), ceil(W * scale)) or the same with C, of the image's type.

    Raises:
        ValueError: a scale that is not a positive number, an unknown border, an empty image, another shape or type, or
            masked values.
    """
    image = plain_array(image)
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f'scale must be a positive number, got {scale}')
    if border not in BORDERS:
        raise ValueError(f'border must be one of {", ".join(BORDERS)}, got {border!r}')
    if image.ndim not in (2, 3) or image.size == 0:
        raise ValueError(f'image must be (H, W) or (H, W, C) and not empty, got shape {image.shape}')
    if not (np.issubdtype(image.dtype, np.integer) or np.issubdtype(image.dtype, np.floating)):
        raise ValueError(f'image must be of an integer or floating-point type, got {image.dtype}')
    resized = _resize_first_axis(image, scale, border)
    return np.ascontiguousarray(_resize_first_axis(resized.swapaxes(0, 1), scale, border).swapaxes(0, 1))


def _resize_first_axis(image: np.ndarray, scale: float, border: str) -> np.ndarray:
    """One pass: (N, ...) to (ceil(N * scale), ...), rounded and clipped if the type is an integer one."""
    weights = _resize_matrix(image.shape[0], scale, border)
    columns = image.reshape(image.shape[0], -1).astype(np.float64)
    resized = weights @ columns
    resized = resized.reshape(len(resized), *image.shape[1:])
    if np.issubdtype(image.dtype, np.integer):
        limits = np.iinfo(image.dtype)
        resized = np.clip(np.floor(resized + 0.5), limits.min, limits.max)
    return resized.astype(image.dtype)


def _resize_matrix(size: int, scale: float, border: str) -> scipy.sparse.csr_array:
    """The sparse (ceil(size * scale), size) matrix of one pass; every row sums to 1.

    A border pixel may occur several times in a row. Rows are summed from left to right on every machine: the last bit
    decides how a sum near a half is rounded, and in a dense matrix product the BLAS would decide the last bit.
    """
    shrink = min(scale, 1.0)
    width = KERNEL_WIDTH / shrink
    output_size = math.ceil(size * scale)
    centres = (np.arange(output_size) + 0.5) / scale - 0.5
    first = np.floor(centres - width / 2).astype(np.int64)
    indices = first[:, None] + np.arange(math.ceil(width) + 2)
    weights = cubic((centres[:, None] - indices) * shrink)
    weights /= weights.sum(axis=1, keepdims=True)
    if border == 'clamp':
        indices = np.clip(indices, 0, size - 1)
    else:
        indices = indices % (2 * size)
        indices = np.where(indices < size, indices, 2 * size - 1 - indices)
    row_starts = np.arange(output_size + 1) * indices.shape[1]
    return scipy.sparse.csr_array((weights.ravel(), indices.ravel(), row_starts), shape=(output_size, size))


def cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = -0.5, non-zero on (-2, 2)."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))
