"""What a task is: all that training, evaluation and restoring ask of it, in one object."""

import dataclasses
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np

from nsr_jax.errors import UserError
from nsr_jax.ops.colour import rgb_to_y_uint8


@dataclasses.dataclass(frozen=True)
class Example:
    """One image of a source, decoded.

    Attributes:
        name: the file's name with its extension, without its folder.
        hr: (H, W, C) uint8, RGB or gray (C = 1), the image that is to be restored, cropped to a multiple of the scale.
        lr: (H / scale, W / scale, C) uint8, what it is to be restored from; None where the task makes that.
        collection: the data set that the image belongs to, where a protocol asks for it: 'DIV2K'.
    """

    name: str
    hr: np.ndarray
    lr: np.ndarray | None
    collection: str = ''


class Corruption(typing.Protocol):
    """What makes the network's input from a clean image, inside the jitted step, from each sample's own key.

    It is frozen and hashable, so that a compiled step can be made for it.
    """

    def region_size(self, patch_size: int, channels: int) -> int:
        """Side of the square region of the clean image that a patch of this side is made from."""
        ...

    def __call__(self, key: jax.Array, region: jax.Array, patch_size: int) -> tuple[jax.Array, jax.Array]:
        """Corrupt one sample.

        Args:
            key: the sample's own.
            region: uint8 (R, R, C) of a clean image, R = `region_size(patch_size, C)`.
            patch_size: P.

        Returns:
            input and target (P, P, C), float32; the target is on [0, 1], the input nominally.
        """
        ...


def as_it_is(image: np.ndarray) -> np.ndarray:
    """The image itself."""
    return image


