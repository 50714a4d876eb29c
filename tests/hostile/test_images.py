"""Image files made to crash, hang or fill the memory of whoever reads them: read, or refused in one line."""

import io
import os
import pathlib
import struct
import warnings
import zlib

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsr_jax.errors import UserError
from nsr_jax.images import reading
from nsr_jax.images.exif import Entry, Layout, directory_bytes, exif_of_upright, layout_of, read_directory
from nsr_jax.images.formats import FORMATS, SUFFIXES
from nsr_jax.images.metadata import Metadata
from nsr_jax.images.png_file import SIGNATURE, chunk, chunks
from nsr_jax.images.reading import decode_image, image_shape, read_image, read_photo
from nsr_jax.images.writing import write_photo
from nsr_jax.images.xmp import xmp_of_upright
from tests.hostile.changes import changed, changes, examples, is_one_line
from tests.memory import run_within
from tests.reference.images import picture

FOLDER = pathlib.Path(picture.__file__).parent
FILES = {path.name: path.read_bytes() for path in sorted(FOLDER.iterdir()) if path.suffix in SUFFIXES}
PNG_FILES = sorted(name for name in FILES if name.endswith('.png'))
CHUNK_KINDS = (
    b'tEXt',
    b'zTXt',
    b'iTXt',
    b'eXIf',
    b'iCCP',
    b'acTL',
    b'pHYs',
    b'tRNS',
    b'PLTE',
    b'gAMA',
    b'cHRM',
    b'cICP',
)
PIXELS = 4_000_000


