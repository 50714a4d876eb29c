"""The image store: every training image decoded once into a few large arrays."""

import concurrent.futures
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

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
        """Memory that the store takes on each device where it is resident."""
        return self.targets.nbytes + self.sizes.nbytes + (0 if self.inputs is None else self.inputs.nbytes)


@dataclasses.dataclass(frozen=True, eq=False)
class StoreLayout:
    """What a store's arrays look like before they are there.

    Attributes:
        sizes: as in `ImageStore`.
        scale: of the targets to the inputs.
        channels: of all images.
    """

    sizes: np.ndarray
    scale: int
    channels: int

    @property
    def targets(self) -> tuple[int, ...]:
        """The shape of `ImageStore.targets`."""
        height, width = (int(side) * self.scale for side in self.sizes.max(axis=0))
        return len(self.sizes), height, width, self.channels

    @property
    def inputs(self) -> tuple[int, ...] | None:
        """The shape of `ImageStore.inputs`."""
        height, width = (int(side) for side in self.sizes.max(axis=0))
        return None if self.scale == 1 else (len(self.sizes), height, width, self.channels)

    @property
    def nbytes(self) -> int:
        """As `ImageStore.nbytes`."""
        return self.sizes.nbytes + math.prod(self.targets) + (0 if self.inputs is None else math.prod(self.inputs))


@runtime_checkable
class KnowsSizes(Protocol):
    """Examples whose size is known without decoding them."""

    def hr_size(self, index: int) -> tuple[int, int]:
        """Height and width of a clean image as its file says, turned upright and cropped or not."""


def build_store(
    examples: Sequence[Example], *, scale: int, channels: int, smallest: int, to_gray: ToGray | None = None
) -> ImageStore:
    """Decode all examples into a store in the host's memory.

    Args:
        examples: a source; each is decoded once, and once before for its size unless the source `KnowsSizes`.
        scale: of the targets to the inputs.
        channels: that each image must have.
        smallest: the side in input pixels below which an image cannot be sampled: patch and margins.
        to_gray: what makes colour images gray, uint8 (H, W, 3) to (H, W), where the network has one channel.

    Raises:
        UserError: no image, one with other channels, or one that is too small; it is named.
    """
    layout = measure_images(examples, scale=scale, channels=channels, smallest=smallest)
    return build_in_memory(examples, layout, to_gray)


def measure_images(examples: Sequence[Example], *, scale: int, channels: int, smallest: int) -> StoreLayout:
    """What the store of these examples will take; arguments and errors as of `build_store`."""

    def size(index: int) -> tuple[int, int]:
        return examples.hr_size(index) if knows_sizes else examples[index].hr.shape[:2]

    if len(examples) == 0:
        raise UserError('no training image: the source is empty')
    knows_sizes = isinstance(examples, KnowsSizes)
    with concurrent.futures.ThreadPoolExecutor() as threads:
        sizes = np.array(list(threads.map(size, range(len(examples)))), np.int32) // scale
    sizes = np.sort(sizes, axis=1)  # landscape
    check_sizes(examples, sizes, scale, smallest)
    return StoreLayout(sizes, scale, channels)


def check_sizes(examples: Sequence[Example], sizes: np.ndarray, scale: int, smallest: int) -> None:
    """Raise `UserError` for the first image that is too small; arguments as of `ImageStore` and `build_store`."""
    small = np.flatnonzero(sizes[:, 0] < smallest)
    if small.size:
        raise UserError(
            f'{examples[int(small[0])].name} is too small to train on: its shorter side is '
            f'{sizes[small[0], 0] * scale} pixels, the patch and its margins need {smallest * scale} '
            '(config.data.patch_size, config.data.margin)'
        )


def build_in_memory(examples: Sequence[Example], layout: StoreLayout, to_gray: ToGray | None) -> ImageStore:
    """As `build_store`, of images that have been measured."""
    targets, inputs = (shape and _aligned_zeros(shape) for shape in (layout.targets, layout.inputs))
    store = ImageStore(targets, inputs, layout.sizes)
    fill_store(store, examples, layout, to_gray)
    return store


def fill_store(store: ImageStore, examples: Sequence[Example], layout: StoreLayout, to_gray: ToGray | None) -> None:
    """Decode the examples, each thread one at a time, into the targets and inputs of a store, which are zeros.

    Raises:
        UserError: an image with other channels than measured.
        ValueError: an image of another size than it was measured.
    """

    def put(index: int) -> None:
        example = _prepare(examples[index], to_gray)
        height, width, found = example.hr.shape
        if found != layout.channels:
            raise UserError(f'{example.name} has {found} channels, the network takes {layout.channels}')
        if (height, width) != tuple(layout.sizes[index] * layout.scale):
            raise ValueError(f'{example.name} is {height}x{width}, measured were {layout.sizes[index]} input pixels')
        store.targets[index, :height, :width] = example.hr
        if store.inputs is not None:
            height, width = layout.sizes[index]
            store.inputs[index, :height, :width] = example.lr

    with concurrent.futures.ThreadPoolExecutor() as threads:  # Pillow decodes without holding Python's lock
        done = threads.map(put, range(len(examples)))
        for _ in tqdm.tqdm(done, total=len(examples), desc='decoding', unit='image', leave=False, disable=None):
            pass


def _prepare(example: Example, to_gray: ToGray | None) -> Example:
    """Landscape, and gray where that is asked for."""

    def prepare(image: np.ndarray) -> np.ndarray:
        image = image if image.shape[0] <= image.shape[1] else image.swapaxes(0, 1)
        return to_gray(image)[..., None] if to_gray and image.shape[-1] == 3 else image

    return Example(example.name, prepare(example.hr), None if example.lr is None else prepare(example.lr))


def _aligned_zeros(shape: tuple[int, ...]) -> np.ndarray:
    """uint8 zeros at an address that all CPU devices can share, where NumPy's own would be copied for each."""
    size = math.prod(shape)
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].reshape(shape)
