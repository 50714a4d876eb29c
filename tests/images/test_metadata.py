"""What files say beside their pixels, from files that ExifTool wrote, into every format, as Pillow reads it."""

import contextlib
import io
import itertools
import logging
import pathlib

import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageCms
import PIL.IptcImagePlugin
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsr_jax.images.exif import (
    SHORT,
    Entry,
    Layout,
    directory_bytes,
    entry_of,
    exif_of_upright,
    layout_of,
    number,
    read_directory,
)
from nsr_jax.images.metadata import Metadata
from nsr_jax.images.reading import read_photo
from nsr_jax.images.writing import write_photo
from nsr_jax.images.xmp import xmp_of_upright
from tests.reference.images import picture

IMAGES = pathlib.Path(picture.__file__).parent
FILES = ['jpeg_metadata.jpg', 'png_metadata.png', 'tiff_metadata.tif', 'webp_metadata.webp']
FORMATS = ['JPEG', 'PNG', 'TIFF', 'WEBP']
BASE, EXIF, GPS = PIL.ExifTags.Base, PIL.ExifTags.IFD.Exif, PIL.ExifTags.IFD.GPSInfo
HEIGHT, WIDTH = 38, 26  # twice the upright picture


def written(form, metadata, channels=3):
    buffer = io.BytesIO()
    strips = [np.zeros((HEIGHT, WIDTH, channels), np.uint8)]
    size = {'height': HEIGHT, 'width': WIDTH, 'channels': channels, 'dtype': np.uint8}
    write_photo(buffer, strips, format=form, metadata=metadata, **size)
    return buffer.getvalue()


def opened(data):
    image = PIL.Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize('name', FILES)
def test_a_picture_on_its_side_is_turned(name):
    photo = read_photo(IMAGES / name)
    assert photo.pixels.shape == (19, 13, 3)
    expected = np.rot90(picture.RGB16 if photo.pixels.dtype == np.uint16 else picture.RGB8, -1)
    assert np.abs(photo.pixels - expected.astype(int)).max() <= (0 if name != FILES[0] else 4)


@pytest.mark.parametrize(('name', 'form'), [*itertools.product(FILES, FORMATS)])
def test_all_is_kept_and_true(name, form):
    with PIL.Image.open(IMAGES / name) as before:
        if before.format != 'TIFF':  # of which loading would turn the image
            before.load()
        expected = before.getexif()
        inner, place = expected.get_ifd(EXIF), expected.get_ifd(GPS)
        assert (expected[BASE.Orientation], inner[BASE.ExifImageWidth]) == (6, 13)
        profile = before.info['icc_profile']
    after = opened(written(form, read_photo(IMAGES / name).metadata))
    assert after.info['icc_profile'] == profile
    exif = after.getexif()
    assert exif.get(BASE.Orientation, 1) == 1
    for tag in (BASE.Make, BASE.Model, BASE.Artist):
        assert exif[tag] == expected[tag]
    assert exif[BASE.Model] == 'K'
    for tag in (BASE.DateTimeOriginal, BASE.ExposureTime):
        assert exif.get_ifd(EXIF)[tag] == inner[tag]
    assert inner[BASE.ExposureTime] == pytest.approx(1 / 60)
    assert exif.get_ifd(EXIF)[BASE.ExifImageWidth] == WIDTH
    assert exif.get_ifd(EXIF)[BASE.ExifImageHeight] == HEIGHT
    assert exif.get_ifd(GPS) == place
    assert place[2] == (47, 30, 0)
    xmp = after.info['xmp']
    assert b'>Hut<' in xmp
    assert b'<tiff:Orientation>1</tiff:Orientation>' in xmp
    assert after.size == (WIDTH, HEIGHT)


@pytest.mark.parametrize('name', FILES[:3])
@pytest.mark.parametrize('form', FORMATS[:3])
def test_resolution_is_kept_and_turned(name, form):
    after = opened(written(form, read_photo(IMAGES / name).metadata))
    assert after.info['dpi'] == pytest.approx((150, 300), rel=1e-3)
    if (inside := after.getexif()).get(BASE.XResolution):  # beside what the format itself says
        assert (inside[BASE.XResolution], inside[BASE.YResolution]) == pytest.approx((150, 300), rel=1e-3)


def test_resolution_of_bmp():
    data = written('BMP', Metadata(resolution=(150, 300)))
    assert opened(data).info['dpi'] == pytest.approx((150, 300), rel=1e-3)
    assert read_photo(data).metadata.resolution == pytest.approx((150, 300), rel=1e-3)


