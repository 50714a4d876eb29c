"""How much there is to restore, in words, before anything is."""

from collections.abc import Sequence

from nsr_jax.images.reading import photo_size
from nsr_jax.inference.tiling import Tiling, count_feathered
from nsr_jax.restoring.plan import Job


def describe_work(jobs: Sequence[Job], waiting: Sequence[Job], tiling: Tiling, largest_pixels: int) -> str:
    """Numbers of images, bytes, pixels and tiles; of the images, only the headers are read.

    Args:
        jobs: all, as from `plan`.
        waiting: those that are to be restored.
        tiling: feathered.
        largest_pixels: larger images, which will be refused, do not count.
    """
    found = [photo_size(job.source) if job.source else None for job in waiting]
    sizes = [size for size in found if size and size[0] * size[1] <= largest_pixels]
    text = f'{len(waiting)} of {len(jobs)} images to restore, {sum(job.size for job in waiting) / 1e6:.1f} MB of files'
    if sizes:
        megapixels = sum(height * width for height, width in sizes) / 1e6
        tiles = sum(count_feathered(*size, tiling.tile, tiling.overlap) for size in sizes)
        text += f', {megapixels:.1f} megapixels of input in {tiles:,} tiles'
    if unknown := len(found) - len(sizes):
        text += f', not counting {unknown} whose size is unknown or too large'
    return text
