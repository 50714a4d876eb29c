"""XMP packets: adapting size and orientation, and cutting out claims that a restored image does not fulfil.

The rest of a packet is kept byte by byte. Claims are recognized by their namespaces, whatever their prefixes.
"""

import itertools
import re
import xml.parsers.expat
from collections.abc import Sequence

from nsr_jax.images.exif import ORIENTATIONS

_FURTHER_PICTURES = (
    'http://ns.adobe.com/hdr-gain-map/1.0/',
    'http://ns.apple.com/HDRGainMap/1.0/',
    'http://ns.google.com/photos/1.0/container/',  # also its items
    'http://ns.google.com/photos/1.0/depthmap/',
    'http://ns.google.com/photos/1.0/image/',
    'http://ns.google.com/photos/1.0/audio/',
    'http://ns.google.com/photos/dd/1.0/',
)
_CAMERA = 'http://ns.google.com/photos/1.0/camera/'
_PHOTOSHOP = 'http://ns.adobe.com/photoshop/1.0/'
CAPTION, PROFILE, REGIONS = 'digest of a caption', 'name of a colour profile', 'regions'
FURTHER_PICTURES = ('extended XMP', 'gain map, motion photo or depth', 'content credentials')
# For each kind of claim, how the namespaces and the names of its properties begin.
_CLAIMS = {
    'extended XMP': [('http://ns.adobe.com/xmp/note/', 'HasExtendedXMP')],
    'gain map, motion photo or depth': [
        (_CAMERA, 'MicroVideo'),
        (_CAMERA, 'MotionPhoto'),
        *((space, '') for space in _FURTHER_PICTURES),
    ],
    'content credentials': [('http://purl.org/dc/terms/', 'provenance')],
    CAPTION: [(_PHOTOSHOP, 'LegacyIPTCDigest')],
    PROFILE: [(_PHOTOSHOP, 'ICCProfile')],
    REGIONS: [
        ('http://www.metadataworkinggroup.com/schemas/regions/', 'Regions'),
        ('http://ns.microsoft.com/photo/1.2/', 'RegionInfo'),
    ],
}
_MOST_PREFIXES = 4

_TIFF_NAMESPACE = rb'xmlns:([\w.-]+)\s*=\s*["\']http://ns\.adobe\.com/tiff/1\.0/["\']'
# The image size to which regions (marked parts of the image) refer.
_SIZE_OF_REGIONS = re.compile(
    rb'<[\w-]+:AppliedToDimensions\b[^>]{0,300}(?:/>|>.{0,300}?AppliedToDimensions>)', re.DOTALL
)
# An attribute (name="3") or an element (<name>3</name>, which may have attributes).
_XMP_VALUE = rb'(\s*=\s*["\']\s*|(?:\s[^<>]{0,100})?>\s*)(\d+)'
# Possessive, and whitespace matches only from its start: otherwise hostile texts would take quadratic time.
_START_TAG = re.compile(rb'<(?:[^"\'>]|"[^"]*"|\'[^\']*\')*+>')
_ATTRIBUTE = re.compile(rb'(?<!\s)\s++([^\s=/>]++)\s*+=\s*+(?:"[^"]*"|\'[^\']*\')')


def without_claims(xmp: bytes, kinds: Sequence[str]) -> tuple[bytes, list[str]]:
    """A packet without some of its claims, and the kinds of claims that were cut out.

    Args:
        xmp: a packet, or nothing.
        kinds: of claims: `FURTHER_PICTURES`, `CAPTION`, `PROFILE`, `REGIONS`.

    Raises:
        ValueError: the packet makes such claims but is not XML in UTF-8, so that they cannot be cut out.
    """
    kinds = [kind for kind in kinds if any((name or space).encode() in xmp for space, name in _CLAIMS[kind])]
    if not kinds:
        return xmp, []
    finder = _Finder(xmp, kinds)
    kept, place = [], 0
    for start, stop in sorted(finder.cuts):
        kept.append(xmp[place:start])
        place = stop
    return b''.join([*kept, xmp[place:]]), [kind for kind in kinds if kind in finder.found]


