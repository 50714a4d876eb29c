"""The image store: every training image decoded once into a few large arrays."""

import concurrent.futures
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import flax.struct
import jax
import numpy as np
import tqdm

from nsr_jax.errors import UserError, listed
from nsr_jax.tasks.task import Example

ALIGNMENT = 64  # bytes; XLA uses memory without copying it if it is aligned to them

ToGray = Callable[[np.ndarray], np.ndarray]


@flax.struct.dataclass
class ImageStore:
    """N images of different sizes, each transposed to landscape if needed and padded to the largest with zeros.

    Attributes:
        targets: uint8 `(N, scale * H, scale * W, C)`, the clean images.
        inputs: uint8 `(N, H, W, C)`, to restore them from; None if the task makes inputs from the clean images.
        sizes: int32 `(N, 2)`, each image's true height and width in input pixels.
    """

    targets: jax.Array | np.ndarray
    inputs: jax.Array | np.ndarray | None
    sizes: jax.Array | np.ndarray

    @property
    def nbytes(self) -> int:
        """The memory that the store takes, on each device if it is resident."""
        return sum(array.nbytes for array in jax.tree.leaves(self))


@dataclasses.dataclass(frozen=True, eq=False)
class StoreLayout:
    """The shapes of a store's arrays, known before it is made.

    Attributes:
        sizes: as in `ImageStore`.
        scale: of the targets to the inputs.
        channels: of all images.
        has_inputs: whether the store has inputs.
    """

    sizes: np.ndarray
    scale: int
    channels: int
    has_inputs: bool

    @property
    def targets(self) -> tuple[int, ...]:
        """The shape of `ImageStore.targets`."""
        height, width = (side * self.scale for side in self.sizes.max(axis=0).tolist())
        return len(self.sizes), height, width, self.channels

    @property
    def inputs(self) -> tuple[int, ...] | None:
        """The shape of `ImageStore.inputs`."""
        height, width = self.sizes.max(axis=0).tolist()
        return (len(self.sizes), height, width, self.channels) if self.has_inputs else None

    @property
    def nbytes(self) -> int:
        """As `ImageStore.nbytes`."""
        return self.sizes.nbytes + math.prod(self.targets) + (0 if self.inputs is None else math.prod(self.inputs))


@runtime_checkable
class KnowsShapes(Protocol):
    """Examples whose names and shapes are known without decoding them."""

    names: Sequence[str]

    def hr_shape(self, index: int) -> tuple[int, int, int]:
        """Height, width and channels in the file of a clean image, before it is turned upright and cropped."""
        ...


@dataclasses.dataclass(frozen=True)
class Needs:
    """What training requires of each image.

    Attributes:
        scale: of the targets to the inputs.
        channels: of the network.
        smallest: the shortest side in input pixels, which holds a patch and its margins.
        has_inputs: whether an image must come with the input to restore it from.
        to_gray: makes colour images gray, uint8 (H, W, 3) to (H, W), if the network has one channel.
    """

    scale: int
    channels: int
    smallest: int
    has_inputs: bool
    to_gray: ToGray | None = None

    def check(self, shape: tuple[int, int, int], name: str) -> None:
        """Raise `UserError` if a clean image of this height, width and number of channels is of no use."""
        if not self.is_large_enough(shape):
            side = min(shape[:2]) // self.scale
            raise UserError(
                f'{name} is too small to train on: its shorter side is {side * self.scale} pixels, the patch and its '
                f'margins need {self.smallest * self.scale} (config.data.patch_size, config.data.margin)'
            )
        self.check_channels(shape, name)

    def is_large_enough(self, shape: tuple[int, int, int]) -> bool:
        """Whether a clean image of this height and width holds a patch and its margins."""
        return min(shape[:2]) // self.scale >= self.smallest

    def check_channels(self, shape: tuple[int, int, int], name: str) -> None:
        """Raise `UserError` if a network cannot take a clean image of this number of channels."""
        if shape[2] != self.channels and not (self.to_gray and shape[2] == 3):
            raise UserError(f'{name} has {shape[2]} channels, the network takes {self.channels}')


def build_store(examples: Sequence[Example], needs: Needs, layout: StoreLayout | None = None) -> ImageStore:
    """Decode all examples into a store in the host's memory.

    Args:
        examples: a source; each is decoded once, and once before for its shape unless the source `KnowsShapes`.
        needs: the requirements of each.
        layout: of the store, if the images have been measured already.

    Raises:
        UserError: there are no images, or some are broken or refused by `Needs.check`; the line names them.
    """
    layout = layout or measure_images(examples, needs)
    inputs = None if layout.inputs is None else _aligned_zeros(layout.inputs)
    store = ImageStore(_aligned_zeros(layout.targets), inputs, layout.sizes)
    fill_store(store, examples, layout, needs.to_gray)
    return store


def measure_images(examples: Sequence[Example], needs: Needs) -> StoreLayout:
    """Find the layout of the store of these examples; errors as of `build_store`."""

    def measure(index: int) -> tuple[int, int, int] | str:
        """The shape of an image, or its error."""
        try:
            if isinstance(examples, KnowsShapes):
                shape, name = examples.hr_shape(index), examples.names[index]
            else:
                shape, name = examples[index].hr.shape, examples[index].name
            needs.check(shape, name)
        except UserError as error:
            return str(error)
        return shape

    if len(examples) == 0:
        raise UserError('no training image: the source is empty')
    measured = list(_by_threads(measure, len(examples)))
    if failures := [each for each in measured if isinstance(each, str)]:
        raise UserError(listed(failures, 'images cannot be used'))
    sizes = np.array([shape[:2] for shape in measured], np.int32) // needs.scale
    return StoreLayout(np.sort(sizes, axis=1), needs.scale, needs.channels, needs.has_inputs)  # landscape


def fill_store(store: ImageStore, examples: Sequence[Example], layout: StoreLayout, to_gray: ToGray | None) -> None:
    """Decode the examples in threads into the targets and inputs of a store, which are zeros.

    Raises:
        UserError: an image has other channels than the layout.
        ValueError: an image has another size than it was measured.
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

    done = _by_threads(put, len(examples))  # Pillow decodes without holding Python's lock
    for _ in tqdm.tqdm(done, total=len(examples), desc='decoding', unit='image', leave=False, disable=None):
        pass


def _by_threads(function: Callable[[int], Any], count: int) -> Iterator[Any]:
    """Yield the result for each index, in order; after a failure or Ctrl-C, start and wait for nothing more."""
    threads = concurrent.futures.ThreadPoolExecutor()
    try:
        yield from threads.map(function, range(count))
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def _prepare(example: Example, to_gray: ToGray | None) -> Example:
    """Transpose an example to landscape, and make it gray if `to_gray` is given."""

    def prepare(image: np.ndarray) -> np.ndarray:
        image = image if image.shape[0] <= image.shape[1] else image.swapaxes(0, 1)
        return to_gray(image)[..., None] if to_gray and image.shape[-1] == 3 else image

    return dataclasses.replace(example, hr=prepare(example.hr), lr=None if example.lr is None else prepare(example.lr))


def _aligned_zeros(shape: tuple[int, ...]) -> np.ndarray:
    """uint8 zeros at an address that all CPU devices can share; an array of NumPy's would be copied for each."""
    size = math.prod(shape)
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].reshape(shape)