def _no_shave(scale: int) -> int:
    del scale
    return 0


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What exactly is compared when a score is given.

    Its description belongs beside every score: the same prediction differs by 0.03 dB between two roundings of Y, and
    by decibels between Y and RGB.

    Attributes:
        name: what the user types and the tables print; no other task has a protocol of this name.
        description: one line with channel, shave and rounding, printed beside each score.
        network_input: from an example and the level of the degradation to the image that the network is given: uint8,
            or float on [0, 1], (h, w, C).
        truth: from the example's uint8 image (H, W, 1 or 3) to the one that the network is to restore.
        compared: from a uint8 image (H, W, 1 or 3) to what is compared: (H, W), or (H, W, C) whose channels share one
            MSE; uint8 or float64 on [0, 255].
        shave: from the scale to the number of border pixels left out on each side.
        gray_as_colour: whether a network for colours is scored on gray images too, which it is given in each channel.
        comparable: whether its scores may stand beside published ones.
    """

    name: str
    description: str
    network_input: Callable[[Example, float], np.ndarray]
    truth: Callable[[np.ndarray], np.ndarray] = as_it_is
    compared: Callable[[np.ndarray], np.ndarray] = as_it_is
    shave: Callable[[int], int] = _no_shave
    gray_as_colour: bool = False
    comparable: bool = True


@dataclasses.dataclass(frozen=True)
class Published:
    """One published mean, always marked as published and with the protocol that it follows.

    Attributes:
        model: the name that its paper gives it.
        training: the data that it was trained on; '' where it is not trained.
        protocol: the one of the task that is nearest to how its paper scores.
        dataset: as in `data.benchmark_sets`.
        degradation: as `Degradation` prints it.
        psnr: in dB.
        ssim: None where none is comparable.
    """

    model: str
    training: str
    protocol: str
    dataset: str
    degradation: str
    psnr: float
    ssim: float | None = None

    @property
    def values(self) -> dict[str, float]:
        """The numbers by the names that they have in `metrics.METRICS`."""
        return {'psnr': self.psnr} | ({} if self.ssim is None else {'ssim': self.ssim})

    @property
    def described(self) -> str:
        """The model and, in brackets, that it is published, by which protocol, and what it was trained on."""
        trained = f', trained on {self.training}' if self.training else ''
        return f'{self.model} (published, {self.protocol}{trained})'


def published_rows(
    model: str, training: str, protocol: str, levels: Sequence[str], **scores: str
) -> Iterator[Published]:
    """The rows of one model.

    Args:
        model: as in `Published`, and so are the next two.
        training: likewise.
        protocol: likewise.
        levels: what the columns are for, as `Degradation` prints it.
        **scores: by dataset, one for each level with spaces between: a PSNR, 'PSNR/SSIM', or '-' where none was
            published.
    """
    for dataset, line in scores.items():
        for level, score in zip(levels, line.split(), strict=True):
            if score != '-':
                psnr, _, ssim = score.partition('/')
                yield Published(model, training, protocol, dataset, level, float(psnr), float(ssim) if ssim else None)


# From the image that a network is given, (h, w, C), uint8 or float on [0, 1], to its restoration, float on [0, 1],
# (scale h, scale w, C').
Predictor = Callable[[np.ndarray], np.ndarray]
# From the level of a degradation to a predictor that needs no checkpoint; raises `UserError` where there is none.
Baseline = Callable[[float], Predictor]


def degraded(level: float) -> Predictor:
    """The baseline that changes nothing."""
    del level
    return _as_floats


def _as_floats(image: np.ndarray) -> np.ndarray:
    return image / 255 if image.dtype == np.uint8 else image


def _any_scale(scale: float) -> str:
    return f'x{scale}'


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """What a network is to undo.

    Attributes:
        name: what configs and commands call it.
        protocols: how predictions are scored; the first is the usual one.
        scales: of the output to the input; empty: any from 1.
        inputs: where the network's input comes from in training. 'made': `corruption` makes it from the clean image, in
            the step. 'shrunk': the source has it, or makes it by shrinking the clean image. 'given': the source has it.
        corruption: from the config's section `degradation`, as a mapping, to what makes the input; for 'made' alone.
            Raises `UserError` for values that make no sense.
        check_level: raises `UserError` for a level that tests cannot have; None: the scale is the only level.
        label: what tables print of a level: 'x2', 'sigma 25'.
        baselines: scored beside networks, by name; pictures compare with the first.
        to_gray: how colour images, uint8 (H, W, 3), become gray, (H, W), for a network of one channel.
        keeps_chroma: whether a network of one channel restores the luma of a colour image and leaves its chroma.
        published: rows to stand beside ours.
    """

    name: str
    protocols: tuple[Protocol, ...]
    scales: tuple[int, ...] = (1,)
    inputs: Literal['made', 'shrunk', 'given'] = 'made'
    corruption: Callable[[Mapping[str, Any]], Corruption] | None = None
    check_level: Callable[[float], Any] | None = None
    label: Callable[[float], str] = _any_scale
    baselines: Mapping[str, Baseline] = dataclasses.field(default_factory=lambda: {'degraded': degraded})
    to_gray: Callable[[np.ndarray], np.ndarray] = rgb_to_y_uint8
    keeps_chroma: bool = False
    published: tuple[Published, ...] = ()

    def __post_init__(self):
        if (self.inputs == 'made') != (self.corruption is not None):
            raise ValueError(f'task {self.name}: a corruption is needed where inputs are made, and only there')

    def check_scale(self, scale: int) -> None:
        """Raise `UserError` for a scale that the task does not have."""
        if scale not in self.scales if self.scales else scale < 1:
            accepted = ', '.join(map(str, self.scales)) or 'a whole number from 1'
            raise UserError(f'config.model.scale must be {accepted} for task {self.name}, not {scale}')


def read_range(options: Mapping[str, Any], name: str) -> tuple[Any, Any]:
    """The lowest and the highest value of a field of `config.degradation`.

    Raises:
        UserError: it is missing, or not two numbers.
    """
    limits = options.get(name)
    if not isinstance(limits, Sequence) or isinstance(limits, str) or len(limits) != 2:
        raise UserError(f'config.degradation.{name} must be two numbers, lowest and highest, not {limits}')
    return limits[0], limits[1]


def check_order(name: str, lowest: float, highest: float) -> None:
    """Raise `UserError` where a range goes down."""
    if lowest > highest:
        raise UserError(f'the range of {name} must go from low to high, not from {lowest} to {highest}')
