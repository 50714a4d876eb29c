"""Super-resolution: images shrunk by MATLAB's bicubic `imresize` are enlarged."""

import functools

import numpy as np

from nsr_jax.errors import UserError
from nsr_jax.ops.colour import rgb_to_y, rgb_to_y_uint8
from nsr_jax.ops.imresize import imresize
from nsr_jax.tasks.task import Example, Predictor, Protocol, Task, published_rows

# The authors' weights of R, G and B sum to 0.859, so differences of their Y are smaller than those of the image.
AUTHORS_Y_WEIGHTS = np.array([0.257, 0.504, 0.098])


def luma(image: np.ndarray) -> np.ndarray:
    """Y as MATLAB's `rgb2ycbcr` gives it, uint8 (H, W, 1), of a uint8 image (H, W, 1 or 3); gray stays as it is."""
    return image if image.shape[-1] == 1 else rgb_to_y_uint8(image)[..., None]


def low_resolution(example: Example, scale: float) -> np.ndarray:
    """The example's own low-resolution image, uint8 (h, w, C)."""
    if example.lr is None:
        raise UserError(f'there is no low-resolution image at scale {scale:g}; super-resolution needs it')
    return example.lr


def _authors_low_resolution(example: Example, scale: float) -> np.ndarray:
    """What the authors gave their network, uint8 (h, w, C): of DIV2K its own images, of other sets their own resize.

    Theirs is bicubic, with a mirrored border and one rounding at the end, half to even.
    """
    if example.collection == 'DIV2K' or example.lr is None:
        return low_resolution(example, scale)
    resized = imresize(example.hr.astype(np.float64), 1 / int(scale), border='mirror')
    return np.rint(resized).clip(0, 255).astype(np.uint8)


def _y(image: np.ndarray) -> np.ndarray:
    return image[..., 0] if image.shape[-1] == 1 else np.asarray(rgb_to_y(image))


def _authors_y(image: np.ndarray) -> np.ndarray:
    # PSNR depends on differences alone; the constant 16 matters to SSIM.
    return image[..., 0] if image.shape[-1] == 1 else image @ AUTHORS_Y_WEIGHTS + 16


_protocol = functools.partial(Protocol, shave=lambda scale: scale, gray_as_colour=True)
SR_Y = _protocol(
    'sr-y',
    'Y (BT.601, not rounded) of the prediction rounded to uint8, shave = scale',
    low_resolution,
    compared=_y,
)
SR_Y_UINT8 = _protocol(
    'sr-y-uint8',
    'Y (BT.601, rounded to uint8 as by MATLAB) of the prediction rounded to uint8, shave = scale',
    low_resolution,
    compared=luma,
)
SR_RGB = _protocol(
    'sr-rgb',
    'RGB with one MSE over the channels, prediction rounded to uint8, shave = scale + 6',
    low_resolution,
    shave=lambda scale: scale + 6,
    comparable=False,
)
SR_LUMA = _protocol(
    'sr-luma',
    'Y alone, for networks of one channel: Y (BT.601, rounded to uint8 as by MATLAB) of the low-resolution image is '
    'given, the prediction rounded to uint8 is compared with Y of the true one, shave = scale',
    lambda example, scale: luma(low_resolution(example, scale)),
    truth=luma,
)
AUTHORS = _protocol(
    'authors',
    "Y with the authors' weights .257 .504 .098, not rounded, of the prediction rounded to uint8, shave = scale; "
    "low resolution by the authors' own resize (DIV2K: official)",
    _authors_low_resolution,
    compared=_authors_y,
    comparable=False,
)


def bicubic(scale: float) -> Predictor:
    """Enlargement of uint8 images by MATLAB's bicubic `imresize`, to float64 on [0, 1]."""
    return lambda image: imresize(image, int(scale)) / 255


_DIV2K, _IMAGES_291 = 'DIV2K', '91 + 200 images'
_ALL = ('x2', 'x3', 'x4')
# Networks of Y alone are given the low-resolution Y.
PUBLISHED = (
    *published_rows(
        'Bicubic', '', 'sr-y-uint8', _ALL,
        Set5='33.66 30.39 28.42', Set14='30.24 27.55 26.00', BSD100='29.56 27.21 25.96',
        Urban100='26.87 24.45 23.14', Manga109='30.80 26.95 24.89',
    ),
    *published_rows(
        'EDSR-S + NSR', _DIV2K, 'authors', _ALL,
        Set5='38.11 34.50 32.26', BSD100='32.22 29.14 27.61', Urban100='32.58 28.45 26.18',
        Manga109='38.95 33.76 30.62',
    ),
    *published_rows(
        'WDSR-S', _DIV2K, 'authors', _ALL,
        Set5='38.08 34.45 32.22', BSD100='32.23 29.14 27.61', Urban100='32.34 28.33 26.21',
    ),
    *published_rows(
        'EDSR-baseline', _DIV2K, 'sr-y-uint8', ('x2', 'x4'),
        Set5='37.99/.9604 32.09/.8938', Set14='33.57/.9175 28.58/.7813', BSD100='32.16/.8994 27.57/.7357',
        Urban100='31.98/.9272 26.04/.7849',
    ),
    *published_rows(
        'IDN (DIV2K)', _DIV2K, 'sr-luma', ('x2',), Set5='37.85', Set14='33.58', BSD100='32.11', Urban100='31.95'
    ),
    *published_rows(
        'IMDN', _DIV2K, 'sr-y-uint8', ('x2', 'x4'),
        Set5='38.00 32.21', Set14='33.63 28.58', BSD100='32.19 27.56', Urban100='32.17 26.04',
    ),
    *published_rows(
        'SwinIR-light', _DIV2K, 'sr-y', _ALL,
        Set5='38.14 34.62 32.44', Set14='33.86 30.54 28.77', BSD100='32.31 29.20 27.69', Urban100='32.76 28.66 26.47',
    ),
    *published_rows(
        'VDSR', _IMAGES_291, 'sr-luma', _ALL,
        Set5='37.53/.9590 33.67/.9210 31.35/.8830', Set14='33.05 29.78 28.02', BSD100='31.90 28.83 27.29',
        Urban100='30.77 27.14 25.18',
    ),
    *published_rows(
        'DRRN', _IMAGES_291, 'sr-luma', _ALL,
        Set5='37.74 34.03 31.68', Set14='33.23 29.96 28.21', BSD100='32.05 28.95 27.38', Urban100='31.23 - -',
    ),
    *published_rows(
        'IDN', _IMAGES_291, 'sr-luma', _ALL,
        Set5='37.83 34.11 31.82', Set14='33.30 29.99 28.25', BSD100='32.08 28.95 27.41', Urban100='31.27 27.42 25.41',
    ),
    *published_rows(
        'MemNet', _IMAGES_291, 'sr-luma', ('x2',), Set5='37.78', Set14='33.28', BSD100='32.08', Urban100='31.31'
    ),
    *published_rows(
        'DnCNN-3', _IMAGES_291, 'sr-luma', ('x2',), Set5='37.58', Set14='33.03', BSD100='31.90', Urban100='30.74'
    ),
)  # fmt: skip

TASK = Task(
    name='sr',
    protocols=(SR_Y, SR_Y_UINT8, SR_RGB, SR_LUMA, AUTHORS),
    scales=(2, 3, 4),
    inputs='shrunk',
    baselines={'bicubic': bicubic},
    published=PUBLISHED,
)
