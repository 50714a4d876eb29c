"""The definition of a task: one object that holds all that training, evaluation and restoring need to know of it."""

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
        hr: (H, W, C) uint8, RGB or gray (C = 1), the true image, cropped to a multiple of the scale.
        lr: (H / scale, W / scale, C) uint8, the image to restore it from; None if the task makes that.
        collection: the data set that the image belongs to, if a protocol depends on it: 'DIV2K'.
    """

    name: str
    hr: np.ndarray
    lr: np.ndarray | None
    collection: str = ''


class Corruption(typing.Protocol):
    """Makes the network's input from a clean image, inside the jitted step, for which it is frozen and hashable."""

    def region_size(self, patch_size: int, channels: int) -> int:
        """Side of the square region of the clean image that a patch of side `patch_size` needs."""
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


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How a prediction is scored: what the network is given, and what of its prediction is compared with what.

    Its description belongs beside every score: the same prediction differs by 0.03 dB between two roundings of Y, and
    by decibels between Y and RGB.

    Attributes:
        name: as the user types it and the tables print it; no other task has a protocol of this name.
        description: one line with channel, shave and rounding, printed beside each score.
        network_input: maps an example and the level of the degradation to the network's input, (h, w, C), uint8 or
            float on [0, 1].
        truth: maps the example's uint8 image (H, W, 1 or 3) to the one that the network should restore.
        compared: maps a uint8 image (H, W, 1 or 3) to what is compared: (H, W), or (H, W, C) whose channels share one
            MSE; uint8 or float64 on [0, 255].
        shave: maps the scale to the number of border pixels that are left out on each side.
        gray_as_colour: whether a network for colours is scored on gray images too, which it gets as R = G = B.
        comparable: whether its scores may stand beside published ones.
    """

    name: str
    description: str
    network_input: Callable[[Example, float], np.ndarray]
    truth: Callable[[np.ndarray], np.ndarray] = lambda image: image
    compared: Callable[[np.ndarray], np.ndarray] = lambda image: image
    shave: Callable[[int], int] = lambda scale: 0
    gray_as_colour: bool = False
    comparable: bool = True


@dataclasses.dataclass(frozen=True)
class Published:
    """One published mean, always marked as published and with the protocol that it follows.

    Attributes:
        model: its name in its paper.
        training: the data that it was trained on; '' if it is not trained.
        protocol: the task's protocol that is nearest to the paper's.
        dataset: as in `data.benchmark_sets`.
        degradation: as `Degradation` prints it.
        psnr: in dB.
        ssim: None if none is comparable.
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
        """The numbers by their names in `metrics.METRICS`."""
        return {'psnr': self.psnr} | ({} if self.ssim is None else {'ssim': self.ssim})

    @property
    def described(self) -> str:
        """The model's name with the protocol and the training data in brackets."""
        trained = f', trained on {self.training}' if self.training else ''
        return f'{self.model} (published, {self.protocol}{trained})'


def published_rows(
    model: str, training: str, protocol: str, levels: Sequence[str], **scores: str
) -> Iterator[Published]:
    """The rows of one model, a `Published` for each dataset and level.

    Args:
        levels: one for each column, as `Degradation` prints it.
        **scores: by dataset, a text with an entry for each level, separated by spaces: a PSNR, 'PSNR/SSIM', or '-' if
            none was published.
    """
    for dataset, line in scores.items():
        for level, score in zip(levels, line.split(), strict=True):
            if score != '-':
                psnr, _, ssim = score.partition('/')
                yield Published(model, training, protocol, dataset, level, float(psnr), float(ssim) if ssim else None)


# Maps a network's input (h, w, C), uint8 or float on [0, 1], to the restored image (scale h, scale w, C'), on [0, 1].
Predictor = Callable[[np.ndarray], np.ndarray]
# Maps the level of a degradation to a predictor that needs no checkpoint; raises `UserError` if there is none.
Baseline = Callable[[float], Predictor]


def degraded(level: float) -> Predictor:
    """The baseline that changes nothing."""
    return lambda image: image / 255 if image.dtype == np.uint8 else image


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """A kind of degradation that networks learn to undo.

    Attributes:
        name: in configs and commands.
        protocols: the ways to score predictions; the first is the usual one.
        scales: of the output to the input; empty: any from 1.
        inputs: where the network's input comes from in training. 'made': `corruption` makes it from the clean image, in
            the step. 'shrunk': the source has it, or makes it by shrinking the clean image. 'given': the source has it.
        corruption: maps the config's section `degradation` to what makes the input, if `inputs` is 'made'. Raises
            `UserError` for values that make no sense.
        check_level: raises `UserError` for a level that tests cannot have; None: the scale is the only level.
        label: maps a level to the text that tables print: 'x2', 'sigma 25'.
        baselines: by name, scored beside networks; pictures compare with the first.
        to_gray: turns colour images, uint8 (H, W, 3), into gray ones, (H, W), for a network of one channel.
        keeps_chroma: whether a network of one channel restores the luma of a colour image and leaves its chroma.
        published: rows to print beside ours.
    """

    name: str
    protocols: tuple[Protocol, ...]
    scales: tuple[int, ...] = (1,)
    inputs: Literal['made', 'shrunk', 'given'] = 'made'
    corruption: Callable[[Mapping[str, Any]], Corruption] | None = None
    check_level: Callable[[float], Any] | None = None
    label: Callable[[float], str] = lambda scale: f'x{scale}'
    baselines: Mapping[str, Baseline] = dataclasses.field(default_factory=lambda: {'degraded': degraded})
    to_gray: Callable[[np.ndarray], np.ndarray] = rgb_to_y_uint8
    keeps_chroma: bool = False
    published: tuple[Published, ...] = ()

    def __post_init__(self):
        if (self.inputs == 'made') != (self.corruption is not None):
            raise ValueError(f"task {self.name}: a corruption is needed if inputs are 'made', and only then")

    def check_scale(self, scale: int) -> None:
        """Raise `UserError` for a scale that the task does not have."""
        if scale not in self.scales if self.scales else scale < 1:
            accepted = ', '.join(map(str, self.scales)) or 'a whole number from 1'
            raise UserError(f'config.model.scale must be {accepted} for task {self.name}, not {scale}')


def read_range(options: Mapping[str, Any], name: str) -> tuple[Any, Any]:
    """The lowest and the highest value of a field of `config.degradation`; UserError if there are not two."""
    limits = options.get(name)
    if not isinstance(limits, Sequence) or isinstance(limits, str) or len(limits) != 2:
        raise UserError(f'config.degradation.{name} must be two numbers, lowest and highest, not {limits}')
    return limits[0], limits[1]


def check_range(name: str, lowest: Any, highest: Any, check_level: Callable[[Any], Any]) -> None:
    """Raise `UserError` if `check_level` refuses one end of a range, or the range goes down."""
    check_level(lowest)
    check_level(highest)
    if lowest > highest:
        raise UserError(f'the range of {name} must go from low to high, not from {lowest} to {highest}')
