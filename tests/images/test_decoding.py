"""Reading and writing images: what comes back, what is refused, and what an interrupted write leaves."""

import io
import os
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsr_jax.errors import UserError
from nsr_jax.images import decoding


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def encoded(image, image_format='PNG', **options):
    buffer = io.BytesIO()
    image.save(buffer, format=image_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize('shape', [(5, 7, 3), (5, 7, 1), (1, 1, 3), (300, 2, 1)])
def test_write_and_read_again(tmp_path, shape):
    image = noise(*shape)
    path = tmp_path / 'new folder' / 'image.png'
    decoding.write_image(path, image)
    read = decoding.read_image(path)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, image)
    assert [entry.name for entry in path.parent.iterdir()] == ['image.png']


def test_gray_without_a_channel_axis_is_written_as_gray(tmp_path):
    decoding.write_image(tmp_path / 'gray.png', noise(4, 6))
    with PIL.Image.open(tmp_path / 'gray.png') as image:
        assert image.mode == 'L'
    np.testing.assert_array_equal(decoding.read_image(tmp_path / 'gray.png')[:, :, 0], noise(4, 6))


@pytest.mark.parametrize('image_format', ['PNG', 'JPEG', 'BMP'])
@pytest.mark.parametrize('shape', [(8, 9), (8, 9, 3)])
def test_decodes_what_pillow_decodes(image_format, shape):
    data = encoded(PIL.Image.fromarray(noise(*shape)), image_format)
    expected = np.asarray(PIL.Image.open(io.BytesIO(data))).reshape(8, 9, -1)
    np.testing.assert_array_equal(decoding.decode_image(data, 'x'), expected)


def test_exif_orientation_turns_the_image_upright():
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # The camera was turned: shown a quarter clockwise.
    data = encoded(PIL.Image.fromarray(noise(4, 6, 3)), exif=exif)
    np.testing.assert_array_equal(decoding.decode_image(data, 'x'), np.rot90(noise(4, 6, 3), -1))


def sixteen_bit_rgb():
    """Pillow cannot write one: a 1x1 PNG by hand."""
    import struct
    import zlib

    def chunk(kind, body):
        return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))

    header = struct.pack('>IIBBBBB', 1, 1, 16, 2, 0, 0, 0)
    pixels = zlib.compress(b'\0' + bytes(6))
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', pixels) + chunk(b'IEND', b'')


@pytest.mark.parametrize(
    ('mode', 'data'),
    [
        ('P', encoded(PIL.Image.new('P', (3, 3)))),
        ('1', encoded(PIL.Image.new('1', (3, 3)))),
        ('RGBA', encoded(PIL.Image.new('RGBA', (3, 3)))),
        ('LA', encoded(PIL.Image.new('LA', (3, 3)))),
        ('CMYK', encoded(PIL.Image.new('CMYK', (3, 3)), 'JPEG')),
        ('I;16', encoded(PIL.Image.fromarray(np.zeros((3, 3), np.uint16)))),
        ('RGB with 16 bits', sixteen_bit_rgb()),
        ('RGB with transparency', encoded(PIL.Image.new('RGB', (3, 3)), transparency=(0, 0, 0))),
    ],
)
def test_other_modes_are_refused_by_name(tmp_path, mode, data):
    path = tmp_path / 'odd.png'
    path.write_bytes(data)
    with pytest.raises(UserError, match=f'odd.png: image of mode {mode}.*8-bit gray .* RGB') as caught:
        decoding.read_image(path)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('image_format', ['PNG', 'JPEG', 'BMP'])
def test_a_truncated_file_is_named_wherever_it_ends(tmp_path, image_format):
    data = encoded(PIL.Image.fromarray(noise(16, 16, 3)), image_format)
    for length in [*range(0, 60), len(data) // 2, len(data) - 40]:
        path = tmp_path / 'cut.img'
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match=r'cut\.img: '):
            decoding.read_image(path)


