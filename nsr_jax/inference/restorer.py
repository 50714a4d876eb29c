"""Restoring images in Python, in three lines:

    from nsr_jax import Restorer
    model = Restorer.load('sr_x2')
    output = model(image)

The command `python -m nsr_jax.restore` uses the same class.
"""

import dataclasses
import numbers
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import PIL.Image
import tqdm
from jax.sharding import Mesh

from nsr_jax.errors import UserError
from nsr_jax.forks import check_not_forked
from nsr_jax.inference.alpha import premultiply, restore_alpha, to_floats, to_samples
from nsr_jax.inference.devices import find_devices, mesh_of, replicate
from nsr_jax.inference.prediction import join_strips, predict_strips
from nsr_jax.inference.tiling import Tiling
from nsr_jax.models.build import COMPUTE_DTYPES, Network, build_network
from nsr_jax.ops.arrays import View, plain_array
from nsr_jax.ops.gray import find_gray
from nsr_jax.shipped import find_parts, load_part
from nsr_jax.tasks import find_task
from nsr_jax.trained import check_which

TILE, OVERLAP = 96, 16  # of the feathered tiles, in input pixels
TILING = Tiling('feathered', TILE, OVERLAP)
LUMA = np.array([[0.299], [0.587], [0.114]], np.float32)  # Y of JFIF files: BT.601, full range
_BAR = '{l_bar}{bar}| {n:.2f} of {total} images, {elapsed} passed, {remaining} left'
_MODES = ('L', 'LA', 'RGB', 'RGBA', 'I;16')  # of Pillow's images
_DTYPES = ('uint8', 'uint16', 'float16', 'float32', 'float64')


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Restorer:
    """Trained networks of one task, ready for images of any size; apart from the images, they need bounded memory.

    On a CPU one JAX device is one core, and JAX has one device unless told otherwise before its first use:
    `jax.config.update('jax_num_cpu_devices', os.cpu_count())` makes a network use all cores, as the commands do.

    Attributes:
        networks: one network, or one for gray and one for colour images, each with its parameters on the whole mesh.
        task: in `tasks.TASKS`.
        tiling: what a network sees at once.
        ensemble: whether to average over the eight flips and transposes of each tile, for eight times the work.
        mesh: devices that share the tiles of an image, as from `mesh_of`; if it spans several processes, all of them
            must restore the same images in the same order, and all get them. None: one device, which holds `networks`.
    """

    networks: Sequence[tuple[Network, Any]]
    task: str
    tiling: Tiling = TILING
    ensemble: bool = False
    mesh: Mesh | None = None

    @classmethod
    def load(
        cls,
        model: str | os.PathLike,
        *,
        which: str = 'best',
        tile: int = TILE,
        ensemble: bool = False,
        dtype: str = 'float32',
        device: str | None = None,
    ) -> 'Restorer':
        """Load a network that comes with the package, or one that was trained here.

        Args:
            model: a name in `shipped.SHIPPED`; 'denoise' or 'jpeg' for the gray and the colour network, whichever suits
                an image; or the folder of a training run, of one checkpoint or from a model hub. Where a folder has the
                name of a network, write ./sr_x2 for the folder and SR_X2 for the network.
            which: of a training run's checkpoints to take: the best one, or the last one ('last').
            tile: side of the feathered tiles that a network sees at once, in input pixels.
            ensemble: as in the class.
            dtype: of the convolutions, float32 or bfloat16.
            device: a platform, such as 'cpu' or 'gpu', whose devices (in all processes) share the tiles of an image;
                None: JAX's default.

        Raises:
            UserError: there is no such model or device, or a value does not fit.
        """
        check_not_forked()
        check_which(which)
        tiling = make_tiling(tile)
        if not isinstance(dtype, str) or dtype not in COMPUTE_DTYPES:
            raise UserError(f'unknown dtype {dtype!r}: one of {", ".join(COMPUTE_DTYPES)}')
        if not isinstance(ensemble, bool | np.bool_):
            raise UserError(f'ensemble must be True or False, not {ensemble!r}')
        mesh = mesh_of(find_devices(device))
        loaded = [load_part(name, which) for name in find_parts(model)]
        networks = tuple((build_network(each.config.model, dtype), replicate(each.params, mesh)) for each in loaded)
        return cls(networks, loaded[0].config.task, tiling, bool(ensemble), mesh)

    def __repr__(self) -> str:
        """One line: `Restorer(task sr, scale 2, RGB network of 123,456 parameters, tiling feathered 96/16)`."""
        colours = {1: 'gray', 3: 'RGB'}
        networks = [
            f'{colours[network.channels]} network of {sum(leaf.size for leaf in jax.tree.leaves(params)):,} parameters'
            for network, params in self.networks
        ]
        ensemble = ', ensemble of 8' if self.ensemble else ''
        return (
            f'Restorer(task {self.task}, scale {self.scale}, {" and ".join(networks)}, tiling {self.tiling}{ensemble})'
        )

    def __reduce__(self) -> tuple:
        """Pickle and copy the parameters as NumPy arrays, and the devices as the name of their platform."""
        networks = tuple((network, jax.tree.map(np.asarray, params)) for network, params in self.networks)
        platform = None if self.mesh is None else self.mesh.devices.flat[0].platform
        return _rebuild, (networks, self.task, self.tiling, self.ensemble, platform)

    @property
    def scale(self) -> int:
        """Size of the output over size of the input."""
        return self.networks[0][0].scale

    def __call__(self, image: Any, *, progress: bool = False) -> Any:
        """Restore an image, or each of a list of images of any sizes.

        The result has the dtype of the image: 8 and 16 bits are rounded to the nearest, floats are clipped to [0, 1].
        An RGB network sees a gray image in each of its channels, and the result is their mean. An RGB image whose
        channels are equal but for rounding (`ops.gray.find_gray`) is restored as gray, by the network for gray images
        if there is one, and returned in three equal channels. Where there is no JPEG network for colours, the one for
        gray images restores the Y of a colour image and keeps its Cb and Cr (BT.601, full range, as in JFIF). Alpha is
        kept, or enlarged by bicubic interpolation, and the network sees premultiplied colours; float alpha is kept to
        16 bits.

        Args:
            image: uint8, uint16, or floats nominally on [0, 1] (noise may reach from -1 to 2); (H, W) gray or
                (H, W, C) with C 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha. A NumPy array, one of a library
                such as JAX or PyTorch that NumPy can read, or an image of Pillow of mode L, LA, RGB, RGBA or I;16,
                as its pixels lie (`PIL.ImageOps.exif_transpose` turns it upright).
            progress: whether to show a bar on standard error, which counts images and moves with their tiles.

        Returns:
            NumPy array (scale H, scale W) or (scale H, scale W, C), or a list of such arrays.

        Raises:
            UserError: the image is none of these, or has masked values, or colours that no network here takes; the
                network's output is not finite; or this process was forked after JAX had been used.
        """
        images = image if isinstance(image, list | tuple) else [image]
        with tqdm.tqdm(total=len(images), bar_format=_BAR, disable=not progress) as bar:
            restored = [
                self._restore(each, lambda share, number=number: bar.update(number + share - bar.n))
                for number, each in enumerate(images)
            ]
        return restored if isinstance(image, list | tuple) else restored[0]

    def _restore(self, image: Any, on_progress: Callable[[float], object]) -> np.ndarray:
        image = _plain_image(image)
        pixels = image if image.ndim == 3 else image[..., None]
        has_alpha = pixels.shape[-1] in (2, 4)
        colours, alpha = (pixels[..., :-1], pixels[..., -1]) if has_alpha else (pixels, None)
        height, width = self.scale * image.shape[0], self.scale * image.shape[1]
        return join_strips(self._strips(colours, alpha, on_progress), height).reshape(height, width, *image.shape[2:])

    def strips(
        self,
        pixels: np.ndarray,
        alpha: np.ndarray | None = None,
        *,
        on_progress: Callable[[float], object] | None = None,
    ) -> Iterator[np.ndarray]:
        """Restore one image strip by strip from top to bottom, so that only the input must be held as a whole.

        Args:
            pixels: (H, W, 1 or 3), as in `__call__`.
            alpha: (H, W), of the same dtype, 0 where a pixel is transparent; None: the image is opaque.
            on_progress: called after each tile with the share of them that are done, up to 1.

        Yields:
            (rows, scale W, C), alpha last; `np.concatenate` of them is the result of `__call__`.

        Raises:
            UserError: as in `__call__`, before the first strip is computed unless an output is not finite.
        """
        pixels = _plain_image(pixels)
        if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3):
            raise UserError(f'pixels without alpha must be (height, width, 1 or 3), not {pixels.shape}')
        if alpha is not None:
            alpha = _plain_image(alpha)
            if alpha.shape != pixels.shape[:2] or alpha.dtype != pixels.dtype:
                wanted, given = (f'{each.dtype} {each.shape[:2]}' for each in (pixels, alpha))
                raise UserError(f'alpha must be like the pixels, {wanted}, not {given}')
        return self._strips(pixels, alpha, on_progress)

    def _strips(
        self, pixels: np.ndarray, alpha: np.ndarray | None, on_progress: Callable[[float], object] | None
    ) -> Iterator[np.ndarray]:
        if pixels.shape[-1] == 3 and (gray := find_gray(pixels, alpha)) is not None:
            return (_as_colours(strip) for strip in self._strips(gray, alpha, on_progress))
        channels = pixels.shape[-1]
        taking = [pair for pair in self.networks if pair[0].channels >= channels]
        if not taking and not find_task(self.task).keeps_chroma:
            raise UserError('a network for gray images cannot restore a colour image')
        network, params = min(taking or self.networks, key=lambda pair: pair[0].channels)
        if alpha is not None and alpha.dtype.kind == 'f':
            alpha = to_samples(alpha, np.uint16)
        if alpha is None:
            colours = View(pixels.shape, lambda place: to_floats(pixels[place]))
        else:
            colours = View(pixels.shape, lambda place: premultiply(pixels[place], alpha[place]))
        predictions = self._predictions(network, params, colours, on_progress)
        if alpha is not None:
            predictions = restore_alpha(predictions, alpha, self.scale)
        return (to_samples(strip, pixels.dtype) for strip in predictions)

    def _predictions(
        self, network: Network, params: Any, colours: View, on_progress: Callable[[float], object] | None
    ) -> Iterator[np.ndarray]:
        """Strips of floats with the image's channels."""
        height, width, channels = colours.shape
        only_luma = network.channels < channels
        given = View((height, width, 1), lambda place: colours[place] @ LUMA) if only_luma else colours
        first = 0
        options = {'tiling': self.tiling, 'ensemble': self.ensemble, 'mesh': self.mesh, 'on_progress': on_progress}
        try:
            for answer in predict_strips(network, params, given, **options):
                if not np.isfinite(answer).all():
                    raise UserError('the network puts out values that are not finite')
                rows = slice(first, first + len(answer))
                first += len(answer)
                if only_luma:  # an equal change of R, G and B changes Y by as much, and neither Cb nor Cr
                    yield colours[rows, :] + (answer - given[rows, :])
                elif answer.shape[-1] > channels:
                    yield answer.mean(axis=-1, keepdims=True, dtype=np.float64)
                else:
                    yield answer
        except jax.errors.JaxRuntimeError as error:
            if 'RESOURCE_EXHAUSTED' in str(error):
                raise UserError('the device has too little memory for these tiles: give a smaller --tile') from error
            raise


