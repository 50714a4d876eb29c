"""A page that shows images before and after restoring, with a slider for mouse, finger or keyboard."""

import base64
import io
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import PIL.Image

from nsr_jax.atomic_files import write_atomically
from nsr_jax.errors import UserError, printable
from nsr_jax.images.reading import read_photo
from nsr_jax.ops.imresize import imresize
from nsr_jax.page import render
from nsr_jax.restoring.plan import Job

SIDE = 512  # the longest side of a preview, in pixels of the output
LARGEST_NUMBER = 24  # of images on one page, so that it stays below some 20 MB


class Preview(NamedTuple):
    """A part of an image at full resolution, before and after.

    Attributes:
        name: of the image on the page.
        before: a data URI, enlarged by bicubic interpolation to the size of `after`.
        after: a data URI.
        height: of both, in pixels.
        width: of both.
        cut: size of the part and of the image, in words; '' for the whole image.
    """

    name: str
    before: str
    after: str
    height: int
    width: int
    cut: str


def write_comparison(path: str | os.PathLike, jobs: Sequence[Job], title: str, largest_pixels: int) -> int:
    """Write a page that shows the first of these images before and after; returns how many it shows.

    An image that cannot be shown is reported on standard error.

    Args:
        path: of the page.
        jobs: images that have been restored, from files to files.
        title: of the page.
        largest_pixels: limit for a restored image.

    Raises:
        UserError: the page cannot be written.
    """
    previews = []
    for job in jobs[:LARGEST_NUMBER]:
        try:
            images = (read_photo(each, largest_pixels=largest_pixels) for each in job if each)
            pixels = [each.pixels if each.alpha is None else np.dstack([each.pixels, each.alpha]) for each in images]
            previews.append(make_preview(printable(str(job.source)), *pixels))
        except UserError as error:
            sys.stderr.write(f'error: not in {path}: {error}\n')
    write_page(path, title, previews, len(jobs) - len(previews))
    return len(previews)


def make_preview(name: str, before: np.ndarray, after: np.ndarray) -> Preview:
    """The part of an image with the most detail; lossless, except that 16 bits are shown as 8.

    Args:
        name: of the image on the page.
        before: uint8 or uint16 (H, W, 1 to 4), alpha last.
        after: (scale H, scale W, C) of the same type.

    Raises:
        UserError: the sizes or channels do not belong to one image.
    """
    scale = after.shape[0] // before.shape[0]
    if after.shape != (scale * before.shape[0], scale * before.shape[1], before.shape[2]):
        raise UserError(f'{name}: before and after do not fit each other: {before.shape} and {after.shape}')
    side = max(1, SIDE // scale)
    row, column = _most_detail(before, side)
    window = before[row : row + side, column : column + side]
    shown = _to_uint8(after[scale * row : scale * (row + side), scale * column : scale * (column + side)])
    height, width = shown.shape[:2]
    whole = shown.shape == after.shape
    cut = '' if whole else f'{width}×{height} of {after.shape[1]}×{after.shape[0]} pixels'
    return Preview(name, _data_uri(imresize(_to_uint8(window), scale)), _data_uri(shown), height, width, cut)


def write_page(path: str | os.PathLike, title: str, previews: Sequence[Preview], left_out: int) -> None:
    """Write one HTML file that contains everything it shows; `left_out` counts the restored images that it lacks.

    Raises:
        UserError: the file cannot be written.
    """
    values = {'title': printable(title), 'previews': previews, 'left_out': left_out}
    write_atomically(path, render('nsr_jax.restoring', 'compare.html', **values))


def _most_detail(image: np.ndarray, side: int) -> tuple[int, int]:
    """First row and column of the square in which the colours vary most, among those of a grid."""
    channels = image.shape[2] - (image.shape[2] % 2 == 0)
    height, width = image.shape[:2]
    corners = [
        (max(0, min(row, height - side)), max(0, min(column, width - side)))
        for row in range(0, height, side)
        for column in range(0, width, side)
    ]

    def variation(corner: tuple[int, int]) -> float:
        row, column = corner
        square = image[row : row + side, column : column + side, :channels].astype(np.float32)
        return float(sum(np.abs(np.diff(square, axis=axis)).sum() for axis in (0, 1)))

    return max(corners, key=variation)


def _to_uint8(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.dtype == np.uint8 else np.rint(pixels / 257).astype(np.uint8)


def _data_uri(image: np.ndarray) -> str:
    """As lossless WebP; gray becomes RGB, because WebP has no gray."""
    gray, alpha = image.shape[2] < 3, image.shape[2] % 2 == 0
    colours = image[..., [0, 0, 0, *([1] if alpha else [])]] if gray else image
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.ascontiguousarray(colours)).save(buffer, 'WEBP', lossless=True, exact=alpha)
    return f'data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}'