@given(st.integers(0, 10_000), st.integers(0, 255), st.sampled_from(['PNG', 'JPEG', 'BMP']))
def test_a_damaged_file_is_read_or_named_but_never_another_error(position, value, image_format):
    data = bytearray(encoded(PIL.Image.fromarray(noise(16, 16, 3)), image_format))
    data[position % len(data)] = value
    try:
        image = decoding.decode_image(bytes(data), 'damaged')
    except UserError as error:
        assert str(error).startswith('damaged: ')
        assert '\n' not in str(error)
    else:
        assert image.dtype == np.uint8
        assert image.ndim == 3


def test_other_formats_and_missing_files_are_named(tmp_path):
    (tmp_path / 'text.png').write_text('not an image')
    with pytest.raises(UserError, match=r'text\.png: not a PNG, JPEG or BMP image'):
        decoding.read_image(tmp_path / 'text.png')
    with pytest.raises(UserError, match=r'none\.png: cannot be read: No such file'):
        decoding.read_image(tmp_path / 'none.png')


def test_list_images_takes_images_of_the_folder_itself_by_name(tmp_path):
    for name in ('b.PNG', 'a.jpg', 'c.jpeg', 'd.bmp', 'e.txt', '._a.jpg', 'f.gif'):
        (tmp_path / name).touch()
    (tmp_path / 'inner').mkdir()
    (tmp_path / 'inner' / 'g.png').touch()
    (tmp_path / 'folder.png').mkdir()
    assert [path.name for path in decoding.list_images(tmp_path)] == ['a.jpg', 'b.PNG', 'c.jpeg', 'd.bmp']


def test_list_images_names_a_missing_and_an_empty_folder(tmp_path):
    with pytest.raises(UserError, match=r'nowhere: no such folder'):
        decoding.list_images(tmp_path / 'nowhere')
    with pytest.raises(UserError, match=r'no image in this folder.*\.png'):
        decoding.list_images(tmp_path)


@pytest.mark.parametrize('image', [noise(4, 4, 3) / 255, noise(4, 4, 4), noise(4), noise(4, 4).astype(np.uint16)])
def test_only_uint8_images_are_written(tmp_path, image):
    with pytest.raises(ValueError, match='image must be uint8'):
        decoding.write_image(tmp_path / 'x.png', image)
    assert list(tmp_path.iterdir()) == []


def test_only_png_is_written(tmp_path):
    with pytest.raises(UserError, match=r'x\.jpg: .* must end in \.png'):
        decoding.write_image(tmp_path / 'x.jpg', noise(4, 4, 3))


def test_a_write_that_fails_keeps_the_old_file_and_leaves_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / 'x.png'
    decoding.write_image(path, noise(4, 4, 3))

    def full(source, target):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(UserError, match=r'x\.png: cannot be written: No space left'):
        decoding.write_image(path, noise(8, 8, 3))
    np.testing.assert_array_equal(decoding.read_image(path), noise(4, 4, 3))
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match='cannot be written'):
        decoding.write_image(tmp_path / 'file' / 'x.png', noise(4, 4, 3))


def test_crop_to_multiple():
    image = noise(7, 11, 3)
    np.testing.assert_array_equal(decoding.crop_to_multiple(image, 3, 'x'), image[:6, :9])
    np.testing.assert_array_equal(decoding.crop_to_multiple(image, 1, 'x'), image)
    with pytest.raises(UserError, match='small: 11x7 pixels are too few for scale 8'):
        decoding.crop_to_multiple(image, 8, 'small')


def test_images_are_read_without_the_dataset_library():
    program = (
        'import sys, nsr_jax.decoding.decoding, nsr_jax.data.sources\n'
        'loaded = {"tensorflow_datasets", "tensorflow", "torch", "skimage"} & set(sys.modules)\n'
        'sys.exit(str(loaded) if loaded else 0)'
    )
    subprocess.run([sys.executable, '-c', program], check=True)
