"""The store in a file against the store in memory; when the file is used or made anew; that no incomplete one stays."""

import concurrent.futures
import resource
import threading

import numpy as np
import pytest

from nsr_jax.atomic_files import TEMPORARY
from nsr_jax.data.mapped_store import open_store
from nsr_jax.data.sources import Source, open_source
from nsr_jax.data.store import Needs, build_store
from nsr_jax.errors import UserError
from nsr_jax.images.writing import encode_png

SIZES = [(60, 91), (111, 50), (73, 73)]  # of inputs
FORMAT = {'channels': 3, 'smallest': 20}


class Records(list):
    """Encoded images that count how often they are read."""

    def __init__(self, records):
        super().__init__(records)
        self.reads = 0
        self._lock = threading.Lock()

    def __getitem__(self, index):
        with self._lock:
            self.reads += 1
        return super().__getitem__(index)


def source(scale=2, fingerprint='photos_x2_0123', seed=0, sizes=SIZES):
    generator = np.random.default_rng(seed)

    def image(height, width):
        return encode_png(generator.integers(0, 256, (height, width, 3), np.uint8))

    records = [{'hr': image(h * scale, w * scale)} | ({} if scale == 1 else {'lr': image(h, w)}) for h, w in sizes]
    return Source(
        'photos',
        [f'{size}.png' for size in sizes],
        Records(records),
        scale,
        has_inputs=scale > 1,
        fingerprint=fingerprint,
    )


def about(images):
    return {'scale': images.scale, 'has_inputs': images.scale > 1}


def opened(folder, images, budget=0, **changes):
    return open_store(images, folder, Needs(**about(images) | FORMAT | changes), budget=budget)


def in_memory(images, **changes):
    return build_store(images, Needs(**about(images) | FORMAT | changes))


def assert_equal(actual, expected):
    for name in ('targets', 'inputs', 'sizes'):
        found, wanted = getattr(actual, name), getattr(expected, name)
        assert (found is None) == (wanted is None)
        if wanted is not None:
            assert found.dtype == wanted.dtype
            np.testing.assert_array_equal(found, wanted)
    assert actual.nbytes == expected.nbytes


