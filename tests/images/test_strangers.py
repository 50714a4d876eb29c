"""Files of strangers: what they hold where, what is true of a restored picture, and what is left out with a warning."""

import io
import struct
import zlib

import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageCms
import PIL.PngImagePlugin
import pytest

from nsr_jax.errors import UserError
from nsr_jax.images.exif import exif_of_upright
from nsr_jax.images.metadata import Metadata
from nsr_jax.images.png_file import SIGNATURE, chunk, chunks
from nsr_jax.images.reading import read_photo
from nsr_jax.images.writing import write_photo
from nsr_jax.images.xmp import FURTHER_PICTURES, without_claims, xmp_of_upright

tifffile = pytest.importorskip('tifffile')
NAME = 'of a stranger.img'
PIXELS = np.random.RandomState(0).randint(0, 256, (12, 20, 3)).astype(np.uint8)
BASE = PIL.ExifTags.Base
XMP_HEAD, EXTENSION_HEAD = b'http://ns.adobe.com/xap/1.0/\0', b'http://ns.adobe.com/xmp/extension/\0'
SRGB = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile('sRGB')).tobytes()
ICCP = chunk(b'iCCP', b'x\0\0' + zlib.compress(SRGB))


def encoded(form, pixels=PIXELS, **options):
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def read(data):
    return read_photo(data, name=NAME)


def written(photo, form):
    pixels = photo.pixels if photo.alpha is None else np.dstack([photo.pixels, photo.alpha])
    height, width, channels = pixels.shape
    buffer = io.BytesIO()
    about = {'height': height, 'width': width, 'channels': channels, 'dtype': pixels.dtype}
    write_photo(buffer, [pixels], format=form, metadata=photo.metadata, **about)
    return buffer.getvalue()


def restored(data, form):
    """What becomes of a file's metadata and pixels where the network changes nothing."""
    return written(read(data), form)


def exif_of(orientation=6):
    exif = PIL.Image.Exif()
    exif[BASE.Orientation], exif[BASE.Make] = orientation, 'Canon'
    return exif.tobytes().removeprefix(b'Exif\0\0')


def xmp_of(attributes='', elements='', spaces=''):
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/" '
        f'{spaces} dc:format="kept" {attributes}>{elements}</rdf:Description></rdf:RDF></x:xmpmeta>'
        '<?xpacket end="w"?>'
    ).encode()


TURNED_XMP = xmp_of('tiff:Orientation="6"')


def png_with(before=(), after=(), pixels=PIXELS):
    """A PNG file with chunks before and after its pixels."""
    parts = [chunk(kind, bytes(body)) for kind, body in chunks(encoded('PNG', pixels))]
    return SIGNATURE + b''.join([parts[0], *before, *parts[1:-1], *after, parts[-1]])


def old_profile(name, data, *, packed):
    text = f'\n{name}\n{len(data):8}\n{data.hex()}\n'.encode()
    head = f'Raw profile type {name}'.encode() + b'\0'
    return chunk(b'zTXt', head + b'\0' + zlib.compress(text)) if packed else chunk(b'tEXt', head + text)


def international(data, *, packed):
    head = b'XML:com.adobe.xmp\0' + (b'\1\0' if packed else b'\0\0') + b'\0\0'
    return chunk(b'iTXt', head + (zlib.compress(data) if packed else data))


def segment(marker, body):
    return struct.pack('>BBH', 0xFF, marker, len(body) + 2) + body


def jpeg_with(*segments, behind=b''):
    data = encoded('JPEG', quality=95)
    return data[:2] + b''.join(segment(*each) for each in segments) + data[2:] + behind


def webp_with(*added):
    """Chunks that the header does not announce."""
    data = encoded('WEBP', lossless=True)[12:]
    for kind, body in added:
        data += struct.pack('<4sI', kind, len(body)) + body + bytes(len(body) % 2)
    return b'RIFF' + struct.pack('<I', len(data) + 4) + b'WEBP' + data


