"""The images that choose the best weights and are therefore not trained on, by a rule that their names determine."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

from nsr_jax.data.sources import Source, is_div2k, open_source
from nsr_jax.errors import UserError

_OWN_SPLIT = 'validation'  # of DIV2K, which has validation images of its own


@dataclasses.dataclass(frozen=True)
class ValidationImages:
    """Where validation images come from.

    Attributes:
        source: as `open_source` takes it; '': the training source's own validation images if it has some, else images
            that are held out of training.
        split: of the source; '': the one for evaluation.
        fraction: of the training images to hold out, at least one; 0: none.
        images: names of images to hold out instead of a fraction.
    """

    source: str = ''
    split: str = ''
    fraction: float = 0.0
    images: Sequence[str] = ()


def read_validation_images(section: Any) -> ValidationImages:
    """The `ValidationImages` of a config's section `validation`."""
    return ValidationImages(section.source, section.split, section.fraction, tuple(section.images))


def open_training_images(name: str, split: str, scale: int, validation: ValidationImages, **options: Any) -> Source:
    """The images of a source that are trained on: all that are not held out.

    The arguments but `validation` are those of `open_source`, and so are the errors. Another `UserError` tells of
    images that cannot be held out.
    """
    source = open_source(name, split, scale, **options)
    return source if _has_own_images(name, validation) else _hold_out(source, validation)[0]


def open_validation_images(
    name: str, split: str, scale: int, validation: ValidationImages, **options: Any
) -> Source | None:
    """The images that choose the best weights, or None if there are none; arguments as in `open_training_images`."""
    if validation.source:
        return open_source(validation.source, validation.split, scale, **options)
    if _has_own_images(name, validation):
        return open_source(name, _OWN_SPLIT, scale, **options)
    if not (validation.fraction or validation.images):
        return None
    return _hold_out(open_source(name, split, scale, **options), validation)[1]


def _has_own_images(name: str, validation: ValidationImages) -> bool:
    """Whether the validation images are not among the images of the training source and split."""
    if validation.source:
        return True
    return is_div2k(name) and validation.fraction > 0 and not validation.images


def _hold_out(source: Source, validation: ValidationImages) -> tuple[Source, Source]:
    """The images to train on, and those that are held out."""
    if validation.images:
        if unknown := [name for name in validation.images if name not in source.names]:
            raise UserError(f'config.validation.images: {unknown[0]!r} is no image of {source.name}')
        chosen = set(validation.images)
    else:
        count = max(1, round(validation.fraction * len(source))) if validation.fraction else 0
        # An image's place in this order does not depend on the other images in the folder.
        digests = {name: hashlib.sha256(name.encode(errors='surrogateescape')).digest() for name in source.names}
        chosen = set(sorted(source.names, key=digests.__getitem__)[:count])
    if len(chosen) >= len(source):
        raise UserError(
            f'{source.name}: all of its {len(source)} images would be held out for validation, which leaves none to '
            'train on: add images, name another config.validation.source, or set config.validation.fraction to 0'
        )
    return source.select(lambda name: name not in chosen), source.select(lambda name: name in chosen)
