"""Metrics that compare two images, in float64 NumPy.

`METRICS` holds all metrics by name; a new metric is one entry:

    METRICS['mse'] = Metric(my_function, 'MSE', decimals=2, higher_is_better=False)
"""

import dataclasses
import math
from collections.abc import Callable, Iterable

import numpy as np

from nsr_jax.errors import UserError
from nsr_jax.ops.arrays import plain_array

RANGE = 255
WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03  # of SSIM
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, the finest first
MS_SSIM_SIDE = WINDOW * 2 ** (len(MS_SSIM_WEIGHTS) - 1)


@dataclasses.dataclass(frozen=True)
class Metric:
    """A number that compares a prediction with the true image, and its printed form.

    Attributes:
        function: takes two images of one shape, (H, W) or (H, W, C), uint8 or float64 on [0, 255].
        title: in tables.
        unit: of the number; '' for none.
        decimals: how many are printed.
        smallest_side: of the images that it can compare, in pixels.
    """

    function: Callable[[np.ndarray, np.ndarray], float]
    title: str
    unit: str = ''
    decimals: int = 4
    higher_is_better: bool = True
    smallest_side: int = 1

    @property
    def heading(self) -> str:
        """The title, with unit and direction (if lower is better) in brackets."""
        notes = [self.unit] * bool(self.unit) + ['lower is better'] * (not self.higher_is_better)
        return f'{self.title} ({"; ".join(notes)})' if notes else self.title

    def text(self, value: float) -> str:
        """A value as tables print it, without its unit."""
        return f'{value:.{self.decimals}f}'

    def text_with_unit(self, value: float) -> str:
        """A value with its unit: '33.67 dB'."""
        return f'{self.text(value)} {self.unit}'.rstrip()

    def merit(self, value: float) -> float:
        """The value, negated if lower is better: the better of two values has the larger merit."""
        return value if self.higher_is_better else -value


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB, from one MSE over all values of the images.

    Identical images give infinity, NaN values give NaN.

    Raises:
        UserError: the shapes differ, or the images are empty.
    """
    a, b = _checked(a, b)
    error = float(np.mean(np.square(a - b)))
    return math.inf if error == 0 else 10 * math.log10(RANGE**2 / error)


def mae(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute error over all values of the images, of a range of 255; errors as in `psnr`."""
    a, b = _checked(a, b)
    return float(np.mean(np.abs(a - b)))


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004), the mean over the channels.

    It uses an 11x11 Gaussian window of sigma 1.5, only windows inside the image, population variance, K1 = 0.01 and
    K2 = 0.03.

    Raises:
        UserError: the shapes differ, or a side is shorter than the window.
    """
    return _mean_over_channels(lambda x, y: _similarity(x, y)[0], a, b, WINDOW)


def ms_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Multi-scale structural similarity (Wang et al. 2003), the mean over the channels.

    It always uses the paper's five scales, so that scores can be compared; an image needs 176 pixels a side. Each scale
    averages 2x2 pixels of the one before; an odd last row or column is repeated first, as in the authors' code. A mean
    contrast below zero, which has no real power, counts as zero.

    Raises:
        UserError: the shapes differ, or a side is shorter than 176 pixels.
    """
    return _mean_over_channels(_ms_ssim_plane, a, b, MS_SSIM_SIDE)


def _checked(a: np.ndarray, b: np.ndarray, smallest_side: int = 1) -> tuple[np.ndarray, np.ndarray]:
    a, b = (plain_array(image).astype(np.float64, copy=False) for image in (a, b))
    if a.shape != b.shape or a.ndim not in (2, 3):
        raise UserError(
            f'cannot compare images of shapes {a.shape} and {b.shape}: two equal (H, W) or (H, W, C) needed'
        )
    if not a.size:
        raise UserError(f'cannot compare images of shape {a.shape}: they have no pixels')
    if min(a.shape[:2]) < smallest_side:
        raise UserError(
            f'images of at least {smallest_side}x{smallest_side} pixels are needed, not {a.shape[0]}x{a.shape[1]}'
        )
    return a, b


def _mean_over_channels(
    of_planes: Callable[[np.ndarray, np.ndarray], float], a: np.ndarray, b: np.ndarray, smallest_side: int
) -> float:
    a, b = _checked(a, b, smallest_side)
    if a.ndim == 2:
        return of_planes(a, b)
    planes = [np.ascontiguousarray(np.moveaxis(image, -1, 0)) for image in (a, b)]
    return float(np.mean([of_planes(x, y) for x, y in zip(*planes, strict=True)]))


def _ms_ssim_plane(a: np.ndarray, b: np.ndarray) -> float:
    product, last = 1.0, len(MS_SSIM_WEIGHTS) - 1
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        whole, structure = _similarity(a, b)
        product *= np.maximum(whole if scale == last else structure, 0) ** weight
        a, b = _halved(a), _halved(b)
    return float(product)


def _halved(image: np.ndarray) -> np.ndarray:
    height, width = image.shape
    image = np.pad(image, ((0, height % 2), (0, width % 2)), 'edge')
    return image.reshape(image.shape[0] // 2, 2, image.shape[1] // 2, 2).mean(axis=(1, 3))


def _similarity(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Means over the windows of two planes (H, W): SSIM, and its contrast and structure without luminance."""
    weights = _window()
    c1, c2 = (K1 * RANGE) ** 2, (K2 * RANGE) ** 2
    height = a.shape[0] - WINDOW + 1
    whole, without_luminance, strip = 0.0, 0.0, 64  # strips of 64 rows stay in the cache
    for top in range(0, height, strip):
        rows = slice(top, min(top + strip, height) + WINDOW - 1)
        x, y = a[rows], b[rows]
        mean_x, mean_y, mean_squares, mean_product = _filter_valid(np.stack([x, y, x * x + y * y, x * y]), weights)
        product, squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
        structure = (2 * (mean_product - product) + c2) / (mean_squares - squares + c2)
        whole += float(np.sum(structure * (2 * product + c1) / (squares + c1)))
        without_luminance += float(np.sum(structure))
    count = height * (a.shape[1] - WINDOW + 1)
    return whole / count, without_luminance / count


def _window() -> np.ndarray:
    distance = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-0.5 * np.square(distance / SIGMA))
    return weights / weights.sum()


def _filter_valid(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Separable filtering of (..., H, W) by windows inside the image: (..., H - 10, W - 10)."""
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


METRICS: dict[str, Metric] = {
    'psnr': Metric(psnr, 'PSNR', unit='dB', decimals=2),
    'ssim': Metric(ssim, 'SSIM', smallest_side=WINDOW),
    'ms_ssim': Metric(ms_ssim, 'MS-SSIM', smallest_side=MS_SSIM_SIDE),
    'mae': Metric(mae, 'MAE', unit='of 255', decimals=3, higher_is_better=False),
}


def find_metrics(names: Iterable[str]) -> dict[str, Metric]:
    """The metrics of these names, in their order. Raises `UserError` if a name is unknown, or there is none."""
    names = list(names)
    for name in names:
        if name not in METRICS:
            raise UserError(f'unknown metric {name!r}: one or more of {", ".join(METRICS)} needed')
    if not names:
        raise UserError(f'no metric given: one or more of {", ".join(METRICS)} needed')
    return {name: METRICS[name] for name in names}