def tiff_with(samples=PIXELS, **options):
    buffer = io.BytesIO()
    options = {'photometric': 'rgb', 'planarconfig': 'contig', 'metadata': None} | options
    tifffile.imwrite(buffer, samples, **options)
    return buffer.getvalue()


ORIENTED = {
    'png eXIf': png_with([chunk(b'eXIf', exif_of())]),
    'png eXIf with a head': png_with([chunk(b'eXIf', b'Exif\0\0' + exif_of())]),
    'png eXIf behind': png_with(after=[chunk(b'eXIf', exif_of())]),
    'png text': png_with([old_profile('exif', b'Exif\0\0' + exif_of(), packed=False)]),
    'png packed text': png_with([old_profile('exif', b'Exif\0\0' + exif_of(), packed=True)]),
    'png text APP1': png_with([old_profile('APP1', b'Exif\0\0' + exif_of(), packed=True)]),
    'png text behind': png_with(after=[old_profile('exif', exif_of(), packed=True)]),
    'png XMP': png_with([international(TURNED_XMP, packed=False)]),
    'png XMP behind': png_with(after=[international(TURNED_XMP, packed=False)]),
    'png packed XMP': png_with([international(TURNED_XMP, packed=True)]),
    'png text xmp': png_with([old_profile('xmp', TURNED_XMP, packed=True)]),
    'png text APP1 xmp': png_with([old_profile('APP1', XMP_HEAD + TURNED_XMP, packed=True)]),
    'jpeg EXIF behind XMP': jpeg_with((0xE1, XMP_HEAD + xmp_of()), (0xE1, b'Exif\0\0' + exif_of())),
    'jpeg EXIF in two segments': jpeg_with((0xE1, b'Exif\0\0' + exif_of()[:20]), (0xE1, b'Exif\0\0' + exif_of()[20:])),
    'jpeg EXIF in two blocks': jpeg_with((0xE1, b'Exif\0\0' + exif_of()), (0xE1, b'Exif\0\0' + exif_of(3))),
    'jpeg XMP': jpeg_with((0xE1, XMP_HEAD + TURNED_XMP)),
    'jpeg XMP of another prefix': jpeg_with(
        (0xE1, XMP_HEAD + xmp_of('t:Orientation="6"', spaces='xmlns:t="http://ns.adobe.com/tiff/1.0/"'))
    ),
    'jpeg XMP element': jpeg_with((0xE1, XMP_HEAD + xmp_of(elements='<tiff:Orientation> 6</tiff:Orientation>'))),
    'jpeg EXIF of nonsense and XMP': jpeg_with((0xE1, b'Exif\0\0' + exif_of(77)), (0xE1, XMP_HEAD + TURNED_XMP)),
    'webp EXIF': webp_with((b'EXIF', exif_of())),
    'webp EXIF with a head': webp_with((b'EXIF', b'Exif\0\0' + exif_of())),
    'webp XMP': webp_with((b'XMP ', TURNED_XMP)),
    'tiff tag': tiff_with(extratags=[(274, 'H', 1, 6, True), (271, 's', 0, 'Canon', True)]),
    'tiff XMP': tiff_with(extratags=[(700, 'B', len(TURNED_XMP), TURNED_XMP, True)]),
}


def claims_of(data):
    """What Pillow finds that is said of orientation in a file, and of whom it comes."""
    with PIL.Image.open(io.BytesIO(data)) as image:
        says_exif = image.getexif().get(BASE.Orientation)  # of XMP where EXIF says nothing
        return says_exif, image.getexif().get(BASE.Make), image.info.get('xmp', b'')


@pytest.mark.parametrize('name', ORIENTED)
def test_orientation_is_found_wherever_it_stands(name):
    """And nothing of it is left: upright pixels, and no word of another orientation."""
    photo = read(ORIENTED[name])
    assert photo.pixels.shape == (20, 12, 3)
    if not name.startswith('jpeg'):
        np.testing.assert_array_equal(photo.pixels, np.rot90(PIXELS, -1))
    for form in ('PNG', 'JPEG', 'TIFF', 'WEBP'):
        orientation, make, packet = claims_of(written(photo, form))
        assert orientation in (1, None)
        assert b'6' not in packet.partition(b'Orientation')[2][:20]
        is_of_xmp = 'XMP' in name or 'xmp' in name
        assert make == 'Canon' or is_of_xmp
        assert b'"kept"' in packet or not is_of_xmp