def files(folder):
    """What is in the folder, besides locks, which are empty."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != '.lock')


def gray(image):
    return image[..., 1]


def other_gray(image):
    return image[..., 0]


@pytest.mark.parametrize(('scale', 'changes'), [(2, {}), (3, {}), (1, {}), (2, {'to_gray': gray, 'channels': 1})])
def test_a_file_holds_what_memory_holds(tmp_path, scale, changes):
    images = source(scale)
    expected = in_memory(images, **changes)
    for _ in range(2):  # written, then found
        store = opened(tmp_path, images, **changes)
        assert isinstance(store.targets, np.memmap) and not store.targets.flags.writeable
        assert_equal(store, expected)
    assert len(files(tmp_path)) == 1


def test_real_images(tmp_path, data_dir):
    images = open_source('set5', 'test', 2, data_dir=data_dir, tfds_dir=tmp_path)
    expected = in_memory(images)
    assert_equal(opened(tmp_path / 'stores', images), expected)
    assert files(tmp_path / 'stores') == [f'{images.fingerprint}_x2_3_channels_v1.images']


def test_a_file_that_is_there_is_not_decoded_again(tmp_path):
    opened(tmp_path, source())
    again = source()
    opened(tmp_path, again)
    assert again.records.reads == 0


def test_what_fits_the_budget_is_in_memory(tmp_path):
    images = source()
    size = in_memory(images).nbytes
    store = opened(tmp_path, images, budget=size)
    assert not isinstance(store.targets, np.memmap)
    assert_equal(store, in_memory(images))
    assert files(tmp_path) == []
    assert isinstance(opened(tmp_path, images, budget=size - 1).targets, np.memmap)


def test_sizes_that_are_known_are_not_decoded_for(tmp_path):
    images = source()
    images.hr_shape = lambda index: (
        2 * SIZES[index][0] + 1,
        2 * SIZES[index][1],
        3,
    )  # of the file, before it is cropped
    assert_equal(opened(tmp_path, images), in_memory(source()))
    assert images.records.reads == len(SIZES)


@pytest.mark.parametrize(
    'others',
    [
        {'fingerprint': 'photos_x2_4567'},
        {'scale': 1},
    ],
)
def test_other_images_are_another_file(tmp_path, others):
    images = source()
    opened(tmp_path, images)
    changed = source(seed=1, **others)
    assert_equal(opened(tmp_path, changed), in_memory(changed))
    assert len(files(tmp_path)) == 2
    assert_equal(opened(tmp_path, images), in_memory(images))


def test_gray_images_are_another_file(tmp_path):
    opened(tmp_path, source())
    opened(tmp_path, source(), channels=1, to_gray=gray)
    opened(tmp_path, source(), channels=1, to_gray=other_gray)
    assert len(files(tmp_path)) == 3
    for channel in (1, 2):  # functions are told apart by what they do, not by their names
        store = opened(tmp_path, source(), channels=1, to_gray=lambda image, channel=channel: image[..., channel])
        assert_equal(store, in_memory(source(), channels=1, to_gray=lambda image, channel=channel: image[..., channel]))
    assert len(files(tmp_path)) == 4


@pytest.mark.parametrize('damage', ['empty', 'sizes', 'half', 'one byte', 'longer', 'zeros'])
def test_a_file_that_is_not_whole_is_made_anew(tmp_path, damage):
    opened(tmp_path, source())
    (path,) = (tmp_path / name for name in files(tmp_path))
    whole = path.read_bytes()
    broken = {
        'empty': b'',
        'sizes': whole[:20],
        'half': whole[: len(whole) // 2],
        'one byte': whole[:-1],
        'longer': whole + b'0',
        'zeros': bytes(len(whole)),
    }
    path.write_bytes(broken[damage])
    images = source()
    assert_equal(opened(tmp_path, images), in_memory(images))
    assert path.read_bytes() == whole
    assert len(files(tmp_path)) == 1


@pytest.mark.parametrize('budget', [0, 10**9])
def test_what_a_killed_process_has_left_is_removed(tmp_path, budget):
    """Also by a run whose images are in memory."""
    opened(tmp_path, source())
    (path,) = (tmp_path / name for name in files(tmp_path))
    path.rename(tmp_path / f'{TEMPORARY}0123')
    images = source(seed=1)
    assert_equal(opened(tmp_path, images, budget), in_memory(images))
    assert files(tmp_path) == ([] if budget else [path.name])


def test_an_interrupted_writing_leaves_nothing(tmp_path):
    images = source()
    encoded = list(images.records)
    images.records[2] = {'hr': encoded[2]['hr'], 'lr': b'broken'}
    images.hr_shape = lambda index: (*(2 * side for side in SIZES[index]), 3)  # so that it is found while writing
    with pytest.raises(UserError, match='input of'):
        opened(tmp_path, images)
    assert files(tmp_path) == []
    assert_equal(opened(tmp_path, source()), in_memory(source()))


def test_the_disk_has_room_for_a_file_before_it_is_mapped(tmp_path):
    images = source(sizes=[(300, 400), (20, 20)])  # half of it is padding, which nothing is written to
    opened(tmp_path, images)
    (path,) = (tmp_path / name for name in files(tmp_path))
    assert path.stat().st_blocks * 512 >= path.stat().st_size > 1_000_000


def test_a_full_disk_is_told(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(UserError, match=r'photos_x2_0123.*\.images: 0 MB cannot be written: File too large'):
            opened(tmp_path, source())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(tmp_path) == []


def test_a_folder_that_is_none(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='Not a directory'):
        opened(tmp_path / 'file', source())


def test_of_two_that_ask_at_once_one_writes(tmp_path):
    both = [source(), source()]
    with concurrent.futures.ThreadPoolExecutor() as threads:
        stores = list(threads.map(lambda images: opened(tmp_path, images), both))
    for store in stores:
        assert_equal(store, in_memory(source()))
    assert len(files(tmp_path)) == 1
    # Both may have measured the images; only one has decoded them into the file.
    assert sum(images.records.reads for images in both) <= 3 * len(SIZES)


def test_a_small_image_is_named_from_a_file_too(tmp_path):
    opened(tmp_path, source())
    with pytest.raises(UserError, match=r'\(111, 50\)\.png is too small .* side is 100 pixels.* need 102 '):
        opened(tmp_path, source(), smallest=51)
    opened(tmp_path, source(), smallest=50)
