"""Writing strip by strip: what other readers find in the files, and what is left when something goes wrong."""

import io
import itertools
import os
import pathlib
import resource
import signal
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsr_jax.errors import UserError
from nsr_jax.images.reading import read_image, read_photo
from nsr_jax.images.writing import write_image, write_photo


def noise(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def strips_of(image, *heights):
    return iter(np.split(image, np.cumsum(heights)))


def write(target, image, form, strips=None, **options):
    height, width, channels = image.shape
    strips = strips_of(image) if strips is None else strips
    size = {'height': height, 'width': width, 'channels': channels, 'dtype': image.dtype}
    write_photo(target, strips, format=form, **size, **options)


def written(image, form, strips=None, **options):
    buffer = io.BytesIO()
    write(buffer, image, form, strips, **options)
    return buffer.getvalue()


def samples_of(photo):
    return photo.pixels if photo.alpha is None else np.dstack([photo.pixels, photo.alpha])


DTYPES = (np.uint8, np.uint16)
LOSSLESS = [
    *[(form, channels, dtype) for form in ('PNG', 'TIFF') for channels in (1, 2, 3, 4) for dtype in DTYPES],
    ('WEBP', 3, np.uint8),
    ('WEBP', 4, np.uint8),
    ('BMP', 1, np.uint8),
    ('BMP', 3, np.uint8),
]


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(LOSSLESS), st.integers(1, 40), st.integers(1, 40), st.lists(st.integers(0, 40), max_size=4))
def test_what_is_written_is_read_again_whatever_the_strips(kind, height, width, cuts):
    form, channels, dtype = kind
    image = noise(height, width, channels, dtype=dtype)
    cuts = sorted(cut for cut in cuts if cut <= height)
    photo = read_photo(written(image, form, iter(np.split(image, cuts))))
    assert photo.format == form
    assert photo.pixels.dtype == dtype
    np.testing.assert_array_equal(samples_of(photo), image)


@pytest.mark.parametrize(('form', 'channels'), [(form, c) for form, c, dtype in LOSSLESS if dtype == np.uint8])
def test_pillow_reads_the_same(form, channels):
    image = noise(23, 31, channels)
    with PIL.Image.open(io.BytesIO(written(image, form, strips_of(image, 10)))) as read:
        assert read.format == form
        assert read.mode == {1: 'L', 2: 'LA', 3: 'RGB', 4: 'RGBA'}[channels]
        np.testing.assert_array_equal(np.asarray(read).reshape(image.shape), image)


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('channels', [1, 2, 3, 4])
def test_tifffile_reads_the_same_from_several_strips(channels, dtype):
    tifffile = pytest.importorskip('tifffile')
    image = noise(700, 900, channels, dtype=dtype)
    with tifffile.TiffFile(io.BytesIO(written(image, 'TIFF', strips_of(image, 1, 300, 301)))) as file:
        (page,) = file.pages
        assert page.photometric.name == ('MINISBLACK' if channels < 3 else 'RGB')
        assert [each.name for each in page.extrasamples] == ['UNASSALPHA'] * (channels in (2, 4))
        assert (len(page.dataoffsets) > 1) == (image.nbytes > 2**20)
        np.testing.assert_array_equal(page.asarray().reshape(image.shape), image)


@pytest.mark.slow
def test_a_huge_tiff_has_offsets_of_64_bits(tmp_path):
    tifffile = pytest.importorskip('tifffile')
    strip = np.tile(noise(1, 1000, 3), (20, 70, 1))  # repeated, so that 4.2 GB become a file of some MB
    path, count = tmp_path / 'huge.tif', 1000
    size = {'height': count * len(strip), 'width': strip.shape[1], 'channels': 3, 'dtype': strip.dtype}
    write_photo(path, (strip for _ in range(count)), format='TIFF', **size)
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff
        (page,) = file.pages
        assert page.shape == (20_000, 70_000, 3)
        pieces = list(itertools.islice(page.segments(), 2))
    np.testing.assert_array_equal(pieces[0][0][0], strip[: len(pieces[0][0][0])])


@pytest.mark.parametrize('width', range(1, 12))
def test_the_directory_of_a_tiff_begins_at_a_word(width):
    data = written(noise(1, width, 1), 'TIFF')
    assert int.from_bytes(data[4:8], 'little') % 2 == 0


