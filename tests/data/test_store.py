"""The image store: its arrays, and the images that it refuses."""

import dataclasses

import jax
import numpy as np
import pytest

from nsr_jax.data.sources import Example
from nsr_jax.data.store import Needs, build_store, measure_images
from nsr_jax.errors import UserError

RGB_X2 = Needs(scale=2, channels=3, smallest=1, has_inputs=True)
LARGE_RGB_X2 = Needs(scale=2, channels=3, smallest=8, has_inputs=True)
GRAY = Needs(scale=1, channels=1, smallest=1, has_inputs=False)


def random_example(name, height, width, channels=3, scale=2):
    """An image of `height` x `width` input pixels, no value of it zero."""
    generator = np.random.default_rng(height * 100 + width)
    hr = generator.integers(1, 256, (height * scale, width * scale, channels), np.uint8)
    lr = None if scale == 1 else generator.integers(1, 256, (height, width, channels), np.uint8)
    return Example(name, hr, lr)


@pytest.mark.parametrize(('scale', 'channels'), [(1, 1), (2, 3), (3, 1)])
def test_images_are_turned_landscape_and_padded_with_zeros(scale, channels):
    sizes = [(6, 9), (11, 5), (7, 7), (5, 12)]
    examples = [random_example(f'{size}', *size, channels, scale) for size in sizes]
    store = build_store(examples, Needs(scale=scale, channels=channels, smallest=5, has_inputs=scale > 1))
    np.testing.assert_array_equal(store.sizes, [(6, 9), (5, 11), (7, 7), (5, 12)])
    assert store.sizes.dtype == np.int32
    arrays = {'targets': (store.targets, scale)} | ({} if scale == 1 else {'inputs': (store.inputs, 1)})
    for name, (array, factor) in arrays.items():
        assert array.dtype == np.uint8
        assert array.shape == (4, 7 * factor, 12 * factor, channels)
        for place, example in zip(array, examples, strict=True):
            image = example.hr if name == 'targets' else example.lr
            if image.shape[0] > image.shape[1]:
                image = image.transpose(1, 0, 2)
            height, width, _ = image.shape
            np.testing.assert_array_equal(place[:height, :width], image)
            assert not place[height:].any()
            assert not place[:, width:].any()
    assert (store.inputs is None) == (scale == 1)


def test_arrays_lie_where_cpu_devices_can_share_them():
    for count in (1, 2, 3):
        store = build_store([random_example('a.png', 9, 7 + count)] * count, RGB_X2)
        assert store.targets.ctypes.data % 64 == store.inputs.ctypes.data % 64 == 0
    shared = jax.device_put(store.targets, jax.devices()[0], may_alias=True)
    assert shared.unsafe_buffer_pointer() == store.targets.ctypes.data


def test_nbytes_are_those_of_all_arrays():
    store = build_store([random_example('a', 6, 8), random_example('b', 10, 5)], RGB_X2)
    assert store.nbytes == 2 * (12 * 20 * 3 + 6 * 10 * 3) + 2 * 2 * 4
    store = build_store(
        [random_example('a', 6, 8, 1, scale=1)], Needs(scale=1, channels=1, smallest=1, has_inputs=False)
    )
    assert store.nbytes == 6 * 8 + 2 * 4


def test_an_image_of_just_the_smallest_side_is_taken():
    for size in ((8, 30), (30, 8), (8, 8)):
        store = build_store([random_example('a.png', *size)], LARGE_RGB_X2)
        np.testing.assert_array_equal(store.sizes, [sorted(size)])


@pytest.mark.parametrize('size', [(7, 30), (30, 7)])
def test_a_small_image_is_named_with_its_sizes(size):
    examples = [random_example('large.png', 20, 20), random_example('small.png', *size)]
    with pytest.raises(UserError, match=r'small\.png is too small .* shorter side is 14 pixels.* need 16 '):
        build_store(examples, LARGE_RGB_X2)


def test_other_channels_are_named():
    examples = [random_example('rgb.png', 9, 9), random_example('gray.png', 9, 9, channels=1)]
    with pytest.raises(UserError, match=r'gray\.png has 1 channels, the network takes 3'):
        build_store(examples, Needs(scale=2, channels=3, smallest=4, has_inputs=True))


def test_an_empty_source():
    with pytest.raises(UserError, match='no training image'):
        build_store([], Needs(scale=2, channels=3, smallest=4, has_inputs=True))


def test_colours_become_gray_where_that_is_asked_for():
    examples = [random_example('rgb.png', 9, 6), random_example('gray.png', 9, 6, channels=1)]
    store = build_store(examples, dataclasses.replace(RGB_X2, channels=1, to_gray=lambda image: image[..., 1]))
    np.testing.assert_array_equal(store.targets[0], examples[0].hr[..., 1:2].transpose(1, 0, 2))
    np.testing.assert_array_equal(store.inputs[0], examples[0].lr[..., 1:2].transpose(1, 0, 2))
    np.testing.assert_array_equal(store.targets[1], examples[1].hr.transpose(1, 0, 2))


class KnowingShapes(list):
    """Examples that know their shapes, of which nothing else is read before they are decoded."""

    def __init__(self, examples, shapes):
        super().__init__(examples)
        self.names = [example.name for example in examples]
        self.shapes, self.decoded = shapes, 0

    def hr_shape(self, index):
        return self.shapes[index]

    def __getitem__(self, index):
        self.decoded += 1
        return super().__getitem__(index)


def test_the_layout_is_that_of_the_store_before_anything_is_decoded():
    examples = [random_example('a', 6, 8), random_example('b', 10, 5)]
    # As in the files: not cropped to a multiple of the scale, and perhaps not upright.
    knowing = KnowingShapes(examples, [(12, 17, 3), (10, 21, 3)])
    layout = measure_images(knowing, Needs(scale=2, channels=3, smallest=5, has_inputs=True))
    assert knowing.decoded == 0
    store = build_store(knowing, Needs(scale=2, channels=3, smallest=5, has_inputs=True))
    assert knowing.decoded == 2
    assert (layout.targets, layout.inputs, layout.nbytes) == (store.targets.shape, store.inputs.shape, store.nbytes)
    np.testing.assert_array_equal(layout.sizes, store.sizes)
    layout = measure_images(
        [random_example('a', 6, 8, 1, scale=1)], Needs(scale=1, channels=1, smallest=5, has_inputs=False)
    )
    assert (layout.targets, layout.inputs, layout.nbytes) == ((1, 6, 8, 1), None, 6 * 8 + 2 * 4)


def test_an_image_of_another_size_than_measured():
    knowing = KnowingShapes([random_example('a.png', 6, 8)], [(14, 16, 3)])
    with pytest.raises(ValueError, match=r'a\.png is 12x16, measured were \[7 8\] input pixels'):
        build_store(knowing, Needs(scale=2, channels=3, smallest=5, has_inputs=True))


def test_all_images_that_cannot_be_used_are_listed():
    fitting, small = random_example('fits.png', 20, 20), random_example('small.png', 7, 30)
    with pytest.raises(UserError) as caught:
        build_store(
            [small, fitting, random_example('gray.png', 9, 9, channels=1)],
            LARGE_RGB_X2,
        )
    assert str(caught.value).startswith('2 images cannot be used: small.png is too small')
    assert 'gray.png has 1 channels, the network takes 3' in str(caught.value)
    with pytest.raises(UserError, match=r'^30 images cannot be used: (small\.png [^;]*; ){10}and 20 more$'):
        build_store([small] * 30, LARGE_RGB_X2)
