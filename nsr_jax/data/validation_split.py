"""Which images choose the best weights, and are therefore not trained on: a rule that is fixed by their names."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

from nsr_jax.data.sources import Source, open_source
from nsr_jax.errors import UserError

# Sources with validation images of their own, by their split.
_OWN_SPLITS = {'div2k': 'validation'}


@dataclasses.dataclass(frozen=True)
class ValidationImages:
    """Where validation images come from.

    Attributes:
        source: as `open_source` takes it; '': the training source: its own validation images where it has some, else
            images that are held out of training.
        split: of the source; '': the one for evaluation.
        fraction: how much of the training images is held out, at least one; 0: none.
        images: names of those that are held out, instead of a fraction.
    """

    source: str = ''
    split: str = ''
    fraction: float = 0.0
    images: Sequence[str] = ()


def read_validation_images(section: Any) -> ValidationImages:
    """What the section `validation` of a config says of it."""
    return ValidationImages(section.source, section.split, section.fraction, tuple(section.images))


def open_training_images(name: str, split: str, scale: int, validation: ValidationImages, **options: Any) -> Source:
    """The images of a source that are trained on: all but those that are held out.

    Args:
        name: as for `open_source`, and so are the others.
        split: likewise.
        scale: likewise.
        validation: where validation images come from.
        **options: likewise.

    Raises:
        UserError: as in `open_source`, or images that cannot be held out.
    """
    source = open_source(name, split, scale, **options)
    return source if _has_own_images(name, validation) else _hold_out(source, validation)[0]


def open_validation_images(
    name: str, split: str, scale: int, validation: ValidationImages, **options: Any
) -> Source | None:
    """The images that weights are chosen by; None where there are none.

    Args:
        name: of the training source, as for `open_source`, and so are the others.
        split: likewise.
        scale: likewise.
        validation: where validation images come from.
        **options: likewise.

    Raises:
        UserError: as in `open_source`, or images that cannot be held out.
    """
    if validation.source:
        return open_source(validation.source, validation.split, scale, **options)
    if _has_own_images(name, validation):
        return open_source(name, _OWN_SPLITS[name.partition('/')[0]], scale, **options)
    held_out = _hold_out(open_source(name, split, scale, **options), validation)[1]
    return held_out if len(held_out) else None


def _has_own_images(name: str, validation: ValidationImages) -> bool:
    """Whether validation images are no part of what is trained on."""
    return bool(validation.source) or (name.partition('/')[0] in _OWN_SPLITS and not validation.images)


def _hold_out(source: Source, validation: ValidationImages) -> tuple[Source, Source]:
    """The images that stay, and those that are held out."""
    if validation.images:
        if unknown := [name for name in validation.images if name not in source.names]:
            raise UserError(f'config.validation.images: {unknown[0]!r} is no image of {source.name}')
        chosen = set(validation.images)
    else:
        count = round(validation.fraction * len(source))
        count = max(1, count) if validation.fraction else 0
        # Whatever else lies in the folder, each image keeps its place in this order.
        chosen = set(sorted(source.names, key=_digest)[:count])
    if len(chosen) >= len(source):
        raise UserError(
            f'{source.name}: all of its {len(source)} images would be held out for validation, and none be left to '
            'train on: add images, name another config.validation.source, or set config.validation.fraction to 0'
        )
    return source.select(lambda name: name not in chosen), source.select(lambda name: name in chosen)


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode(errors='surrogateescape')).hexdigest()