def test_where_nothing_is_turned_nothing_is_rewritten():
    """EXIF counts more; whoever believes XMP sees what he saw before."""
    data = jpeg_with((0xE1, b'Exif\0\0' + exif_of(1)), (0xE1, XMP_HEAD + TURNED_XMP))
    photo = read(data)
    assert photo.pixels.shape == PIXELS.shape
    assert TURNED_XMP in written(photo, 'JPEG')


def test_sizes_that_metadata_claim_are_those_of_the_picture():
    regions = (
        '<m:Regions rdf:parseType="Resource"><m:AppliedToDimensions stDim:w="20" stDim:h="12" stDim:unit="pixel"/>'
        '</m:Regions><o:MaxPageSize stDim:w="7"/>'
    )
    packet = xmp_of('tiff:ImageWidth="20" exif:PixelYDimension="12"', regions)
    after = xmp_of_upright(packet, 120, 200, turned=False)
    for part in (
        b'tiff:ImageWidth="200"',
        b'exif:PixelYDimension="120"',
        b'stDim:w="200" stDim:h="120"',
        b'stDim:w="7"',
    ):
        assert part in after
    exif = PIL.Image.Exif()
    inner = exif.get_ifd(PIL.ExifTags.IFD.Exif)
    inner[BASE.ExifImageWidth] = 20
    inner[PIL.ExifTags.IFD.Interop] = {0x1001: 20, 0x1002: 12}
    after = PIL.Image.Exif()
    after.load(exif_of_upright(exif.tobytes().removeprefix(b'Exif\0\0'), 120, 200))
    assert after.get_ifd(PIL.ExifTags.IFD.Exif)[BASE.ExifImageWidth] == 200
    assert after.get_ifd(PIL.ExifTags.IFD.Interop) == {0x1001: 200, 0x1002: 120}


def test_png_texts_that_claim_a_size_or_a_thumbnail_are_gone():
    texts = {b'exif:PixelXDimension': b'20', b'tiff:Orientation': b'6', b'Thumb::Image::Width': b'20', b'Title': b'Hut'}
    after = restored(png_with([chunk(b'tEXt', key + b'\0' + text) for key, text in texts.items()]), 'PNG')
    assert PIL.Image.open(io.BytesIO(after)).text == {'Title': 'Hut'}


EXTRA = np.dstack([PIXELS, np.full((12, 20), 5, np.uint8), np.full((12, 20), 200, np.uint8)])


@pytest.mark.parametrize(
    ('channels', 'kinds', 'alpha', 'lost'),
    [
        (4, [0], None, 1),
        (4, [2], 5, 0),
        (5, [0, 2], 200, 1),
        (5, [2, 0], 5, 1),
        (5, [0, 0], None, 2),
    ],
)
def test_a_channel_is_transparency_where_a_tiff_file_says_so(channels, kinds, alpha, lost, caplog):
    photo = read(tiff_with(EXTRA[..., :channels], extrasamples=kinds))
    np.testing.assert_array_equal(photo.pixels, PIXELS)
    assert (photo.alpha is None) == (alpha is None)
    assert alpha is None or (photo.alpha == alpha).all()
    assert [record.message.startswith(f'{NAME}: ') for record in caplog.records] == [True] * bool(lost)
    assert not lost or f'further channels ({lost}) that the file does not mark as transparency' in caplog.text


def test_channels_beside_gray_are_no_colours(caplog):
    for channels, kinds, alpha in ((2, [0], False), (2, [2], True), (3, [0, 0], False), (4, [2, 0, 0], True)):
        photo = read(tiff_with(EXTRA[..., :channels], photometric='minisblack', extrasamples=kinds))
        np.testing.assert_array_equal(photo.pixels, PIXELS[..., :1])
        assert (photo.alpha is not None) == alpha
    assert len(caplog.records) == 3


