"""The metadata of an image file: everything that is kept besides its pixels."""

import dataclasses
from collections.abc import Sequence

from absl import logging

from nsr_jax.errors import first_of
from nsr_jax.images.exif import exif_of_upright
from nsr_jax.images.xmp import without_claims, xmp_of_upright

_MOST_NAMES = 12  # of lost metadata in one line


@dataclasses.dataclass(frozen=True)
class Metadata:
    """The metadata that are kept of a file; missing parts are empty.

    Attributes:
        icc: the colour profile.
        exif: the EXIF block, laid out as a TIFF file.
        xmp: the XMP packet.
        resolution: in pixels per inch, across and down; None: unknown.
        png_chunks: whole chunks that only PNG files have: text, and the meaning of colours without a profile.
        jpeg_segments: whole segments that only JPEG files have: comments and captions (IPTC).
        turned: whether the pixels were turned as EXIF or XMP ask; only then is their orientation rewritten.
        name: of the image, for warnings.
    """

    icc: bytes = b''
    exif: bytes = b''
    xmp: bytes = b''
    resolution: tuple[float, float] | None = None
    png_chunks: bytes = b''
    jpeg_segments: bytes = b''
    turned: bool = True
    name: str = 'image'

    def of_upright(self, height: int, width: int) -> 'Metadata':
        """The metadata for an upright image of this size; broken EXIF is left out, with a warning."""
        exif = self.exif
        if exif:
            try:
                exif = exif_of_upright(exif, height, width, turned=self.turned)
            except ValueError as error:
                logging.warning('%s: %s; it is left out', self.name, error)
                exif = b''
        xmp = xmp_of_upright(self.xmp, height, width, turned=self.turned)
        return dataclasses.replace(self, exif=exif, xmp=xmp)

    def without(self, claims: Sequence[str]) -> tuple['Metadata', list[str]]:
        """The metadata without some claims of the XMP packet (see `xmp`), and those that were removed.

        A packet that makes such claims but cannot be changed is left out; the list then holds the reason.
        """
        try:
            xmp, found = without_claims(self.xmp, claims)
        except ValueError as error:
            return dataclasses.replace(self, xmp=b''), [str(error)]
        return dataclasses.replace(self, xmp=xmp), found


def warn_left_out(name: str, lost: Sequence[str], why: str) -> None:
    """Warn in one line of the parts of an image that are lost, if any."""
    if lost:
        logging.warning('%s: left out, because %s: %s', name, why, first_of(list(dict.fromkeys(lost)), _MOST_NAMES))