@pytest.mark.parametrize('form', [*FORMATS, 'BMP'])
def test_what_was_not_said_is_not_invented(form):
    metadata = read_photo(written(form, None)).metadata
    assert (metadata.icc, metadata.exif, metadata.xmp, metadata.png_chunks, metadata.jpeg_segments) == (b'',) * 5
    assert metadata.resolution is None or form == 'BMP'  # which always has one
    if form == 'JPEG':
        assert opened(written(form, None)).info['jfif_unit'] == 0


def test_the_thumbnail_is_gone():
    thumbnail = (IMAGES / 'jpeg_gray.jpg').read_bytes()
    before = read_photo(IMAGES / FILES[0]).metadata
    assert thumbnail in before.exif
    after = written('JPEG', before)
    assert thumbnail[20:] not in after
    assert not opened(after).getexif().get_ifd(PIL.ExifTags.IFD.IFD1)


def test_texts_of_png_stay_in_png():
    after = opened(written('PNG', read_photo(IMAGES / 'png_metadata.png').metadata))
    assert after.text['Title'] == 'Hut'
    assert after.text['Description'] == 'Hütte'
    assert sorted(after.text) == ['Artist', 'Description', 'Make', 'Model', 'Title', 'XML:com.adobe.xmp']


def test_what_colours_mean_without_a_profile_stays_in_png():
    buffer = io.BytesIO()
    chunks = PIL.PngImagePlugin.PngInfo()
    chunks.add(b'gAMA', (100_000).to_bytes(4, 'big'))
    chunks.add(b'tIME', bytes([7, 228, 1, 1, 1, 1, 1]))
    chunks.add_text('Raw profile type exif', 'what older programs wrote')
    PIL.Image.new('RGB', (2, 2)).save(buffer, 'PNG', pnginfo=chunks)
    after = written('PNG', read_photo(buffer.getvalue()).metadata)
    assert opened(after).info['gamma'] == 1
    assert b'tIME' not in after
    assert b'Raw profile' not in after


def test_comment_and_caption_stay_in_jpeg():
    after = opened(written('JPEG', read_photo(IMAGES / 'jpeg_metadata.jpg').metadata))
    assert after.info['comment'] == b'a comment'
    assert PIL.IptcImagePlugin.getiptcinfo(after)[2, 120] == b'a caption'


@pytest.mark.parametrize('form', FORMATS)
def test_a_long_profile_is_kept(form):
    """In JPEG it takes several segments."""
    profile = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile('sRGB')).tobytes()
    profile += np.random.default_rng(0).bytes(200_000)
    data = written(form, Metadata(icc=profile))
    assert opened(data).info['icc_profile'] == profile
    assert opened(data).size == (WIDTH, HEIGHT)


def test_a_profile_for_colours_is_not_put_into_a_gray_png(caplog):
    profile = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile('sRGB')).tobytes()
    assert 'icc_profile' not in opened(written('PNG', Metadata(icc=profile), channels=1)).info
    assert 'does not fit 1 channels' in caplog.text
    assert opened(written('JPEG', Metadata(icc=profile), channels=1)).info['icc_profile'] == profile


def exif_block(order='<', maker_note=b'note', orientation=8):
    exif = PIL.Image.Exif()
    exif.endian = order
    exif[BASE.Orientation] = orientation
    exif[BASE.XResolution], exif[BASE.YResolution] = 72.0, 36.0
    exif[BASE.Artist] = 'Ada'
    exif.get_ifd(EXIF)[BASE.MakerNote] = maker_note
    exif.get_ifd(EXIF)[BASE.ExifImageWidth] = 70_000
    return exif.tobytes().removeprefix(b'Exif\0\0')


@pytest.mark.parametrize('order', ['<', '>'])
@pytest.mark.parametrize(('orientation', 'resolution'), [(8, (36, 72)), (3, (72, 36))])
def test_exif_is_changed_where_it_stands(order, orientation, resolution):
    note = bytes(range(200))
    before = exif_block(order, note, orientation)
    after = exif_of_upright(before, 5, 100_000)
    assert len(after) == len(before)
    assert after.index(note) == before.index(note)
    exif = PIL.Image.Exif()
    exif.load(after)
    assert (exif[BASE.Orientation], exif[BASE.Artist]) == (1, 'Ada')
    assert (exif[BASE.XResolution], exif[BASE.YResolution]) == resolution
    assert exif.get_ifd(EXIF)[BASE.ExifImageWidth] == 100_000


@pytest.mark.parametrize('order', ['<', '>'])
def test_exif_of_either_byte_order_goes_into_tiff(order):
    image = np.random.default_rng(0).integers(0, 65_536, (20, 30, 3), np.uint16)
    buffer = io.BytesIO()
    size = {'height': 20, 'width': 30, 'channels': 3, 'dtype': np.uint16}
    write_photo(buffer, [image], format='TIFF', metadata=Metadata(exif=exif_block(order)), **size)
    assert buffer.getvalue()[:2] == (b'II' if order == '<' else b'MM')
    np.testing.assert_array_equal(read_photo(buffer.getvalue()).pixels, image)
    exif = PIL.Image.Exif()  # which a TIFF file is laid out as
    exif.load(buffer.getvalue())
    assert exif[BASE.Artist] == 'Ada'
    assert exif.get_ifd(EXIF)[BASE.MakerNote] == b'note'


