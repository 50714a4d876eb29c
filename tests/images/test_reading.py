"""Images of every kind, made by other programs (tests/reference/images), and files that are none."""

import io
import os
import pathlib
import re
import struct
import subprocess
import sys
import tracemalloc

import numpy as np
import PIL.Image
import pytest

from nsr_jax.errors import UserError
from nsr_jax.images.exif import layout_of, read_directory
from nsr_jax.images.formats import SUFFIXES
from nsr_jax.images.reading import decode_image, list_images, list_photos, photo_size, read_image, read_photo
from tests.reference.images import picture

IMAGES = pathlib.Path(picture.__file__).parent
BILEVEL = np.where(picture.BILEVEL, 255, 0).astype(np.uint8)
TRANSPARENT = np.where((picture.RGB8 == (0x03, 0xFA, 0x00)).all(-1), 0, 255).astype(np.uint8)


def read(name, **options):
    return read_photo(IMAGES / name, **options)


@pytest.mark.parametrize(
    ('name', 'pixels', 'alpha'),
    [
        ('png_gray8.png', picture.GRAY8, None),
        ('png_gray16.png', picture.GRAY16, None),
        ('png_gray_alpha8.png', picture.GRAY8, picture.ALPHA8),
        ('png_gray_alpha16.png', picture.GRAY16, picture.ALPHA16),
        ('png_rgb8.png', picture.RGB8, None),
        ('png_rgb16.png', picture.RGB16, None),
        ('png_rgba8.png', picture.RGB8, picture.ALPHA8),
        ('png_rgba16.png', picture.RGB16, picture.ALPHA16),
        ('png_interlaced16.png', picture.RGB16, None),
        ('png_palette.png', picture.RGB8, None),
        ('png_bilevel.png', BILEVEL, None),
        ('png_transparent_colour.png', picture.RGB8, TRANSPARENT),
        ('jpeg_gray.jpg', picture.GRAY8, None),
        ('tiff_gray8.tif', picture.GRAY8, None),
        ('tiff_gray16.tif', picture.GRAY16, None),
        ('tiff_gray_alpha16.tif', picture.GRAY16, picture.ALPHA16),
        ('tiff_rgb8.tif', picture.RGB8, None),
        ('tiff_rgb16.tif', picture.RGB16, None),
        ('tiff_rgba16.tif', picture.RGB16, picture.ALPHA16),
        ('tiff_tiled_lzw.tif', picture.RGB16, None),
        ('tiff_planar_packbits.tif', picture.RGB8, None),
        ('tiff_bigendian_zip.tif', picture.RGB16, None),
        ('tiff_bigtiff_zip.tif', picture.RGB16, None),
        ('tiff_bilevel_g4.tif', BILEVEL, None),
        ('tiff_palette.tif', picture.RGB8, None),
        ('tiff_jpeg.tif', picture.RGB8, None),
        ('tiff_orientation6.tif', np.rot90(picture.RGB8, -1), None),
        ('webp_rgb.webp', picture.RGB8, None),
        ('webp_rgba.webp', picture.RGB8, picture.ALPHA8),
        ('bmp_rgb.bmp', picture.RGB8, None),
        ('bmp_palette.bmp', picture.RGB8, None),
        ('bmp_rle.bmp', picture.RGB8, None),
        ('bmp_bilevel.bmp', BILEVEL, None),
        ('bmp_gray_os2.bmp', np.repeat(picture.GRAY8, 3, axis=-1), None),
        ('bmp_rgba.bmp', picture.RGB8, picture.ALPHA8),
    ],
)
def test_every_kind_as_it_came(name, pixels, alpha):
    photo = read(name)
    assert photo.format == name.partition('_')[0].upper()
    assert photo.pixels.dtype == pixels.dtype
    np.testing.assert_array_equal(photo.pixels, pixels)
    if alpha is None:
        assert photo.alpha is None
    else:
        assert photo.alpha.dtype == alpha.dtype
        np.testing.assert_array_equal(photo.alpha, alpha)


