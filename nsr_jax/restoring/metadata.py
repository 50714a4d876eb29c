"""What an image file says beside its pixels."""

import dataclasses

from absl import logging

from nsr_jax.restoring.exif import exif_of_upright, xmp_of_upright


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What is kept of a file beside its pixels; where a part is missing, it is empty.

    Attributes:
        icc: the colour profile.
        exif: the EXIF block, laid out as a TIFF file.
        xmp: the XMP packet.
        resolution: in pixels per inch, across and down; None: unknown.
        png_chunks: whole chunks that only PNG files have: text, and what colours mean where there is no profile.
        jpeg_segments: whole segments that only JPEG files have: comments and captions (IPTC).
    """

    icc: bytes = b''
    exif: bytes = b''
    xmp: bytes = b''
    resolution: tuple[float, float] | None = None
    png_chunks: bytes = b''
    jpeg_segments: bytes = b''

    def of_upright(self, height: int, width: int) -> 'Metadata':
        """The same of an upright image of this size; EXIF that is broken is left out, with a warning."""
        exif = self.exif
        if exif:
            try:
                exif = exif_of_upright(exif, height, width)
            except ValueError as error:
                logging.warning('%s; it is left out', error)
                exif = b''
        return dataclasses.replace(self, exif=exif, xmp=xmp_of_upright(self.xmp, height, width))