def make_tiling(tile: int) -> Tiling:
    """Feathered tiles of this side; raises `UserError` unless it is a whole number from 2."""
    return Tiling('feathered', tile, min(OVERLAP, tile // 2) if isinstance(tile, numbers.Integral) and tile > 1 else 1)


def _rebuild(networks: Sequence[tuple[Network, Any]], task: str, tiling: Tiling, ensemble: bool, platform: str | None):
    """Unpickle a restorer, onto this machine's devices of the platform."""
    check_not_forked()
    mesh = None
    if platform is not None:
        mesh = mesh_of(find_devices(platform))
        networks = tuple((network, replicate(params, mesh)) for network, params in networks)
    return Restorer(networks, task, tiling, ensemble, mesh)


def _plain_image(image: Any) -> np.ndarray:
    """The image as a plain array; raises `UserError` if it cannot be restored."""
    if isinstance(image, PIL.Image.Image):
        if image.mode not in _MODES:
            raise UserError(f'an image of Pillow must be {", ".join(_MODES)}, not {image.mode}: convert it')
        image = np.asarray(image)
    if isinstance(image, type) or not hasattr(image, '__array__'):
        raise UserError(f'an image must be a NumPy array, not {type(image).__name__}: np.asarray may convert it')
    image = plain_array(image)
    if image.dtype.name not in _DTYPES:
        raise UserError(f'an image must be {", ".join(_DTYPES)}, not {image.dtype}')
    if not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 2, 3, 4))) or 0 in image.shape:
        raise UserError(f'an image must be (height, width) or (height, width, 1 to 4), not {image.shape}')
    if image.dtype.kind == 'f':
        low, high = image.min(), image.max()
        if not (low >= -1 and high <= 2):
            raise UserError(f'an image of floats must be on [0, 1], not from {low:g} to {high:g}')
    return image


def _as_colours(strip: np.ndarray) -> np.ndarray:
    """Gray, or gray and alpha, as RGB with three equal channels."""
    return np.concatenate([strip[..., :1]] * 2 + [strip], axis=-1)