class _Finder:
    """Finds the claims of a packet: attributes, and elements with their contents."""

    def __init__(self, xmp: bytes, kinds: Sequence[str]):
        self.cuts: list[tuple[int, int]] = []
        self.found: set[str | None] = set()
        self._xmp = xmp
        self._kinds = kinds
        self._spaces: list[dict[str, str]] = [{}]  # namespaces of each open element, by prefix
        self._cut: tuple[int, int] | None = None  # depth and start of the element that is being cut
        self._parser = parser = xml.parsers.expat.ParserCreate('UTF-8')
        parser.ordered_attributes = True
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        parser.StartDoctypeDeclHandler = self._refuse
        try:
            parser.Parse(xmp.rstrip(b'\0'), True)
        except xml.parsers.expat.ExpatError as error:
            raise ValueError(f'XMP that is not XML: {error}') from error

    def _refuse(self, *_: object) -> None:
        raise ValueError('XMP with a document type')

    def _kind_of(self, name: str) -> str | None:
        prefix, _, local = name.rpartition(':')
        space = self._spaces[-1].get(prefix, '')
        for kind in self._kinds:
            if any(space.startswith(its_space) and local.startswith(its_name) for its_space, its_name in _CLAIMS[kind]):
                return kind
        return None

    def _start(self, name: str, attributes: list[str]) -> None:
        spaces = self._spaces[-1]
        names = dict(zip(attributes[::2], attributes[1::2], strict=True))
        new = {key.removeprefix('xmlns').removeprefix(':'): names[key] for key in names if key.startswith('xmlns')}
        self._spaces.append(spaces | new if new else spaces)
        if self._cut:
            return
        place = self._parser.CurrentByteIndex
        if kind := self._kind_of(name):
            self.found.add(kind)
            self._cut = len(self._spaces), place
            return
        if any(self._is_claim(*pair) for pair in names.items()):
            tag = _START_TAG.match(self._xmp, place)
            assert tag is not None  # the parser has read it
            for attribute in _ATTRIBUTE.finditer(self._xmp, place, tag.end()):
                key = attribute[1].decode()
                if self._is_claim(key, names[key]):
                    self.found.add(self._kind_of(key))
                    self.cuts.append(attribute.span())

    def _is_claim(self, key: str, value: str) -> bool:
        """Whether an attribute is a claim, or declares a prefix that only claims use."""
        return value.startswith(_FURTHER_PICTURES) if key.startswith('xmlns:') else self._kind_of(key) is not None

    def _end(self, _: str) -> None:
        if self._cut and self._cut[0] == len(self._spaces):
            start = self._cut[1]
            tag = _START_TAG.match(self._xmp, start)
            assert tag is not None  # the parser has read it
            stop = tag.end()
            if self._xmp[stop - 2 : stop] != b'/>':
                stop = self._xmp.index(b'>', self._parser.CurrentByteIndex) + 1
            self.cuts.append((start, stop))
            self._cut = None
        self._spaces.pop()


def orientation_of_xmp(xmp: bytes) -> int | None:
    """The orientation, 1 to 8, that an XMP packet gives; None if it gives none."""
    found = re.search(rb'\b' + _orientation_name(xmp) + _XMP_VALUE, xmp)
    return next((each for each in ORIENTATIONS if found and found[2] == b'%d' % each), None)


def xmp_of_upright(xmp: bytes, height: int, width: int, *, turned: bool = True) -> bytes:
    """The XMP packet for an upright image of another size, without thumbnails; arguments as in `exif_of_upright`."""
    for names, value in (
        *([(_orientation_name(xmp), 1)] if turned else []),
        (rb'tiff:ImageWidth|exif:PixelXDimension', width),
        (rb'tiff:ImageLength|exif:PixelYDimension', height),
    ):
        xmp = _with_number(xmp, names, value)

    def of_this_size(regions: re.Match) -> bytes:
        return _with_number(_with_number(regions[0], rb'stDim:w', width), rb'stDim:h', height)

    xmp = _SIZE_OF_REGIONS.sub(of_this_size, xmp)
    return _without_thumbnails(_without_thumbnails(xmp, b'xmp'), b'xap')


def _with_number(xmp: bytes, names: bytes, value: int) -> bytes:
    """A packet in which every property whose name matches the pattern `names` has this value."""
    return re.sub(rb'\b(' + names + rb')' + _XMP_VALUE, rb'\g<1>\g<2>%d' % value, xmp)


def _orientation_name(xmp: bytes) -> bytes:
    """A pattern for the orientation's name in a packet, which may choose its prefix."""
    found = itertools.islice(re.finditer(_TIFF_NAMESPACE, xmp), _MOST_PREFIXES)
    prefixes = sorted({b'tiff', *(each[1] for each in found)})
    return rb'(?:' + b'|'.join(map(re.escape, prefixes)) + rb'):Orientation'


def _without_thumbnails(xmp: bytes, prefix: bytes) -> bytes:
    # Not a regular expression: it would search for the end anew from each start, in quadratic time.
    kept, place, start_tag, end_tag = [], 0, b'<%s:Thumbnails' % prefix, b'</%s:Thumbnails>' % prefix
    while (start := xmp.find(start_tag, place)) >= 0 and (end := xmp.find(end_tag, start)) >= 0:
        kept.append(xmp[place:start])
        place = end + len(end_tag)
    return b''.join([*kept, xmp[place:]])