def read_and_write(data):
    """Through all that restoring does with a file, but for the network; and through what training does with it."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # Pillow's, of tags
        for read in (decode_image, image_shape):
            try:
                read(data, 'NAME')
            except UserError as error:
                assert is_one_line(str(error))
                assert str(error).startswith('NAME: ')
    try:
        photo = read_photo(data, name='NAME', largest_pixels=PIXELS)
    except UserError as error:
        assert is_one_line(str(error))
        assert str(error).startswith('NAME: ')
        return False
    height, width = photo.pixels.shape[:2]
    pixels = photo.pixels if photo.alpha is None else np.concatenate([photo.pixels, photo.alpha[..., None]], axis=-1)
    about = {'height': height, 'width': width, 'channels': pixels.shape[-1], 'dtype': pixels.dtype}
    for form in FORMATS:
        buffer = io.BytesIO()
        try:
            write_photo(buffer, [pixels], format=form, metadata=photo.metadata, **about)
        except UserError as error:
            assert 'cannot hold' in str(error)
        else:
            read_photo(buffer.getvalue())
    return True


def fuzz_files(number):
    @examples(number)
    @given(st.sampled_from(sorted(FILES)), changes, st.sampled_from([None, *sorted(FILES)]), st.floats(0, 1))
    def test(name, changes, other, place):
        data = changed(FILES[name], changes)
        if other:  # the head of one file before the tail of another
            data = data[: int(place * len(data))] + FILES[other][int(place * len(FILES[other])) :]
        read_and_write(data)

    return test


def fuzz_chunks(number):
    """PNG files whose checksums are right, so that what lies behind them is reached."""
    odd_chunk = st.tuples(st.floats(0, 1), st.sampled_from(CHUNK_KINDS), st.binary(max_size=30))

    @examples(number)
    @given(st.sampled_from(PNG_FILES), st.floats(0, 1), changes, st.booleans(), st.lists(odd_chunk, max_size=3))
    def test(name, place, changes, inflate, added):
        parts = [(kind, bytes(body)) for kind, body in chunks(FILES[name])]
        index = min(int(place * len(parts)), len(parts) - 1)
        kind, body = parts[index]
        if inflate and kind == b'IDAT':
            body = zlib.compress(changed(zlib.decompress(body), changes))
        else:
            body = changed(body, changes)
        parts[index] = kind, body
        for place, kind, body in added:
            parts.insert(int(place * len(parts)), (kind, body))
        read_and_write(SIGNATURE + b''.join(chunk(*part) for part in parts))

    return test


test_changed_files_are_read_or_refused = fuzz_files(120)
test_changed_files_are_read_or_refused_long = pytest.mark.slow(fuzz_files(30_000))
test_changed_chunks_are_read_or_refused = fuzz_chunks(120)
test_changed_chunks_are_read_or_refused_long = pytest.mark.slow(fuzz_chunks(30_000))


def test_the_honest_files_are_read():
    """So the fuzzers start from files that go all the way through."""
    refused = [name for name, data in FILES.items() if not read_and_write(data)]
    others = ('cmyk', 'lab', 'float', 'zstd', 'pages', 'animated')  # as their names say
    assert all(any(word in name for word in others) for name in refused)
    assert len(refused) == 7


def png_with(*extra, width=19, height=13, depth=8, kind=2, interlaced=0, pixels=None):
    parts = [(kind, bytes(body)) for kind, body in chunks(FILES['png_rgb8.png'])]
    header = struct.pack('>IIBBBBB', width, height, depth, kind, 0, 0, interlaced)
    body = b''.join(body for kind, body in parts if kind == b'IDAT') if pixels is None else pixels
    return SIGNATURE + chunk(b'IHDR', header) + b''.join(extra) + chunk(b'IDAT', body) + chunk(b'IEND', b'')


def inflating_to(number):
    packing = zlib.compressobj(1)
    parts = [packing.compress(bytes(2**20)) for _ in range(number // 2**20)]
    return b''.join([*parts, packing.flush()])


def directory(*entries, start=8):
    table = b''.join(struct.pack('<HHII', *entry) for entry in entries)
    return struct.pack('<4sIH', b'II\x2a\0', start, len(entries)) + table + bytes(4)


def tiff_of(width, height, **changes):
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 200, 277: 1, 278: height, 279: 256} | {
        int(tag[1:]): value for tag, value in changes.items()
    }
    return directory(*[(tag, 4, 1, value) for tag, value in sorted(tags.items())]).ljust(200, b'\0') + bytes(256)


def bmp_of(width, height, bits=24, packing=0, rest=b'', colours=0):
    header = struct.pack('<IiiHHIIiiII', 40, width, height, 1, bits, packing, 0, 0, 0, colours, 0)
    return b'BM' + struct.pack('<IHHI', 54, 0, 0, 54 + (1024 if bits == 8 else 0)) + header + rest


def jpeg_of(width, height, name='jpeg_rgb.jpg'):
    data = FILES[name]
    place = max(data.find(b'\xff\xc0'), data.find(b'\xff\xc2')) + 5
    return data[:place] + struct.pack('>HH', height, width) + data[place + 4 :]


def jpeg_with(*segments):
    data = FILES['jpeg_rgb.jpg']
    laid = (struct.pack('>BBH', 0xFF, marker, len(body) + 2) + body for marker, body in segments)
    return data[:2] + b''.join(laid) + data[2:]


def overlapping(number=65_535, size=2**20):
    """EXIF of very many entries, each of which claims the same long place."""
    return directory(*[(tag, 7, size, 8) for tag in range(number)]) + bytes(size)


XMP, PNG_XMP = b'http://ns.adobe.com/xap/1.0/\0', b'XML:com.adobe.xmp\0\0\0\0\0'


def bombs():
    """Small files that would become huge, or take for ever, by name."""
    huge = inflating_to(2**29)
    exif_loop = directory((0x8769, 4, 1, 8))
    return {
        'png profile': png_with(chunk(b'iCCP', b'x\0\0' + huge)),
        'png text': png_with(*[chunk(b'zTXt', b'%d\0\0' % number + huge) for number in range(3)]),
        'png international text': png_with(chunk(b'iTXt', b'x\0\1\0\0\0' + huge)),
        'png XMP': png_with(chunk(b'iTXt', b'XML:com.adobe.xmp\0\1\0\0\0' + huge)),
        'png old profile': png_with(chunk(b'zTXt', b'Raw profile type exif\0\0' + huge)),
        'png pixels': png_with(pixels=huge),
        'png 2^31': png_with(width=2**31 - 1, height=2**31 - 1),
        'png long': png_with(width=2**31 - 1, height=1),
        'png nothing': png_with(width=0, height=0),
        'png deep': png_with(width=15_800, height=15_800, depth=16, kind=6, interlaced=1),
        'png many entries': png_with(chunk(b'eXIf', overlapping())),
        'png loop': png_with(chunk(b'eXIf', exif_loop)),
        'png thumbnails': png_with(chunk(b'iTXt', PNG_XMP + b'<xmp:Thumbnails ' * 200_000)),
        'png spaces': png_with(chunk(b'iTXt', PNG_XMP + (b'tiff:Orientation' + b' ' * 3000) * 1000)),
        'png frames': png_with(chunk(b'acTL', struct.pack('>II', 2**32 - 1, 0))),
        'png chunks': png_with(*[chunk(b'tEXt', b'k\0v')] * 50_000),
        'jpeg 65500': jpeg_of(65_500, 65_500),
        'jpeg progressive': jpeg_of(65_500, 65_500, 'jpeg_progressive.jpg'),
        'jpeg nothing': jpeg_of(0, 0),
        'jpeg many EXIF': jpeg_with(*[(0xE1, b'Exif\0\0' + bytes(65_000))] * 1500),
        'jpeg many entries': jpeg_with((0xE1, b'Exif\0\0' + overlapping(3000, 25_000))),
        'jpeg thumbnails': jpeg_with((0xE1, XMP + b'<xmp:Thumbnails' * 4000)),
        'jpeg profile': jpeg_with(*[(0xE2, b'ICC_PROFILE\0' + bytes([n, 255]) + bytes(60_000)) for n in range(256)]),
        'jpeg comments': jpeg_with(*[(0xFE, b'')] * 100_000),
        'jpeg filling': FILES['jpeg_rgb.jpg'][:2] + b'\xff' * 500_000 + FILES['jpeg_rgb.jpg'][2:],
        'jpeg loop': jpeg_with((0xE1, b'Exif\0\0' + exif_loop)),
        'tiff 2^31': tiff_of(2**31 - 1, 2**31 - 1),
        'tiff nothing': tiff_of(0, 0),
        'tiff claims': tiff_of(15_800, 15_800),
        'tiff rows': tiff_of(16, 16, t278=0),
        'tiff channels': tiff_of(16, 16, t277=65_535),
        'tiff loop': tiff_of(16, 16, t34665=8),
        'tiff tile': tiff_of(16, 16, t322=2**31 - 16, t323=2**31 - 16, t324=200, t325=256),
        'tiff many entries': overlapping(65_535, 2**17),
        'tiff many numbers': directory((254, 1, 2**26, 26)) + bytes(2**26),
        'webp 2^24': b'RIFF\x64\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0' + b'\xff' * 6 + FILES['webp_rgb.webp'][12:],
        'webp profile': b'RIFF\xff\xff\xff\x7fWEBPVP8X\x0a\0\0\0\x20\0\0\0' + bytes(6) + b'ICCP\xff\xff\xff\x7f',
        'bmp 2^31': bmp_of(2**31 - 1, 2**31 - 1),
        'bmp upside down': bmp_of(5, -(2**31)),
        'bmp negative': bmp_of(-5, 5),
        'bmp nothing': bmp_of(0, 0),
        'bmp runs': bmp_of(15_700, 15_700, 8, 1, bytes(1024) + b'\0\2\xff\xff' * 100_000),
        'bmp colours': bmp_of(5, 5, 8, rest=bytes(100), colours=2**32 - 1),
    }  # fmt: skip


def read_and_write_bombs():
    reading.LARGEST_PIXELS = PIXELS
    for name, data in bombs().items():
        print(name, read_and_write(data), sep='=', flush=True)


def test_bombs_stay_within_bounds():
    """A process of 1 GiB lives through all of them; what is read nevertheless is the small image around the bomb."""
    answers = dict(line.split('=') for line in run_within(read_and_write_bombs, 2**30))
    assert len(answers) > 40
    refused = {name for name, was_read in answers.items() if was_read == 'False'}
    large = ('2^31', '2^24', '65500', 'nothing', 'claims', 'deep', 'long', 'negative', 'runs', 'frames', 'progressive')
    assert {name for name in answers if name.endswith(large)} <= refused
    assert len(refused) < len(answers) - 10


def test_the_limit_of_pixels_is_one_and_errors_say_how_to_raise_it(monkeypatch):
    data = FILES['png_rgb8.png']
    readers = (
        lambda data: read_photo(data, name='x'),
        lambda data: decode_image(data, 'x'),
        lambda data: image_shape(data, 'x'),
    )
    for read in readers:
        for bomb in (png_with(width=60_000, height=60_000), bmp_of(60_000, 60_000)):
            with pytest.raises(UserError, match=r'^x: 60000x60000 pixels are more than the 250,000,000 that are acc'):
                read(bomb)
    assert read_photo(data, largest_pixels=13 * 19).pixels.shape == (13, 19, 3)
    error = '19x13 pixels are more than the 246 that are accepted; largest_pixels, or LARGEST_PIXELS in .* raises'
    with pytest.raises(UserError, match=error):
        read_photo(data, largest_pixels=13 * 19 - 1)
    monkeypatch.setattr(reading, 'LARGEST_PIXELS', 13 * 19 - 1)
    for read in readers:
        with pytest.raises(UserError, match=error):
            read(data)
    monkeypatch.setattr(reading, 'LARGEST_PIXELS', 13 * 19)
    assert decode_image(data, 'x').shape == (13, 19, 3)


def test_the_limit_is_not_pillows(monkeypatch):
    monkeypatch.setattr(PIL.Image, 'MAX_IMAGE_PIXELS', 10)
    for name in ('png_rgb8.png', 'jpeg_rgb.jpg', 'bmp_rgb.bmp'):
        assert decode_image(FILES[name], name).shape == read_photo(FILES[name]).pixels.shape == (13, 19, 3)


def test_the_blocks_of_exif_in_one_file_are_limited():
    for read in (lambda data: read_photo(data, name='x'), lambda data: decode_image(data, 'x')):
        read(jpeg_with(*[(0xE1, b'Exif\0\0' + bytes(9))] * 100))
        with pytest.raises(UserError, match=r'^x: more than 100 blocks of EXIF in one file$'):
            read(jpeg_with(*[(0xE1, b'Exif\0\0' + bytes(9))] * 101))


def test_what_never_ends_is_not_read_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, 'LARGEST_PIXELS', 1000)
    with open('/dev/zero', 'rb') as stream, pytest.raises(UserError, match='standard input: a larger file than any'):
        read_photo(stream, name='standard input', largest_pixels=1000)
    with open('/dev/zero', 'rb') as stream, pytest.raises(UserError, match='x: a larger file than any'):
        reading.read_stream(stream, 'x')
    os.mkfifo(tmp_path / 'pipe.png')
    (tmp_path / 'zero.png').symlink_to('/dev/zero')
    with open(tmp_path / 'sparse.png', 'wb') as file:
        file.write(FILES['png_rgb8.png'])
        file.truncate(2**40)
    for name, reason in (
        ('pipe', 'cannot be read: not'),
        ('zero', 'cannot be read: not'),
        ('sparse', 'a larger file than any image'),
    ):
        for read in (read_image, lambda path: read_photo(path, largest_pixels=1000)):
            with pytest.raises(UserError, match=f'{name}.png: {reason}'):
                read(tmp_path / f'{name}.png')


def test_a_stream_is_read_as_its_bytes_are():
    stream = io.BytesIO(FILES['png_rgb16.png'])
    np.testing.assert_array_equal(read_photo(stream).pixels, picture.RGB16)


def test_a_resolution_that_no_file_could_hold_is_left_out():
    data = bytearray(FILES['bmp_rgb.bmp'])
    data[38:46] = struct.pack('<ii', 2**31 - 1, 2**31 - 1)
    assert read_photo(bytes(data)).metadata.resolution is None
    data[38:46] = struct.pack('<ii', 3937, 3937)
    assert read_photo(bytes(data)).metadata.resolution == pytest.approx((100, 100), rel=1e-3)


def test_exif_of_wrong_types_does_not_stop_an_image():
    """Pillow, asked to turn an image upright, would write its EXIF anew, and stumble over a fraction for a name."""
    exif = directory((0x010F, 5, 1, 38), (0x0112, 3, 1, 6)) + struct.pack('<II', 1, 0)
    buffer = io.BytesIO()
    PIL.Image.fromarray(picture.RGB8).save(buffer, 'PNG', exif=b'Exif\0\0' + exif)
    np.testing.assert_array_equal(decode_image(buffer.getvalue(), 'x'), np.rot90(picture.RGB8, -1))


def test_values_longer_than_the_file_are_broken_entries():
    layout = Layout()
    data = overlapping(100, 1000)
    entries, _ = read_directory(data, layout, 8)
    assert 0 < sum(len(entry.value) for entry in entries.values()) <= len(data)
    honest = {tag: Entry(7, 1000, bytes(1000)) for tag in range(100)}
    laid = layout.header(8) + directory_bytes(honest, layout, 8)
    assert len(read_directory(laid, layout, 8)[0]) == 100


# Of a camera's file whose bits were flipped: what its entries say stands in the directory itself.
OVER_ITSELF = bytes.fromhex(
    '4d4d002a00000005011200030000000100080000011a0005000000010000004a011b00050000000100000052012800030000000106000100'
    '00021300030000000100010000000000000000000100000001000000920100000001'
)


def test_a_directory_over_itself_is_left_out():
    """It can be read, but not after it is made true."""
    read_directory(OVER_ITSELF, *layout_of(OVER_ITSELF))
    with pytest.raises(ValueError, match='broken directory'):
        exif_of_upright(OVER_ITSELF, 13, 19)
    shape = {'height': 13, 'width': 19, 'channels': 3, 'dtype': np.uint8}
    for form in FORMATS:
        buffer = io.BytesIO()
        write_photo(buffer, [picture.RGB8], format=form, metadata=Metadata(exif=OVER_ITSELF), **shape)
        assert not read_photo(buffer.getvalue()).metadata.exif


def test_thumbnails_in_xmp_are_dropped_wherever_they_are():
    one = b'<xmp:Thumbnails><a/></xmp:Thumbnails>'
    assert xmp_of_upright(b'1' + one + b'2' + one + b'3', 1, 1) == b'123'
    assert xmp_of_upright(b'1' + one + b'2<xmp:Thumbnails>3', 1, 1) == b'12<xmp:Thumbnails>3'
    assert xmp_of_upright(b'</xmp:Thumbnails>1<xmp:Thumbnails>', 1, 1) == b'</xmp:Thumbnails>1<xmp:Thumbnails>'