def test_what_would_point_nowhere_does_not_go_into_tiff():
    exif = PIL.Image.Exif()
    exif[BASE.Artist] = 'Ada'
    exif.get_ifd(EXIF)[PIL.ExifTags.IFD.Interop] = {1: 'R98'}
    exif.get_ifd(EXIF)[BASE.MakerNote] = b'note'
    after = opened(written('TIFF', Metadata(exif=exif.tobytes().removeprefix(b'Exif\0\0')))).getexif()
    assert list(after.get_ifd(EXIF)) == [BASE.MakerNote]


BIG = Layout(big=True)
BIG_EXIF = BIG.header(16) + directory_bytes({BASE.Orientation: entry_of(BIG, SHORT, 6)}, BIG, 16)


@pytest.mark.parametrize('form', FORMATS)
@pytest.mark.parametrize('broken', [b'nothing', exif_block()[:20], b'II\x2a\0\xff\xff\xff\xff', BIG_EXIF])
def test_broken_exif_is_left_out_with_a_warning(form, broken, caplog):
    assert not opened(written(form, Metadata(exif=broken, xmp=b'<kept/>'))).getexif().get(BASE.Artist)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert 'left out' in record.message


@given(st.integers(0, 10_000), st.integers(0, 255), st.sampled_from('<>'))
def test_damaged_exif_is_changed_or_refused(position, value, order):
    block = bytearray(exif_block(order))
    block[position % len(block)] = value
    with contextlib.suppress(ValueError):
        assert len(exif_of_upright(bytes(block), 5, 6)) == len(block)
    written('TIFF', Metadata(exif=bytes(block)))


def test_what_is_too_long_for_a_jpeg_is_left_out_with_a_warning(caplog):
    exif = exif_block(maker_note=bytes(70_000))
    after = opened(written('JPEG', Metadata(exif=exif, xmp=bytes(70_000))))
    assert 'exif' not in after.info
    assert 'xmp' not in after.info
    assert len(caplog.records) == 2
    assert opened(written('PNG', Metadata(exif=exif))).getexif()[BASE.Artist] == 'Ada'


@pytest.mark.parametrize(
    ('before', 'after'),
    [
        (b'<a tiff:Orientation="6" b="6"/>', b'<a tiff:Orientation="1" b="6"/>'),
        (b"tiff:Orientation = '8'", b"tiff:Orientation = '1'"),
        (b'<tiff:ImageWidth>12</tiff:ImageWidth>', b'<tiff:ImageWidth>300</tiff:ImageWidth>'),
        (b'exif:PixelYDimension="12"', b'exif:PixelYDimension="200"'),
        (b'1<xmp:Thumbnails><x>\n</x></xmp:Thumbnails>2', b'12'),
        (b'<dc:title>6</dc:title>', b'<dc:title>6</dc:title>'),
    ],
)
def test_xmp_is_made_true(before, after):
    assert xmp_of_upright(before, 200, 300) == after


def test_the_shape_that_tifffile_writes_is_not_kept():
    tifffile = pytest.importorskip('tifffile')
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((3, 4, 3), np.uint8), photometric='rgb')
    metadata = read_photo(buffer.getvalue()).metadata
    assert b'shape' not in metadata.exif
    image = tifffile.imread(io.BytesIO(written('TIFF', metadata)))
    assert image.shape == (HEIGHT, WIDTH, 3)


VALUES = st.binary(min_size=1, max_size=20).map(lambda value: Entry(7, len(value), value))
ENTRIES = st.dictionaries(st.integers(1, 60_000), VALUES, max_size=6)


@given(ENTRIES, ENTRIES.filter(len), st.sampled_from([Layout(order, big) for order in '<>' for big in (False, True)]))
def test_directories_are_read_as_they_were_laid_out(entries, inner, layout):
    start = len(layout.header(0))
    data = layout.header(start) + directory_bytes(entries | {65_000: inner}, layout, start)
    assert layout_of(data) == (layout, start)
    assert len(data) % 2 == 0
    read, end = read_directory(data, layout, start)
    assert data[end : end + 4] == bytes(4)
    place = number(layout, read.pop(65_000))
    for expected, found in ((entries, read), (inner, read_directory(data, layout, place)[0])):
        assert {tag: entry.value for tag, entry in found.items()} == {
            tag: entry.value for tag, entry in expected.items()
        }