def test_a_fourth_channel_without_a_word_is_no_transparency():
    """TIFF 6.0 asks for ExtraSamples there; whoever leaves it out has not said what the channel means."""
    data = bytearray(tiff_with(EXTRA[..., :4], extrasamples=[2]))
    place = data.index(struct.pack('<HHI', 338, 3, 1))
    struct.pack_into('<H', data, place, 50341)  # another tag
    assert read(bytes(data)).alpha is None


def bmp_of(alpha, mask=0xFF000000, header=108):
    body = np.dstack([PIXELS[::-1, :, ::-1], np.broadcast_to(np.uint8(alpha), (12, 20))]).tobytes()
    about = struct.pack('<IiiHHIIiiII', header, 20, 12, 1, 32, 3, len(body), 0, 0, 0, 0)
    masks = struct.pack('<IIII', 0xFF0000, 0xFF00, 0xFF, mask)
    about = (about + masks).ljust(header, b'\0')
    return b'BM' + struct.pack('<IHHI', 14 + len(about) + len(body), 0, 0, 14 + len(about)) + about + body


def test_bmp_with_an_empty_alpha_is_opaque():
    for data in (bmp_of(0), bmp_of(200, mask=0), bmp_of(0, header=124)):
        photo = read(data)
        np.testing.assert_array_equal(photo.pixels, PIXELS)
        assert photo.alpha is None
    assert (read(bmp_of(200)).alpha == 200).all()


def test_the_profile_of_a_bmp_is_kept():
    data = bytearray(bmp_of(0, header=124))
    struct.pack_into('<4s', data, 70, b'DEBM')
    struct.pack_into('<II', data, 126, len(data) - 14, len(SRGB))
    assert PIL.Image.open(io.BytesIO(restored(bytes(data) + SRGB, 'PNG'))).info['icc_profile'] == SRGB


def tiff_of_pages(*subfiles):
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        for subfile in subfiles:
            if subfile & 4:
                file.write(PIXELS[..., 0] > 9, subfiletype=subfile, photometric='minisblack', metadata=None)
            else:
                pixels = PIXELS[:: 1 + subfile % 2, :: 1 + subfile % 2]
                file.write(pixels, subfiletype=subfile, photometric='rgb', metadata=None)
    return buffer.getvalue()


def test_of_a_tiff_picture_and_its_smaller_versions_the_picture_is_read(caplog):
    for subfiles in ((0, 1), (1, 0), (0, 1, 1), (2, 4)):
        caplog.clear()
        np.testing.assert_array_equal(read(tiff_of_pages(*subfiles)).pixels, PIXELS)
        assert f'{NAME}: ' in caplog.text
        assert f'smaller versions or masks ({len(subfiles) - 1})' in caplog.text
    for subfiles in ((0, 0), (0, 1, 2)):
        with pytest.raises(UserError, match='2 frames or pages in one file'):
            read(tiff_of_pages(*subfiles))
    with pytest.raises(UserError, match='a file of previews'):
        read(tiff_of_pages(1, 1))
    with pytest.raises(UserError, match='more than 32 frames or pages'):
        read(tiff_of_pages(0, *[1] * 40))


SMOOTH = np.add.outer(np.arange(72), np.arange(50)).astype(np.uint8)
WITHOUT_END = {
    'sequential': encoded('JPEG')[:-2],
    'gray': encoded('JPEG', SMOOTH)[:-2],
    'progressive': encoded('JPEG', progressive=True)[:-2],
    'with zeros': encoded('JPEG')[:-2] + bytes(500),
    'half a marker': encoded('JPEG')[:-1],
}


@pytest.mark.parametrize('name', WITHOUT_END)
def test_a_jpeg_that_lacks_its_end_marker_alone_is_read_with_a_warning(name, caplog):
    data = WITHOUT_END[name]
    with PIL.Image.open(io.BytesIO(data.rstrip(b'\0').rstrip(b'\xff') + b'\xff\xd9')) as image:
        expected = np.asarray(image.convert('RGB' if image.mode == 'RGB' else 'L'))
    pixels = read(data).pixels
    np.testing.assert_allclose(pixels, expected.reshape(pixels.shape), atol=1)
    assert f'{NAME}: the end of the file is missing' in caplog.text