def smooth(height, width, channels=3):
    rows, columns = np.mgrid[:height, :width]
    return np.stack([(rows * 3 + columns * (2 + c)) % 200 + 20 for c in range(channels)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize('form', ['JPEG', 'WEBP'])
def test_quality_is_heard(form):
    image = smooth(64, 64)
    files = [written(image, form, quality=quality) for quality in (10, 60, 95)]
    sizes = [len(data) for data in files]
    assert sizes == sorted(set(sizes))
    errors = [np.abs(read_photo(data).pixels - image.astype(int)).mean() for data in files]
    assert errors[0] > 2 * errors[2]


@pytest.mark.parametrize('channels', [1, 3])
def test_jpeg_is_near(channels):
    image = smooth(50, 70, channels)
    data = written(image, 'JPEG', strips_of(image, 16, 17))
    assert data == written(image, 'JPEG', quality=95)
    with PIL.Image.open(io.BytesIO(data)) as read:
        assert read.mode == ('L' if channels == 1 else 'RGB')
        assert np.abs(np.asarray(read).reshape(image.shape) - image.astype(int)).mean() < 2.5


@pytest.mark.parametrize('shape', [(1, 1, 3), (1, 20_000, 3), (20_000, 1, 1)])
@pytest.mark.parametrize('form', ['PNG', 'TIFF', 'BMP', 'JPEG'])
def test_one_pixel_and_long_images(form, shape):
    image = np.full(shape, 77, np.uint8)
    np.testing.assert_allclose(read_photo(written(image, form)).pixels, image, atol=1)


def test_a_file_replaces_another_and_a_stream_is_written_to(tmp_path):
    path = tmp_path / 'photo.png'
    path.write_text('old')
    image = noise(5, 6, 3)
    write(path, image, 'PNG')
    assert [each.name for each in tmp_path.iterdir()] == ['photo.png']
    np.testing.assert_array_equal(read_photo(path).pixels, image)
    assert path.read_bytes() == written(image, 'PNG')


def test_a_file_that_cannot_be_replaced_stays_as_it_is(tmp_path, monkeypatch):
    path = tmp_path / 'photo.png'
    path.write_text('old')

    def denied(source, target):
        raise OSError(13, 'Permission denied')

    monkeypatch.setattr(os, 'replace', denied)
    with pytest.raises(UserError, match=r'photo\.png: cannot be written: Permission denied'):
        write(path, noise(5, 6, 3), 'PNG')
    assert [each.name for each in tmp_path.iterdir()] == ['photo.png']
    assert path.read_text() == 'old'


class StripError(Exception):
    pass


def failing(image, error):
    yield image[:3]
    raise error


ALL = ('PNG', 'JPEG', 'TIFF', 'WEBP', 'BMP')


@pytest.mark.parametrize('form', ALL)
@pytest.mark.parametrize('error', [StripError('x'), KeyboardInterrupt(), UserError('x'), OSError(5, 'strips')])
def test_what_strips_raise_is_raised_and_nothing_is_left(tmp_path, form, error):
    path, image = tmp_path / 'photo', noise(300, 200, 3)
    path.write_text('old')
    with pytest.raises(type(error)) as caught:
        write(path, image, form, failing(image, error))
    assert caught.value is error
    assert [each.name for each in tmp_path.iterdir()] == ['photo']
    assert path.read_text() == 'old'


@pytest.fixture
def sigint():
    """Python's own handler, also where the tests run in the background of a shell, which ignores the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures('sigint')
def test_control_c_stops_it_between_strips(tmp_path):
    """Strips are made in the main thread, where signals arrive."""

    def interrupted():
        yield noise(10, 20, 3)
        signal.raise_signal(signal.SIGINT)
        yield noise(10, 20, 3)

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / 'photo', noise(20, 20, 3), 'PNG', interrupted())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('form', ALL)
@pytest.mark.parametrize(
    ('strips', 'reason'),
    [
        ([noise(9, 20, 3)], '9 rows of an image of uint8'),
        ([], '0 rows of'),
        ([noise(9, 20, 3), noise(2, 20, 3)], 'in row 9 of'),
        ([noise(10, 19, 3)], r'uint8 \(10, 19, 3\) in row 0'),
        ([noise(10, 20, 4)], r'uint8 \(10, 20, 4\) in row 0'),
        ([noise(10, 20, 3).astype(np.uint16)], 'uint16'),
    ],
)
def test_strips_of_another_image_are_a_mistake_of_the_caller(tmp_path, form, strips, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        write(tmp_path / 'photo', noise(10, 20, 3), form, iter(strips))
    assert not isinstance(caught.value, UserError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('channels', 'form', 'quality', 'reason'),
    [
        (4, 'JPEG', None, 'photo.x: JPEG cannot hold transparency'),
        (3, 'PNG', 90, 'takes no quality'),
        (3, 'GIF', None, 'unknown format'),
    ],
)
def test_what_cannot_be_is_refused_before_a_strip_is_pulled(tmp_path, channels, form, quality, reason):
    pulled = []

    def strips():
        pulled.append(1)
        yield noise(4, 4, channels)

    with pytest.raises(UserError, match=reason):
        write(tmp_path / 'photo.x', noise(4, 4, channels), form, strips(), quality=quality)
    assert not pulled
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('form', ALL)
def test_a_missing_folder_is_named(tmp_path, form):
    with pytest.raises(UserError, match=r'none/photo: cannot be written: No such file'):
        write(tmp_path / 'none' / 'photo', noise(4, 4, 3), form)


@pytest.mark.parametrize('form', ['PNG', 'JPEG'])
def test_a_full_disk_is_told_and_ends_the_work(tmp_path, capfd, form):
    """Though it happens in another thread, and libvips would say only that it failed."""
    pulled = []

    def strips():
        for _ in range(400):
            pulled.append(1)
            yield noise(4, 2000, 3)

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, before[1]))  # acts like a full disk
    try:
        with pytest.raises(UserError, match='photo: cannot be written: File too large'):
            write(tmp_path / 'photo', np.empty((1600, 2000, 3), np.uint8), form, strips())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
    assert len(pulled) < 400
    assert capfd.readouterr().err == ''


@pytest.mark.parametrize('form', ALL)
def test_a_full_disk_under_a_stream(form):
    class Full(io.RawIOBase):
        def write(self, data):
            raise OSError(28, 'No space left on device')

    with pytest.raises(UserError, match=r'^<stdout>: cannot be written: No space left'):
        write(Full(), noise(4, 4, 3), form, name='<stdout>')


LARGE = """
import sys
import numpy as np
from nsr_jax.images.writing import write_photo
rng = np.random.default_rng(0)
def strips():
    for start in range(0, 16000, 160):
        yield np.cumsum(rng.integers(-2, 3, (160, 16000, 3), np.int8), axis=1, dtype=np.uint8)
write_photo(sys.argv[1], strips(), height=16000, width=16000, channels=3, dtype=np.uint8, format=sys.argv[2])
print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])  # ru_maxrss counts the parent's memory too
"""


@pytest.mark.slow
@pytest.mark.parametrize(('form', 'most'), [('PNG', 0.4), ('JPEG', 0.4), ('TIFF', 0.4), ('BMP', 1.5)])
def test_memory_is_bounded_while_a_large_image_is_written(tmp_path, form, most):
    """256 megapixels: 768 MB of samples; gigabytes at the peak of the process, with the interpreter."""
    path = tmp_path / 'large'
    command = [sys.executable, '-c', LARGE, str(path), form]
    root = pathlib.Path(__file__).parents[2]
    process = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert 5e7 < int(process.stdout) * 1024 < most * 1e9
    PIL.Image.MAX_IMAGE_PIXELS, limit = None, PIL.Image.MAX_IMAGE_PIXELS
    try:
        with PIL.Image.open(path) as image:
            assert image.size == (16_000, 16_000)
    finally:
        PIL.Image.MAX_IMAGE_PIXELS = limit


# --- 8-bit PNG ---


@pytest.mark.parametrize('shape', [(5, 7, 3), (5, 7, 1), (1, 1, 3), (300, 2, 1)])
def test_write_and_read_again(tmp_path, shape):
    image = noise(*shape)
    path = tmp_path / 'new folder' / 'image.png'
    write_image(path, image)
    read = read_image(path)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, image)
    assert [entry.name for entry in path.parent.iterdir()] == ['image.png']


def test_gray_without_a_channel_axis_is_written_as_gray(tmp_path):
    write_image(tmp_path / 'gray.png', noise(4, 6))
    with PIL.Image.open(tmp_path / 'gray.png') as image:
        assert image.mode == 'L'
    np.testing.assert_array_equal(read_image(tmp_path / 'gray.png')[:, :, 0], noise(4, 6))


@pytest.mark.parametrize('image', [noise(4, 4, 3) / 255, noise(4, 4, 4), noise(4), noise(4, 4).astype(np.uint16)])
def test_only_uint8_images_are_written(tmp_path, image):
    with pytest.raises(ValueError, match='image must be uint8'):
        write_image(tmp_path / 'x.png', image)
    assert list(tmp_path.iterdir()) == []


def test_only_png_is_written(tmp_path):
    with pytest.raises(UserError, match=r'x\.jpg: .* must end in \.png'):
        write_image(tmp_path / 'x.jpg', noise(4, 4, 3))


def test_a_write_that_fails_keeps_the_old_file_and_leaves_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / 'x.png'
    write_image(path, noise(4, 4, 3))

    def full(source, target):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(UserError, match=r'x\.png: cannot be written: No space left'):
        write_image(path, noise(8, 8, 3))
    np.testing.assert_array_equal(read_image(path), noise(4, 4, 3))
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match='cannot be written'):
        write_image(tmp_path / 'file' / 'x.png', noise(4, 4, 3))
