"""Denoising: a network removes white Gaussian noise of a known or unknown standard deviation."""

import dataclasses
import hashlib
import importlib
import numbers

import jax
import jax.numpy as jnp
import numpy as np

from nsr_jax.errors import UserError
from nsr_jax.ops.colour import rgb_to_gray_uint8
from nsr_jax.tasks.task import Predictor, Protocol, Task, check_range, degraded, published_rows, read_range


def check_sigma(sigma: float) -> None:
    """Raise `UserError` unless a standard deviation, in 1/255 of the range, is a number from 0 to 255."""
    if not isinstance(sigma, numbers.Real) or isinstance(sigma, bool) or not 0 <= sigma <= 255:
        raise UserError(f'sigma must be a number from 0 to 255 (of 255 gray levels), not {sigma!r}')


@dataclasses.dataclass(frozen=True)
class Noise:
    """White Gaussian noise, not clipped, of a standard deviation drawn uniformly for each sample.

    It is independent in all channels, or shared by them: noise of black-and-white photographs, sepia and film that are
    stored in colour. The standard deviation of each channel is the drawn one in any case.

    Attributes:
        lowest: the smallest standard deviation, in 1/255 of the range.
        highest: the largest; equal to `lowest` for a fixed one.
        shared: the fraction of samples whose channels share noise, from 0 to 1: in half of these all channels have the
            same noise, in the others a part of it is the same, and the correlation is uniform between 0 and 1.

    Raises:
        UserError: the standard deviations are not numbers from 0 to 255, or not in this order; or the fraction is none.
    """

    lowest: float
    highest: float
    shared: float = 0.0

    def __post_init__(self):
        check_range('sigma', self.lowest, self.highest, check_sigma)
        if not isinstance(self.shared, numbers.Real) or isinstance(self.shared, bool) or not 0 <= self.shared <= 1:
            raise UserError(f'shared_noise must be a fraction of the samples, from 0 to 1, not {self.shared!r}')

    def region_size(self, patch_size: int, channels: int) -> int:
        """The side of the patch itself: noise needs no pixels around it."""
        return patch_size

    def __call__(self, key: jax.Array, region: jax.Array, patch_size: int) -> tuple[jax.Array, jax.Array]:
        """See `Corruption`."""
        if region.shape[:2] != (patch_size, patch_size):
            raise ValueError(f'region must be the patch of side {patch_size}, got {region.shape}')
        sigma_key, noise_key, correlation_key, common_key = jax.random.split(key, 4)
        sigma = jax.random.uniform(sigma_key, (), jnp.float32, self.lowest, self.highest)
        target = region.astype(jnp.float32) / 255
        noise = jax.random.normal(noise_key, target.shape, jnp.float32)
        if self.shared:
            place = jax.random.uniform(correlation_key, (), jnp.float32)
            correlation = jnp.clip(2 - 2 / self.shared * place, 0, 1)  # all, a part, or none
            common = jax.random.normal(common_key, (patch_size, patch_size, 1), jnp.float32)
            noise = jnp.sqrt(correlation) * common + jnp.sqrt(1 - correlation) * noise
        return target + sigma / 255 * noise, target


def noise(shape: tuple[int, int, int], sigma: float) -> np.ndarray:
    """The usual test noise, which has seed 0 for every image and is drawn in the order of the pixels.

    Args:
        shape: (H, W, C).
        sigma: standard deviation in 1/255 of the range.

    Returns:
        float32 (H, W, C), for images on [0, 1].
    """
    return np.random.RandomState(0).normal(0, sigma / 255, shape).astype(np.float32)


def authors_noise(shape: tuple[int, int, int], sigma: float, name: str) -> np.ndarray:
    """As `noise`, but as the authors draw it: seeded by the file's name, without its folder, channel by channel."""
    seed = np.frombuffer(hashlib.sha256(name.encode()).digest(), '<u4')
    height, width, channels = shape
    drawn = np.random.RandomState(seed).normal(0, sigma / 255, (channels, height, width))
    return np.moveaxis(drawn, 0, -1).astype(np.float32)


