"""PSNR and SSIM in float64 NumPy."""

import math

import numpy as np

from nsr_jax.errors import UserError
from nsr_jax.ops.arrays import plain_array

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_K1 = 0.01
SSIM_K2 = 0.03


def _check_shapes(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape or a.ndim not in (2, 3):
        raise UserError(
            f'cannot compare images of shapes {a.shape} and {b.shape}: two equal (H, W) or (H, W, C) needed'
        )


def psnr(a: np.ndarray, b: np.ndarray, data_range: float = 255) -> float:
    """Peak signal-to-noise ratio in dB of two images (H, W) or (H, W, C); one MSE over all their values.

    Identical images give infinity; an image with a value that is not a number gives not-a-number.

    Raises:
        UserError: the shapes differ, or the images are empty.
    """
    a, b = (plain_array(image).astype(np.float64, copy=False) for image in (a, b))
    _check_shapes(a, b)
    if not a.size:
        raise UserError(f'cannot compare images of shape {a.shape}: nothing is left of them')
    error = float(np.mean(np.square(a - b)))
    return math.inf if error == 0 else 10 * math.log10(data_range**2 / error)


def _window() -> np.ndarray:
    distance = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    weights = np.exp(-0.5 * np.square(distance / SSIM_SIGMA))
    return weights / weights.sum()


def _filter_valid(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Separable filtering of (..., H, W) where the whole window lies inside: (..., H - 10, W - 10)."""
    radius, last = len(weights) // 2, len(weights) - 1
    height, width = image.shape[-2] - last, image.shape[-1] - last
    # The window is symmetric: rows and columns at the same distance share one multiplication.
    rows = weights[radius] * image[..., radius : radius + height, :]
    for i in range(radius):
        rows += weights[i] * (image[..., i : i + height, :] + image[..., last - i : last - i + height, :])
    filtered = weights[radius] * rows[..., radius : radius + width]
    for i in range(radius):
        filtered += weights[i] * (rows[..., i : i + width] + rows[..., last - i : last - i + width])
    return filtered


def _ssim_plane(a: np.ndarray, b: np.ndarray, data_range: float) -> float:
    weights = _window()
    c1, c2 = (SSIM_K1 * data_range) ** 2, (SSIM_K2 * data_range) ** 2
    height = a.shape[0] - SSIM_WINDOW + 1
    total, strip = 0.0, 64  # in strips of rows, which stay in the cache
    for top in range(0, height, strip):
        rows = slice(top, min(top + strip, height) + SSIM_WINDOW - 1)
        x, y = a[rows], b[rows]
        mean_x, mean_y, mean_squares, mean_product = _filter_valid(np.stack([x, y, x * x + y * y, x * y]), weights)
        product, squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
        structure = (2 * (mean_product - product) + c2) / (mean_squares - squares + c2)
        total += float(np.sum(structure * (2 * product + c1) / (squares + c1)))
    return total / (height * (a.shape[1] - SSIM_WINDOW + 1))


def ssim(a: np.ndarray, b: np.ndarray, data_range: float = 255) -> float:
    """Structural similarity (Wang et al. 2004) of two images (H, W) or (H, W, C), the mean over C channels.

    11x11 Gaussian window of sigma 1.5, only windows that lie inside the image, population variance, K1 = 0.01,
    K2 = 0.03.

    Raises:
        UserError: the shapes differ, or a side is shorter than the window.
    """
    a, b = (plain_array(image).astype(np.float64, copy=False) for image in (a, b))
    _check_shapes(a, b)
    if min(a.shape[:2]) < SSIM_WINDOW or not a.size:
        raise UserError(
            f'SSIM needs images of at least {SSIM_WINDOW}x{SSIM_WINDOW} pixels, {a.shape[0]}x{a.shape[1]} left'
        )
    if a.ndim == 2:
        return _ssim_plane(a, b, data_range)
    planes = [np.ascontiguousarray(np.moveaxis(image, -1, 0)) for image in (a, b)]
    return float(np.mean([_ssim_plane(x, y, data_range) for x, y in zip(*planes, strict=True)]))