def test_a_palette_with_transparency():
    photo = read('png_palette_alpha.png')
    np.testing.assert_array_equal(photo.alpha, picture.CUT)
    seen = picture.CUT > 0
    np.testing.assert_array_equal(photo.pixels[seen], picture.RGB8[seen])


def test_premultiplied_colours_are_divided():
    """Which loses what rounding to few levels of alpha has lost already."""
    photo = read('tiff_associated.tif')
    np.testing.assert_array_equal(photo.alpha, picture.ALPHA8)
    visible = picture.ALPHA8 > 127
    assert np.abs(photo.pixels[visible] - picture.RGB8[visible].astype(int)).max() <= 2


@pytest.mark.parametrize('name', ['jpeg_rgb.jpg', 'jpeg_progressive.jpg', 'webp_lossy.webp'])
def test_lossy_files_are_near(name):
    photo = read(name)
    assert np.abs(photo.pixels - picture.RGB8.astype(int)).mean() < 3
    with PIL.Image.open(IMAGES / name) as image:
        assert np.abs(photo.pixels - np.asarray(image).astype(int)).max() <= 1


@pytest.mark.parametrize('orientation', range(1, 9))
def test_every_orientation_is_turned_upright(orientation):
    """A picture of slopes in another direction in each channel: turned otherwise it would be far off."""
    photo = read(f'jpeg_orientation{orientation}.jpg')
    assert photo.pixels.shape == picture.RGB8.shape
    assert np.abs(photo.pixels - picture.RGB8.astype(int)).max() <= 4
    assert photo.pixels.flags.c_contiguous


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('jpeg_cmyk.jpg', r'4 channels of type uchar, cmyk; accepted are gray and RGB of 8 or 16 bits'),
        ('tiff_cmyk.tif', r'TIFF of CMYK; accepted are gray, RGB and palettes'),
        ('tiff_lab.tif', r'TIFF of CIE L\*a\*b\*; accepted'),
        ('tiff_float.tif', r'3 channels of type float'),
        ('tiff_zstd.tif', r'of an unknown kind: .*ZSTD'),
        ('tiff_pages.tif', r'2 frames or pages in one file; save them as one file each'),
        ('webp_animated.webp', r'2 frames or pages'),
        ('gif_animated.gif', r'not a PNG, JPEG, TIFF, WebP or BMP image'),
    ],
)
def test_other_kinds_are_refused_in_one_line(name, reason):
    with pytest.raises(UserError, match=f'{name}: .*{reason}') as caught:
        read(name)
    assert '\n' not in str(caught.value)


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def encoded(image, form='PNG', **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def test_an_animated_png_is_refused():
    black, red = PIL.Image.new('RGB', (4, 4)), PIL.Image.new('RGB', (4, 4), (255, 0, 0))
    with pytest.raises(UserError, match='clip: 2 frames'):
        read_photo(encoded(black, 'PNG', save_all=True, append_images=[red]), name='clip')


def test_of_several_pictures_in_a_jpeg_the_first_is_read():
    """As phones make them, with a gain map behind."""
    black, red = PIL.Image.new('RGB', (4, 4)), PIL.Image.new('RGB', (2, 2), (255, 0, 0))
    photo = read_photo(encoded(black, 'MPO', save_all=True, append_images=[red]))
    np.testing.assert_array_equal(photo.pixels, np.zeros((4, 4, 3)))


@pytest.mark.parametrize(
    ('tags', 'reason'),
    [({254: 1}, 'file of previews'), ({50706: b'\1\4\0\0'}, 'raw photograph')],
)
def test_raw_photographs_are_not_taken_for_their_previews(tags, reason):
    data = encoded(PIL.Image.new('RGB', (4, 4)), 'TIFF', tiffinfo=tags)
    with pytest.raises(UserError, match=reason):
        read_photo(data)


def test_bytes_are_read_and_called_as_asked():
    data = (IMAGES / 'png_rgb16.png').read_bytes()
    np.testing.assert_array_equal(read_photo(data).pixels, picture.RGB16)
    with pytest.raises(UserError, match=r'^<stdin>: broken'):
        read_photo(data[:60], name='<stdin>')
    with pytest.raises(UserError, match=r'^image: broken'):
        read_photo(data[:60])


def test_what_the_file_is_counts_and_not_its_name(tmp_path):
    path = tmp_path / 'photo.jpg'
    path.write_bytes((IMAGES / 'webp_rgb.webp').read_bytes())
    assert read_photo(path).format == 'WEBP'


KINDS = [
    'png_rgb16.png',
    'jpeg_rgb.jpg',
    'tiff_tiled_lzw.tif',
    'tiff_bigtiff_zip.tif',
    'webp_lossy.webp',
    'bmp_rgb.bmp',
]


def test_a_damaged_tag_is_not_worth_a_word(capfd, caplog):
    """libvips would warn, of a name in bytes that are not UTF-8, from where Python can only print the traceback."""
    data = bytearray((IMAGES / 'tiff_rgb16.tif').read_bytes())
    layout, first = layout_of(bytes(data))
    place = read_directory(bytes(data), layout, first)[0][269].place
    for kind, count, offset in ((2, 100, 0xFFFF), (0x9999, 1, 0), (2, 0x99999999, 0x99)):
        struct.pack_into('<HII', data, place + 2, kind, count, offset)
        np.testing.assert_array_equal(read_photo(bytes(data)).pixels, picture.RGB16)
    assert capfd.readouterr().err == ''
    assert not caplog.records


def test_a_small_file_takes_little_memory_whatever_the_limit():
    path = IMAGES / 'png_rgb8.png'
    tracemalloc.start()
    try:
        read_photo(path, largest_pixels=4_000_000_000)
        with path.open('rb') as stream:
            read_photo(stream, largest_pixels=4_000_000_000)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize('name', KINDS)
def test_a_truncated_file_is_named_wherever_it_ends(tmp_path, name):
    data = (IMAGES / name).read_bytes()
    path = tmp_path / 'cut.img'
    # Of the two TIFF files from libtiff, names stand at the end: without them the picture is still whole.
    last = len(data) - (300 if name.startswith('tiff') else 13)
    for length in [*range(40), *range(40, last, 29), last]:
        path.write_bytes(data[:length])
        for each in (read_photo, read_image):
            with pytest.raises(UserError, match=r'cut\.img: ') as caught:
                each(path)
            assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('text.png', 'not a PNG, JPEG(, TIFF, WebP)? or BMP image'),
        ('empty.png', 'an empty file'),
        ('none.png', 'cannot be read: No such file'),
        ('.', 'cannot be read: not a file'),
    ],
)
def test_files_that_are_no_images_are_named(tmp_path, name, reason):
    (tmp_path / 'text.png').write_text('not an image')
    (tmp_path / 'empty.png').touch()
    for each in (read_photo, read_image):
        with pytest.raises(UserError, match=f'^{tmp_path / name}: {reason}'):
            each(tmp_path / name)