DENOISE = Protocol(
    'denoise',
    'all channels with one MSE, prediction rounded to uint8, no shave; noise not clipped, NumPy seed 0 for each image',
    lambda example, sigma: example.hr.astype(np.float32) / 255 + noise(example.hr.shape, sigma),
)
DENOISE_SHARED = Protocol(
    'denoise-shared',
    'all channels with one MSE, prediction rounded to uint8, no shave; noise not clipped, NumPy seed 0 for each image, '
    'the same in all channels',
    lambda example, sigma: example.hr.astype(np.float32) / 255 + noise((*example.hr.shape[:2], 1), sigma),
    comparable=False,
)
DENOISE_AUTHORS = Protocol(
    'denoise-authors',
    'all channels with one MSE, prediction rounded to uint8, no shave; noise not clipped, seeded by the SHA-256 of the '
    "file name as in the authors' code",
    lambda example, sigma: example.hr.astype(np.float32) / 255 + authors_noise(example.hr.shape, sigma, example.name),
    comparable=False,
)


def bm3d(sigma: float) -> Predictor:
    """BM3D (Dabov et al., 2007) of the `bm3d` package, which is given the noise's standard deviation (of 255).

    Raises:
        UserError: sigma is 0, or the package is not installed.
    """
    if not sigma > 0:
        raise UserError(f'baseline bm3d needs noise of a sigma above 0, not {sigma}')
    try:
        package = importlib.import_module('bm3d')
    except ImportError as error:
        raise UserError(f'baseline bm3d needs an extra: pip install nsr-jax[bm3d] ({error})') from error

    def denoise(image: np.ndarray) -> np.ndarray:
        if image.shape[-1] == 1:
            return package.bm3d(image[..., 0].astype(np.float64), sigma / 255).reshape(image.shape)
        return package.bm3d_rgb(image.astype(np.float64), sigma / 255)

    return denoise


_LEVELS = ('sigma 15', 'sigma 25', 'sigma 50')
_LARGE = 'DIV2K, Flickr2K, BSD, WED'  # the usual training images of networks of many millions of parameters
# Each paper draws its own noise of the same strength.
PUBLISHED = (
    *published_rows('BM3D', '', 'denoise', _LEVELS, Set12='32.37 29.97 26.72', BSD68='31.08 28.57 25.60'),
    *published_rows('DnCNN-S', 'Train400', 'denoise', _LEVELS, Set12='32.86 30.44 27.18', BSD68='31.73 29.23 26.23'),
    *published_rows(
        'NLRN', 'BSD, 400 images', 'denoise', _LEVELS, Set12='33.16 30.80 27.64', BSD68='31.88 29.41 26.47'
    ),
    *published_rows(
        'FFDNet', 'BSD, ImageNet, WED', 'denoise', _LEVELS,
        Set12='32.75 30.43 27.32', BSD68='31.63 29.19 26.29', CBSD68='33.87 31.21 27.96',
    ),
    *published_rows(
        'DRUNet', _LARGE, 'denoise', _LEVELS,
        Set12='33.25 30.94 27.90', BSD68='31.91 29.48 26.59', CBSD68='34.30 31.69 28.51',
    ),
    *published_rows('DnCNN', 'BSD, 432 images', 'denoise', _LEVELS, CBSD68='33.90 31.24 27.95'),
)  # fmt: skip

TASK = Task(
    name='denoise',
    protocols=(DENOISE, DENOISE_SHARED, DENOISE_AUTHORS),
    corruption=lambda options: Noise(*read_range(options, 'sigma'), options.get('shared_noise', 0.0)),
    check_level=check_sigma,
    label=lambda sigma: f'sigma {sigma:g}',
    baselines={'degraded': degraded, 'bm3d': bm3d},
    to_gray=rgb_to_gray_uint8,
    published=PUBLISHED,
)