@pytest.mark.parametrize('name', ['sequential', 'gray', 'progressive'])
def test_a_jpeg_that_lacks_a_part_of_its_picture_is_refused(name):
    """Also the last rows and whole scans, of which libjpeg says nothing once the file has an end."""
    whole = WITHOUT_END[name]
    scans = [place for place in range(len(whole) - 1) if whole[place : place + 2] == b'\xff\xda']
    for length in {*scans[1:], *(len(whole) - cut for cut in (2, 3, 5, 10, 40, 80))}:
        for behind in (b'', bytes(300)):
            with pytest.raises(UserError, match=f'^{NAME}: (truncated|broken)'):
                read(whole[:length] + behind)


HDR = 'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/"'
CONTAINER = (
    'xmlns:Container="http://ns.google.com/photos/1.0/container/" '
    'xmlns:Item="http://ns.google.com/photos/1.0/container/item/"'
)
DIRECTORY = '<Container:Directory><rdf:Seq><rdf:li Item:Mime="video/mp4"/></rdf:Seq></Container:Directory>'
CAMERA = 'xmlns:GCamera="http://ns.google.com/photos/1.0/camera/"'
NOTE = 'xmlns:xmpNote="http://ns.adobe.com/xmp/note/"'


def jpeg_of_xmp(*args, segments=(), **options):
    return jpeg_with((0xE1, XMP_HEAD + xmp_of(*args)), *segments, **options)