# --- 8-bit gray and RGB, for training and evaluation ---


@pytest.mark.parametrize('image_format', ['PNG', 'JPEG', 'BMP'])
@pytest.mark.parametrize('shape', [(8, 9), (8, 9, 3)])
def test_decodes_what_pillow_decodes(image_format, shape):
    data = encoded(PIL.Image.fromarray(noise(*shape)), image_format)
    expected = np.asarray(PIL.Image.open(io.BytesIO(data))).reshape(8, 9, -1)
    np.testing.assert_array_equal(decode_image(data, 'x'), expected)


def test_exif_orientation_turns_the_image_upright():
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # The camera was turned: shown a quarter clockwise.
    data = encoded(PIL.Image.fromarray(noise(4, 6, 3)), exif=exif)
    np.testing.assert_array_equal(decode_image(data, 'x'), np.rot90(noise(4, 6, 3), -1))


@pytest.mark.parametrize(
    ('mode', 'data'),
    [
        ('P', encoded(PIL.Image.new('P', (3, 3)))),
        ('1', encoded(PIL.Image.new('1', (3, 3)))),
        ('RGBA', encoded(PIL.Image.new('RGBA', (3, 3)))),
        ('LA', encoded(PIL.Image.new('LA', (3, 3)))),
        ('CMYK', encoded(PIL.Image.new('CMYK', (3, 3)), 'JPEG')),
        ('I;16', encoded(PIL.Image.fromarray(np.zeros((3, 3), np.uint16)))),
        ('RGB with 16 bits', (IMAGES / 'png_rgb16.png').read_bytes()),
        ('RGB with transparency', encoded(PIL.Image.new('RGB', (3, 3)), transparency=(0, 0, 0))),
    ],
)
def test_other_modes_are_refused_by_name(tmp_path, mode, data):
    path = tmp_path / 'odd.png'
    path.write_bytes(data)
    with pytest.raises(UserError, match=f'odd.png: image of mode {mode}.*8-bit gray .* RGB') as caught:
        read_image(path)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('name', sorted(path.name for path in IMAGES.glob('*.*') if path.suffix in SUFFIXES))
