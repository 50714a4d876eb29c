"""The resident image store: every training image decoded once into two arrays that live on the accelerator."""

import concurrent.futures
import math
from collections.abc import Callable, Sequence

import flax.struct
import jax
import numpy as np
import tqdm

from nsr_jax.data.sources import Example
from nsr_jax.errors import UserError

ALIGNMENT = 64  # bytes: what XLA asks of memory that it uses as it is

ToGray = Callable[[np.ndarray], np.ndarray]


@flax.struct.dataclass
class ImageStore:
    """N images of different sizes, each landscape (transposed where it was not) and padded to the largest with zeros.

    Attributes:
        targets: uint8 `(N, scale * H, scale * W, C)`, the clean images.
        inputs: uint8 `(N, H, W, C)`, their low-resolution twins; None where a degradation makes the input (scale 1).
        sizes: int32 `(N, 2)`, each image's true height and width in input pixels.
    """

    targets: jax.Array | np.ndarray
    inputs: jax.Array | np.ndarray | None
    sizes: jax.Array | np.ndarray

    @property
    def nbytes(self) -> int:
        """Memory that the store takes on each device."""
        return self.targets.nbytes + self.sizes.nbytes + (0 if self.inputs is None else self.inputs.nbytes)


def build_store(
    examples: Sequence[Example], *, scale: int, channels: int, smallest: int, to_gray: ToGray | None = None
) -> ImageStore:
    """Decode all examples into a store in the host's memory.

    Args:
        examples: a source; each is decoded once.
        scale: of the targets to the inputs.
        channels: that each image must have.
        smallest: the side in input pixels below which an image cannot be sampled: patch and margins.
        to_gray: what makes colour images gray, uint8 (H, W, 3) to (H, W), where the network has one channel.

    Raises:
        UserError: no image, one with other channels, or one that is too small; it is named.
    """
    if len(examples) == 0:
        raise UserError('no training image: the source is empty')
    with concurrent.futures.ThreadPoolExecutor() as threads:  # Pillow decodes without holding Python's lock
        decoded = threads.map(lambda index: _prepare(examples[index], to_gray), range(len(examples)))
        images = list(tqdm.tqdm(decoded, total=len(examples), desc='decoding', unit='image', leave=False, disable=None))
    for example in images:
        height, width, found = example.hr.shape
        if found != channels:
            raise UserError(f'{example.name} has {found} channels, the network takes {channels}')
        if height // scale < smallest:
            raise UserError(
                f'{example.name} is too small to train on: its shorter side is {height} pixels, the patch and its '
                f'margins need {smallest * scale} (config.data.patch_size, config.data.margin)'
            )
    sizes = np.array([[side // scale for side in example.hr.shape[:2]] for example in images], np.int32)
    height, width = (int(side) for side in sizes.max(axis=0))
    targets = _aligned_zeros((len(images), height * scale, width * scale, channels))
    inputs = None if scale == 1 else _aligned_zeros((len(images), height, width, channels))
    for index in range(len(images)):
        example, images[index] = images[index], None  # so that the images are never in memory twice
        targets[index, : example.hr.shape[0], : example.hr.shape[1]] = example.hr
        if inputs is not None:
            inputs[index, : example.lr.shape[0], : example.lr.shape[1]] = example.lr
    return ImageStore(targets, inputs, sizes)


def _aligned_zeros(shape: tuple[int, ...]) -> np.ndarray:
    """uint8 zeros at an address that all CPU devices can share, where NumPy's own would be copied for each."""
    size = math.prod(shape)
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].reshape(shape)


def _prepare(example: Example, to_gray: ToGray | None) -> Example:
    """Landscape, and gray where that is asked for."""

    def prepare(image: np.ndarray) -> np.ndarray:
        image = image if image.shape[0] <= image.shape[1] else image.swapaxes(0, 1)
        return to_gray(image)[..., None] if to_gray and image.shape[-1] == 3 else image

    return Example(example.name, prepare(example.hr), None if example.lr is None else prepare(example.lr))
