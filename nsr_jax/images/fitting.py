"""What of an image's metadata a file of some format can hold."""

import dataclasses

from nsr_jax.images import jpeg_file, png_file, xmp
from nsr_jax.images.metadata import Metadata, warn_left_out

_GRAY, _COLOUR = b'GRAY', b'RGB '


def fitted(metadata: Metadata, form: str, channels: int) -> Metadata:
    """What a file holds of metadata; a warning that names the image says what is left out.

    Args:
        metadata: of the image as it is written.
        form: of the file, one of `formats.FORMATS`.
        channels: of the image, from 1 to 4.
    """
    lost, claims = [], []
    kept = dataclasses.replace(metadata)
    if form != 'PNG':
        lost += png_file.names_of_kept(metadata.png_chunks, has_profile=bool(metadata.icc))
        kept = dataclasses.replace(kept, png_chunks=b'')
    if form != 'JPEG':
        lost += jpeg_file.names_of_kept(metadata.jpeg_segments)
        kept = dataclasses.replace(kept, jpeg_segments=b'')
    if png_file.CAPTION in lost:
        claims.append(xmp.CAPTION)
    if metadata.icc and (reason := _reason_against_profile(metadata.icc, form, channels)):
        lost.append(f'colour profile, {reason}')
        claims.append(xmp.PROFILE)
        kept = dataclasses.replace(kept, icc=b'')
    if form == 'BMP':
        lost += [name for name, part in (('EXIF', kept.exif), ('XMP', kept.xmp)) if part]
        kept = dataclasses.replace(kept, exif=b'', xmp=b'')
    kept, found = kept.without(claims)
    warn_left_out(metadata.name, [*lost, *found], f'a {form} file cannot hold it')
    return kept


def _reason_against_profile(icc: bytes, form: str, channels: int) -> str | None:
    """Why a profile cannot stand in a file; None where it can."""
    space = icc[16:20]
    if form == 'BMP':
        return 'for which it has no place'
    fits = space == (_GRAY if channels < 3 and form != 'WEBP' else _COLOUR)  # WebP stores gray as colours
    # PNG alone forbids that of colours beside gray, where it says which gray is meant.
    if fits or (space == _COLOUR and form != 'PNG'):
        return None
    return f'which is for {space.decode("latin-1")!r} and does not fit {channels} channels'
