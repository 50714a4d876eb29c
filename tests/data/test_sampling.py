"""The sampler against one in NumPy, and its distribution read from images whose pixels say where they are."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nsr_jax.data.sampling import sample_patches
from nsr_jax.data.sources import Example
from nsr_jax.data.store import Needs, build_store

PATCH, MARGIN = 5, 2
SIZES = [(9, 14), (16, 11), (12, 12)]
KEY = jax.random.key(3)


@functools.cache
def random_images(scale):
    """Examples as a source gives them, the second one a portrait."""
    generator = np.random.default_rng(scale)

    def image(height, width, factor):
        return generator.integers(0, 256, (height * factor, width * factor, 3), np.uint8)

    return [Example(f'{size}', image(*size, scale), None if scale == 1 else image(*size, 1)) for size in SIZES]


@functools.cache
def jitted(scale, patch_size=PATCH, margin=MARGIN):
    return jax.jit(functools.partial(sample_patches, scale=scale, patch_size=patch_size, margin=margin))


def store_of(examples, scale):
    return build_store(examples, Needs(scale=scale, channels=3, smallest=PATCH + 2 * MARGIN, has_inputs=scale > 1))


def numpy_sample(examples, key, step, index, scale, size=PATCH):
    """One sample from the original images, uint8: the random numbers are JAX's, all else is NumPy's."""
    key = jax.random.fold_in(jax.random.fold_in(key, step), index)
    image_key, place_key, flip_key, degradation_key = jax.random.split(key, 4)
    example = examples[int(jax.random.randint(image_key, (), 0, len(examples)))]
    lr, hr = example.lr, example.hr
    if hr.shape[0] > hr.shape[1]:
        lr, hr = lr if lr is None else lr.transpose(1, 0, 2), hr.transpose(1, 0, 2)
    sides = np.array(hr.shape[:2]) // scale
    row, column = np.array(jax.random.randint(place_key, (2,), MARGIN, sides - MARGIN - size + 1))
    upside_down, mirrored, transposed = np.array(jax.random.bernoulli(flip_key, 0.5, (3,)))

    def patch(image, factor):
        rows, columns = (slice(start * factor, (start + size) * factor) for start in (row, column))
        cut = image[rows, columns]
        cut = np.flip(cut, 0) if upside_down else cut
        cut = np.flip(cut, 1) if mirrored else cut
        return np.transpose(cut, (1, 0, 2)) if transposed else cut

    return (degradation_key if lr is None else patch(lr, 1)), patch(hr, scale)


@pytest.mark.parametrize('scale', [2, 3])
def test_equals_the_sampler_in_numpy(scale):
    examples = random_images(scale)
    store = store_of(examples, scale)
    for step, indices in ((0, range(12)), (40_000, range(100, 112))):
        batch = jitted(scale)(store, KEY, step, jnp.array(indices))
        expected = [numpy_sample(examples, KEY, step, index, scale) for index in indices]
        for actual, patches, factor in zip(batch, zip(*expected, strict=True), (1, scale), strict=True):
            assert actual.dtype == jnp.float32
            assert actual.shape == (12, PATCH * factor, PATCH * factor, 3)
            # The same pixels; a compiler may multiply by 1/255 instead.
            np.testing.assert_array_equal(np.rint(np.asarray(actual) * 255), np.stack(patches))
            np.testing.assert_allclose(actual, np.stack(patches) / np.float32(255), rtol=2e-7, atol=0)


class Darker:
    """A corruption that needs three pixels beside the patch and a key."""

    def region_size(self, patch_size, channels):
        return patch_size + channels

    def __call__(self, key, region, patch_size):
        row, column = jax.random.randint(key, (2,), 0, 4)
        target = jax.lax.dynamic_slice(region, (row, column, 0), (patch_size, patch_size, 3)).astype(jnp.float32)
        return target / 512, target / 256


def test_a_degradation_makes_the_input_of_a_region():
    sample = functools.partial(sample_patches, scale=1, patch_size=PATCH, margin=MARGIN, corruption=Darker())
    larger = [Example(e.name, np.pad(e.hr, ((0, 4), (0, 4), (0, 0)), mode='wrap'), None) for e in random_images(1)]
    store = store_of(larger, 1)
    inputs, targets = jax.jit(sample)(store, KEY, 5, jnp.arange(12))
    for index in range(12):
        key, region = numpy_sample(larger, KEY, 5, index, 1, size=PATCH + 3)
        expected_input, expected_target = Darker()(key, region, PATCH)
        np.testing.assert_array_equal(inputs[index], expected_input)
        np.testing.assert_array_equal(targets[index], expected_target)


def test_inputs_come_from_the_store_or_from_a_degradation():
    for scale, corruption in ((2, Darker()), (1, None)):
        with pytest.raises(ValueError, match='either'):
            sample_patches(
                store_of(random_images(scale), scale), KEY, 0, jnp.arange(2),
                scale=scale, patch_size=PATCH, margin=MARGIN, corruption=corruption,
            )  # fmt: skip


def test_a_batch_is_a_function_of_key_and_step_however_it_is_split():
    store, sample = store_of(random_images(2), 2), jitted(2)
    whole = sample(store, KEY, 7, jnp.arange(12))
    again = sample(store, jax.random.key(3), jnp.int32(7), jnp.arange(12))
    parts = [sample(store, KEY, 7, jnp.arange(start, start + 4)) for start in (0, 4, 8)]
    shuffled = np.random.default_rng(0).permutation(12)
    out_of_order = sample(store, KEY, 7, jnp.array(shuffled))
    for which in (0, 1):
        np.testing.assert_array_equal(again[which], whole[which])
        np.testing.assert_array_equal(np.concatenate([part[which] for part in parts]), whole[which])
        np.testing.assert_array_equal(out_of_order[which], np.asarray(whole[which])[shuffled])


def test_other_steps_keys_and_samples_differ():
    store, sample = store_of(random_images(2), 2), jitted(2)
    draws = [(KEY, 7), (KEY, 8), (jax.random.key(4), 7)]
    patches = np.stack([sample(store, key, step, jnp.arange(12))[1] for key, step in draws]).reshape(3, 12, -1)
    # Two samples may be the same by chance, most are not.
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert np.mean((patches[first] == patches[second]).all(axis=-1)) < 0.2
    for batch in patches:
        assert len(np.unique(batch, axis=0)) > 9


@functools.cache
def located(samples=2048):
    """Samples of images whose pixels hold (image, row, column), each counted from 1, as input pixels and as drawn."""
    examples = []
    for index, (height, width) in enumerate(SIZES):
        image = np.zeros((height, width, 3), np.uint8)
        image[..., 0] = index + 1
        # Rows and columns are those of the landscape, so a portrait is written transposed.
        rows, columns = np.indices((height, width)) + 1
        image[..., 1], image[..., 2] = (columns, rows) if height > width else (rows, columns)
        examples.append(Example(f'{index}', image.repeat(2, axis=0).repeat(2, axis=1), image))
    inputs, targets = jitted(2)(store_of(examples, 2), KEY, 1, jnp.arange(samples))
    return [np.rint(np.asarray(array) * 255).astype(int) for array in (inputs, targets)]


def test_inputs_and_targets_show_the_same_place():
    inputs, targets = located()
    np.testing.assert_array_equal(targets, inputs.repeat(2, axis=1).repeat(2, axis=2))


def test_every_place_inside_the_margin_is_sampled_and_none_outside():
    inputs, _ = located()
    assert inputs.min() > 0  # the padding is zero
    seen = {tuple(pixel) for pixel in np.unique(inputs.reshape(-1, 3), axis=0)}
    expected = set()
    for index, size in enumerate(SIZES):
        height, width = sorted(size)
        inside = np.ndindex(height - 2 * MARGIN, width - 2 * MARGIN)
        expected |= {(index + 1, row + 1 + MARGIN, column + 1 + MARGIN) for row, column in inside}
    assert seen == expected


def test_images_places_and_orientations_are_equally_likely():
    inputs, _ = located()
    images, corners, orientations = collections.Counter(), collections.Counter(), collections.Counter()
    for patch in inputs:
        first, right, below = patch[0, 0], patch[0, 1], patch[1, 0]
        orientations[(*(right - first)[1:], *(below - first)[1:])] += 1
        images[first[0]] += 1
        corners[first[0], patch[..., 1].min(), patch[..., 2].min()] += 1
    assert_uniform(images, 3)
    assert len(orientations) == 8
    assert_uniform(orientations, 8)
    for index, size in enumerate(SIZES):
        height, width = (side - 2 * MARGIN - PATCH + 1 for side in sorted(size))
        assert_uniform({key: n for key, n in corners.items() if key[0] == index + 1}, height * width)


def assert_uniform(counts, cells):
    """Chi-square: the sum's mean is `cells - 1`, its variance twice that; five standard deviations are allowed."""
    expected = sum(counts.values()) / cells
    assert len(counts) == cells
    statistic = sum((count - expected) ** 2 / expected for count in counts.values())
    assert statistic < cells - 1 + 5 * np.sqrt(2 * cells)


def test_an_image_of_just_the_smallest_size_has_one_place():
    side = PATCH + 2 * MARGIN
    hr = np.random.default_rng(0).integers(0, 256, (2 * side, 2 * side, 3), np.uint8)
    store = store_of([Example('a', hr, hr[::2, ::2])], 2)
    _, targets = jitted(2)(store, KEY, 0, jnp.arange(12))
    centre = hr[2 * MARGIN : -2 * MARGIN, 2 * MARGIN : -2 * MARGIN]
    for target in np.rint(np.asarray(targets) * 255):
        turned = (target, target.transpose(1, 0, 2))
        assert any((np.flip(image, axes) == centre).all() for image in turned for axes in ((), 0, 1, (0, 1)))