LOST = {
    'extended XMP': (
        jpeg_of_xmp('xmpNote:HasExtendedXMP="A"', '', NOTE, segments=[(0xE1, EXTENSION_HEAD + b'A' * 40 + b'<x/>')]),
        'extended XMP',
        [b'HasExtendedXMP', EXTENSION_HEAD],
    ),
    'gain map': (
        jpeg_of_xmp('hdrgm:Version="1.0"', DIRECTORY, f'{HDR} {CONTAINER}', behind=encoded('JPEG')),
        'gain map',
        [b'hdrgm', b'Container'],
    ),
    'gain map of ISO': (
        jpeg_of_xmp(segments=[(0xE2, b'urn:iso:std:iso:ts:21496:-1\0\0\0'), (0xE2, b'MPF\0II*\0')]),
        'gain map (ISO 21496), further pictures (MPF)',
        [b'21496', b'MPF'],
    ),
    'micro video': (
        jpeg_of_xmp('GCamera:MicroVideo="1" GCamera:MicroVideoOffset="9"', '', CAMERA, behind=b'ftypmp42.'),
        '9 bytes after the picture',
        [b'MicroVideo', b'ftyp'],
    ),
    'motion photo': (
        jpeg_of_xmp('', f'<GCamera:MotionPhoto>1</GCamera:MotionPhoto>{DIRECTORY}', f'{CAMERA} {CONTAINER}'),
        'motion photo',
        [b'MotionPhoto', b'Item'],
    ),
    'credentials': (
        jpeg_of_xmp(
            'dcterms:provenance="self#jumbf=c2pa"',
            '',
            'xmlns:dcterms="http://purl.org/dc/terms/"',
            segments=[(0xEB, b'JP\0\1\0\0\0\1\0\0\0\x08jumb')],
        ),
        'content credentials',
        [b'provenance', b'jumb'],
    ),
    'another segment': (jpeg_of_xmp(segments=[(0xE3, b'META\0\0abc')]), "APP3 'META'", [b'META']),
    'png credentials': (png_with([international(xmp_of(), packed=False), chunk(b'caBX', b'jumb')]), 'credentials', []),
    'GeoTIFF': (
        tiff_with(extratags=[(33550, 'd', 3, (1.0, 1.0, 0.0), True), (700, 'B', len(xmp_of()), xmp_of(), True)]),
        'place on the earth (GeoTIFF)',
        [],
    ),
    'a tag': (
        tiff_with(extratags=[(65000, 's', 0, 'abc', True), (700, 'B', len(xmp_of()), xmp_of(), True)]),
        'tag 65000',
        [b'abc'],
    ),
    'webp chunk': (webp_with((b'XMP ', xmp_of()), (b'C2PA', b'jumb')), "chunk 'C2PA'", [b'jumb']),
    'regions of a turned picture': (
        jpeg_of_xmp('tiff:Orientation="6"', '<m:Regions/>', 'xmlns:m="http://www.metadataworkinggroup.com/schemas/regions/"'),
        'regions',
        [b'Regions'],
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', LOST)
def test_what_cannot_be_kept_is_dropped_with_all_claims_and_a_warning(name, caplog):
    data, word, gone = LOST[name]
    photo = read(data)
    (record,) = caplog.records
    assert record.message.startswith(f'{NAME}: left out, because ')
    assert word in record.message
    for form in ('JPEG', 'PNG', 'TIFF', 'WEBP'):
        after = written(photo, form)
        assert not any(each in after for each in gone)
        assert b'"kept"' in after
        assert not read(after).metadata.without(FURTHER_PICTURES)[1]
    assert len(caplog.records) == 1


def test_xmp_that_claims_more_but_is_no_xml_is_left_out(caplog):
    broken = b'<x hdrgm:Version="1" y="http://ns.adobe.com/hdr-gain-map/1.0/"'
    assert not read(jpeg_with((0xE1, XMP_HEAD + broken))).metadata.xmp
    assert f'{NAME}: left out' in caplog.text
    assert 'XMP that is not XML' in caplog.text
    bomb = b'<!DOCTYPE a [<!ENTITY b "c">]><a p="hdrgm">MotionPhoto&b;</a>'
    with pytest.raises(ValueError, match='document type'):
        without_claims(bomb, FURTHER_PICTURES)


def test_claims_are_cut_out_of_xmp_and_nothing_else_is():
    spaces = f'{HDR} xmlns:k="kept"'
    inner = '<k:a>1</k:a><k:b><hdrgm:c/></k:b>{}<k:d x="hdrgm:e"/>'
    claims = '<hdrgm:f g="a>b" ><hdrgm:f>2</hdrgm:f ></hdrgm:f >'
    after, found = without_claims(xmp_of("hdrgm:g = '>' k:h=''", inner.format(claims), spaces), FURTHER_PICTURES)
    assert found == ['gain map, motion photo or depth']
    for part in (HDR, "hdrgm:g = '>' ", '<hdrgm:c/>'):
        assert part.encode() not in after
    expected = xmp_of("k:h=''", inner.format(''), ' xmlns:k="kept"').replace(b'<hdrgm:c/>', b'')
    assert after.replace(b' ', b'') == expected.replace(b' ', b'')
    untouched = xmp_of('dc:title="MotionPhoto of hdrgm"')
    assert without_claims(untouched, FURTHER_PICTURES) == (untouched, [])


def caption(*resources):
    body = b'Photoshop 3.0\0'
    for kind, data in resources:
        body += b'8BIM' + struct.pack('>HHI', kind, 0, len(data)) + data + bytes(len(data) % 2)
    return body


def test_a_caption_is_kept_without_the_thumbnail_beside_it():
    iptc = b'\x1c\2\x78\0\5hello'
    after = restored(
        jpeg_with((0xED, caption((0x040C, b'thumbnail'), (0x0404, iptc), (0x03ED, b'resolution')))), 'JPEG'
    )
    assert segment(0xED, caption((0x0404, iptc))) in after
    odd = b'Photoshop 3.0\x008BIM\4'
    assert segment(0xED, odd) in restored(jpeg_with((0xED, odd)), 'JPEG')


DIGEST = (
    'photoshop:LegacyIPTCDigest="A1" photoshop:ICCProfile="P3"',
    '',
    'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"',
)
CHANGES = {
    'caption and comment': (
        jpeg_of_xmp(*DIGEST, segments=[(0xED, caption((0x0404, b'hello'))), (0xFE, b'a comment')]),
        'PNG',
        ['comment', 'caption (IPTC)', 'digest of a caption'],
        [b'hello', b'LegacyIPTCDigest'],
    ),
    'caption of PNG': (
        png_with([old_profile('iptc', b'hello', packed=False)]), 'JPEG', ['caption (IPTC)'], [b'68656c6c6f']
    ),
    'text': (png_with([chunk(b'tEXt', b'Title\0Hut')]), 'TIFF', ['text'], [b'Hut']),
    'cICP': (png_with([chunk(b'cICP', bytes([12, 13, 0, 1]))]), 'JPEG', ['cICP'], []),
    'light': (png_with([chunk(b'cLLI', bytes(8)), chunk(b'mDCV', bytes(24))]), 'WEBP', ['mDCV', 'cLLI'], []),
    'gamma': (png_with([chunk(b'gAMA', struct.pack('>I', 100_000))]), 'JPEG', ['gAMA'], []),
    'profile of colours in gray': (
        png_with([ICCP, international(xmp_of(*DIGEST), packed=False)], pixels=SMOOTH),
        'PNG',
        ["colour profile, which is for 'RGB '", 'name of a colour profile'],
        [b'iCCP', b'ICCProfile'],
    ),
    'profile of gray in WebP, which has none': (
        png_with([chunk(b'iCCP', b'x\0\0' + zlib.compress(SRGB[:16] + b'GRAY' + SRGB[20:]))], pixels=SMOOTH),
        'WEBP',
        ["colour profile, which is for 'GRAY'"],
        [b'ICCP'],
    ),
    'profile of CMYK': (
        png_with([chunk(b'iCCP', b'x\0\0' + zlib.compress(SRGB[:16] + b'CMYK' + SRGB[20:]))]),
        'TIFF',
        ["colour profile, which is for 'CMYK'"],
        [b'CMYK'],
    ),
    'BMP': (
        png_with([ICCP, chunk(b'eXIf', exif_of(1))]),
        'BMP',
        ['colour profile', 'EXIF'],
        [b'Canon'],
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', CHANGES)
def test_what_another_format_cannot_hold_is_dropped_with_a_warning(name, caplog):
    data, form, words, gone = CHANGES[name]
    after = restored(data, form)
    (record,) = caplog.records
    assert record.message.startswith(f'{NAME}: left out, because a {form} file cannot hold it: ')
    assert all(word in record.message for word in words)
    assert not any(each in after for each in gone)


def test_what_says_no_more_than_srgb_is_no_loss(caplog):
    srgb = [chunk(b'sRGB', b'\0'), chunk(b'gAMA', struct.pack('>I', 45_455))]
    for before in (srgb, srgb[1:]):
        restored(png_with(before), 'JPEG')
    for form in ('PNG', 'JPEG', 'TIFF', 'WEBP', 'BMP'):
        for data in (encoded('PNG'), encoded('JPEG'), tiff_with(software=False), encoded('WEBP'), encoded('BMP')):
            restored(data, form)
    assert not caplog.records


def test_what_is_too_long_for_a_jpeg_is_named(caplog):
    restored(png_with([international(xmp_of('dc:x="{}"'.format('k ' * 50_000)), packed=False)]), 'JPEG')
    (record,) = caplog.records
    assert record.message.startswith(f'{NAME}: ')


def test_old_profiles_of_png_are_colour_profiles_too():
    after = restored(png_with([old_profile('icc', SRGB, packed=True)]), 'PNG')
    assert PIL.Image.open(io.BytesIO(after)).info['icc_profile'] == SRGB


def test_a_damaged_text_is_no_metadata():
    texts = (b'zTXt', b'Raw profile type exif\0\0nonsense'), (b'tEXt', b'Raw profile type exif\0\nexif\n4\nzz')
    for text in texts:
        assert read(png_with([chunk(*text)])).metadata == Metadata(turned=False, name=NAME)
