"""Which image of a TIFF file is the photograph, which of its channels are what, and what of the file is not kept."""

from typing import NamedTuple

from nsr_jax.errors import UserError
from nsr_jax.images.directories import first_numbers, layout_of, number, numbers, read_directory
from nsr_jax.images.tiff_file import SAID, is_about_the_former

# Of which part of it is true of a restored image, if any, nobody can say.
_OTHERS = {
    (33550, 33920, 33922, 34264, 34735, 34736, 34737, 42112, 42113): 'place on the earth (GeoTIFF)',
    (34377, 37724): 'layers and other data of Photoshop',
    (301, 318, 319, 532): 'what colours mean without a profile',
    (52545,): 'content credentials',
}
# What is said of how samples are stored, of the size, and of printing, or is kept in another way.
_STORAGE = {254, 255, *range(256, 267), *range(273, 285), *range(288, 298), 317, *range(320, 326), 330, 332, 333, 334}
_STORAGE |= {336, 337, 338, 339, 340, 341, 347, *range(512, 522), 529, 530, 531, 559, 700, 34665, 34675, 34853, 50341}

_SUBFILE_TYPE, _OLD_SUBFILE_TYPE, _COMPRESSION, _PHOTOMETRIC, _DESCRIPTION = 254, 255, 259, 262, 270
_ORIENTATION, _CHANNELS, _EXTRA_SAMPLES, _DNG_VERSION = 274, 277, 338, 50706
_REDUCED, _MASK, _OLD_REDUCED = 1, 4, 2  # of the subfile types
_JPEG, _RGB, _PALETTE, _YCBCR = 7, 2, 3, 6
_ALPHAS = (1, 2)  # multiplied with the colours, and not; 0 is of unknown meaning
_PHOTOMETRICS = {5: 'CMYK', 6: 'YCbCr', 8: 'CIE L*a*b*', 9: 'CIE L*a*b*', 10: 'CIE L*a*b*', 32803: 'raw sensor data'}
_MOST_PAGES = 32


class Picture(NamedTuple):
    """Which of a TIFF file's images is the photograph.

    Attributes:
        page: its number, from 0.
        place: where its directory stands.
        others: how many there are beside it, all of them smaller versions or masks.
    """

    page: int
    place: int
    others: int


def find_picture(data: bytes) -> Picture:
    """The one image of a TIFF file that is no smaller version of another, nor a mask.

    Raises:
        UserError: there are several, or none, or what libvips would read as something else: a raw photograph, or
            other than gray, RGB or palette values; the line does not name the file.
        ValueError: the file is broken.
    """
    layout, place = layout_of(data)
    entries, _ = first_numbers(data, layout, place)
    is_raw = _DNG_VERSION in entries
    found, seen = [], []
    while place and place not in seen and not is_raw:
        if len(seen) == _MOST_PAGES:
            raise UserError(f'more than {_MOST_PAGES} frames or pages in one file; save them as one file each')
        try:
            entries, following = first_numbers(data, layout, place)
        except ValueError:
            if not seen:
                raise
            break
        subfile, old_subfile = entries.get(_SUBFILE_TYPE) or 0, entries.get(_OLD_SUBFILE_TYPE)
        if not subfile & (_REDUCED | _MASK) and old_subfile != _OLD_REDUCED:
            found.append((len(seen), place, entries))
        seen.append(place)
        place = following
    if not found:
        raise UserError('a raw photograph, or a file of previews; develop it first')
    if len(found) > 1:
        raise UserError(f'{len(found)} frames or pages in one file; save them as one file each')
    page, place, entries = found[0]
    photometric, compression = (entries.get(tag) or 0 for tag in (_PHOTOMETRIC, _COMPRESSION))
    if photometric > 3 and (photometric, compression) != (_YCBCR, _JPEG):
        name = _PHOTOMETRICS.get(photometric, f'photometric interpretation {photometric}')
        raise UserError(f'TIFF of {name}; accepted are gray, RGB and palettes')
    return Picture(page, place, len(seen) - 1)


def alpha_of(data: bytes, picture: Picture) -> tuple[int, int | None] | None:
    """How many channels of a picture are colours, and which one the file calls alpha (None: none of them).

    None where all channels are colours, or become so by a palette.
    """
    layout, _ = layout_of(data)
    entries, _ = read_directory(data, layout, picture.place)
    channels, photometric = (number(layout, entries.get(tag)) for tag in (_CHANNELS, _PHOTOMETRIC))
    colours = 3 if photometric in (_RGB, _YCBCR) else 1
    if photometric == _PALETTE or (channels or 1) <= colours:
        return None
    extra = entries.get(_EXTRA_SAMPLES)
    kinds = numbers(layout, extra)[: channels - colours] if extra else ()
    return colours, next((colours + i for i, kind in enumerate(kinds) if kind in _ALPHAS), None)


def orientation(data: bytes, picture: Picture) -> int | None:
    """1 to 8; None where the file says none of these."""
    layout, _ = layout_of(data)
    said = first_numbers(data, layout, picture.place)[0].get(_ORIENTATION)
    return said if said in range(1, 9) else None


def left_out(data: bytes, picture: Picture) -> list[str]:
    """Names of what a TIFF file says of a picture and is not kept, each once."""
    layout, _ = layout_of(data)
    tags = first_numbers(data, layout, picture.place)[0].keys()
    names = {name: None for known, name in _OTHERS.items() for tag in known if tag in tags}
    unknown = sorted(tags - SAID - _STORAGE - {tag for known in _OTHERS for tag in known})
    description = read_directory(data, layout, picture.place)[0].get(_DESCRIPTION)
    if description and is_about_the_former(description.value):
        names['description of its size'] = None
    return [*names, *(f'tag {tag}' for tag in unknown)]
