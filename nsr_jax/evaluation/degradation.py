"""What a network is given in an evaluation: a true image made worse, the same on every machine."""

import dataclasses
import hashlib
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import PIL.Image

from nsr_jax.data.degradations import check_quality, check_sigma
from nsr_jax.errors import UserError
from nsr_jax.ops.colour import rgb_to_y_uint8
from nsr_jax.ops.imresize import imresize

if TYPE_CHECKING:
    from nsr_jax.data.sources import Example

TASKS = ('sr', 'denoise', 'jpeg')


@dataclasses.dataclass(frozen=True)
class Degradation:
    """What a network is to undo, and how much of it.

    Attributes:
        task: 'sr', 'denoise' or 'jpeg'.
        level: the super-resolution factor, the noise's standard deviation in 1/255 of the range, or the JPEG quality.

    Raises:
        UserError: an unknown task, or a level out of its range.
    """

    task: str
    level: float

    def __post_init__(self):
        if self.task not in TASKS:
            raise UserError(f'unknown task {self.task!r}: one of {", ".join(TASKS)} needed')
        if self.task == 'sr' and (self.level != int(self.level) or self.level < 1):
            raise UserError(f'the factor of super-resolution must be a whole number from 1, not {self.level!r}')
        if self.task == 'denoise':
            check_sigma(self.level)
        if self.task == 'jpeg':
            check_quality(self.level)

    @property
    def scale(self) -> int:
        """Size of the restored image / size of what the network is given."""
        return int(self.level) if self.task == 'sr' else 1

    def __str__(self) -> str:
        """What tables print: 'x2', 'sigma 25', 'quality 10'."""
        return {'sr': 'x', 'denoise': 'sigma ', 'jpeg': 'quality '}[self.task] + f'{self.level:g}'


def find_degradations(task: str, scale: int, levels: Sequence[float | str]) -> tuple[Degradation, ...]:
    """The degradations that a network is scored on.

    Args:
        task: one of `TASKS`.
        scale: the network's, which is the one level of super-resolution.
        levels: sigmas or qualities, as numbers or text; none for super-resolution.

    Raises:
        UserError: an unknown task, or no level, or one that is out of range.
    """
    if task == 'sr':
        if levels:
            raise UserError(f'super-resolution has no levels besides its scale: {", ".join(map(str, levels))} given')
        return (Degradation(task, scale),)
    if not levels:
        raise UserError(f'no level given to score {task} at: one or more sigmas or JPEG qualities needed')
    return tuple(Degradation(task, _number(level)) for level in levels)


def _number(level: float | str) -> float:
    try:
        number = float(level)
        return int(number) if number.is_integer() else number
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f'{level!r} is not a number: sigmas or JPEG qualities are needed') from error


def low_resolution(source_name: str, example: 'Example', scale: int) -> np.ndarray:
    """The example's own low-resolution image, uint8 (h, w, C)."""
    if example.lr is None:
        raise UserError(f'{source_name} has no low-resolution images at scale {scale}; super-resolution needs them')
    return example.lr


def low_resolution_luma(source_name: str, example: 'Example', scale: int) -> np.ndarray:
    """Y of the example's own low-resolution image, uint8 (h, w, 1)."""
    return luma(low_resolution(source_name, example, scale))


def authors_resize(hr: np.ndarray, scale: int) -> np.ndarray:
    """Low-resolution image by the authors' own resize: bicubic, mirrored border, one rounding at the end, half to even.

    Args:
        hr: uint8 (H, W, C), both sides multiples of `scale`.
        scale: the factor to shrink by.

    Returns:
        uint8 (H / scale, W / scale, C).
    """
    return np.rint(imresize(hr.astype(np.float64), 1 / scale, border='mirror')).clip(0, 255).astype(np.uint8)


def authors_low_resolution(source_name: str, example: 'Example', scale: int) -> np.ndarray:
    """What the authors gave their network: DIV2K's own low-resolution images, their own resize of any other set."""
    if source_name.startswith('div2k') or example.lr is None:
        return low_resolution(source_name, example, scale)
    return authors_resize(example.hr, scale)


def noise(shape: tuple[int, int, int], sigma: float) -> np.ndarray:
    """The usual test noise, the same for all images of a size: seed 0, drawn in the order of the pixels.

    Args:
        shape: (H, W, C).
        sigma: standard deviation in 1/255 of the range.

    Returns:
        float32 (H, W, C), for images on [0, 1].
    """
    return np.random.RandomState(0).normal(0, sigma / 255, shape).astype(np.float32)


def authors_noise(shape: tuple[int, int, int], sigma: float, name: str) -> np.ndarray:
    """The authors' test noise, seeded by the file's name and drawn channel by channel; see `noise`.

    Args:
        shape: (H, W, C).
        sigma: standard deviation in 1/255 of the range.
        name: of the image file, with its extension and without its folder.
    """
    seed = np.frombuffer(hashlib.sha256(name.encode()).digest(), '<u4')
    height, width, channels = shape
    drawn = np.random.RandomState(seed).normal(0, sigma / 255, (channels, height, width))
    return np.moveaxis(drawn, 0, -1).astype(np.float32)


def noisy(source_name: str, example: 'Example', sigma: float) -> np.ndarray:
    """The true image plus `noise`, not clipped: float32 (H, W, C), nominally on [0, 1]."""
    del source_name
    return example.hr.astype(np.float32) / 255 + noise(example.hr.shape, sigma)


def authors_noisy(source_name: str, example: 'Example', sigma: float) -> np.ndarray:
    """The true image plus `authors_noise`, not clipped: float32 (H, W, C), nominally on [0, 1]."""
    del source_name
    return example.hr.astype(np.float32) / 255 + authors_noise(example.hr.shape, sigma, example.name)


def compress(image: np.ndarray, quality: int) -> np.ndarray:
    """An image as libjpeg stores it: gray, or RGB with chroma at half the resolution; uint8 (H, W, C) in and out."""
    buffer = io.BytesIO()
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    PIL.Image.fromarray(pixels).save(buffer, 'JPEG', quality=quality, subsampling='4:2:0')
    with PIL.Image.open(buffer) as stored:
        return np.array(stored).reshape(image.shape)


def luma(image: np.ndarray) -> np.ndarray:
    """Y as MATLAB's `rgb2ycbcr` gives it, uint8 (H, W, 1), of a uint8 image (H, W, 1 or 3); gray is its own."""
    return image if image.shape[-1] == 1 else rgb_to_y_uint8(image)[..., None]


def compressed_luma(source_name: str, example: 'Example', quality: int) -> np.ndarray:
    """Y compressed as a gray image, uint8 (H, W, 1)."""
    del source_name
    return compress(luma(example.hr), quality)


def compressed(source_name: str, example: 'Example', quality: int) -> np.ndarray:
    """The image compressed as it is, uint8 (H, W, C)."""
    del source_name
    return compress(example.hr, quality)