def test_the_size_in_a_header_is_that_of_the_picture(name):
    height, width = picture.GRAY8.shape[:2]
    lies = re.search('jpeg_orientation[5-8]', name)
    # Lab is a kind that is refused, and this libvips does not open it.
    assert photo_size(IMAGES / name) in [(width, height) if lies else (height, width), None][: 1 + ('_lab' in name)]


def test_the_size_is_that_of_a_file_whose_pixels_are_missing_and_none_of_what_is_no_photograph(tmp_path):
    image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8))
    for name in ('a[1].png', 'a.jpg', 'a.tif', 'a.webp', 'a.bmp'):
        image.save(tmp_path / name, lossless=True)
        if name not in ('a.tif', 'a.webp'):  # which has its header at its end, and which libvips wants to be whole
            os.truncate(tmp_path / name, 1000)
        assert photo_size(tmp_path / name) == (300, 200), name
        os.truncate(tmp_path / name, 20)
        assert photo_size(tmp_path / name) is None
    (tmp_path / 'a.txt').write_text('no image')
    os.mkfifo(tmp_path / 'pipe.png')
    for name in ('a.txt', 'pipe.png', 'absent.png', '.', '\udcff.png', 'x' * 300):
        assert photo_size(tmp_path / name) is None


def test_list_images_takes_images_of_the_folder_itself_by_name(tmp_path):
    for name in ('b.PNG', 'a.jpg', 'c.jpeg', 'd.bmp', 'e.txt', '._a.jpg', 'f.gif'):
        (tmp_path / name).touch()
    (tmp_path / 'inner').mkdir()
    (tmp_path / 'inner' / 'g.png').touch()
    (tmp_path / 'folder.png').mkdir()
    assert [path.name for path in list_images(tmp_path)] == ['a.jpg', 'b.PNG', 'c.jpeg', 'd.bmp']


def test_list_photos_takes_every_suffix_that_restoring_takes(tmp_path):
    for suffix in SUFFIXES:
        (tmp_path / f'a{suffix}').touch()
        (tmp_path / f'b{suffix.upper()}').touch()
    (tmp_path / 'a.txt').touch()
    assert {'.jfif', '.jpe', '.dib', '.tiff'} < SUFFIXES.keys()
    assert {path.suffix.lower() for path in list_photos(tmp_path)} == SUFFIXES.keys()
    assert len(list_photos(tmp_path)) == 2 * len(SUFFIXES)


def test_list_images_names_a_missing_and_an_empty_folder(tmp_path):
    with pytest.raises(UserError, match=r'nowhere: no such folder'):
        list_images(tmp_path / 'nowhere')
    with pytest.raises(UserError, match=r'no image in this folder.*\.png'):
        list_images(tmp_path)


def test_images_are_read_without_the_dataset_library():
    program = (
        'import sys, nsr_jax.images.reading, nsr_jax.images.writing\n'
        'loaded = {"tensorflow_datasets", "tensorflow", "torch", "skimage"} & set(sys.modules)\n'
        'sys.exit(str(loaded) if loaded else 0)'
    )
    subprocess.run([sys.executable, '-c', program], check=True)
