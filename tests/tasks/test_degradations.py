"""The inputs that an evaluation makes of true images: levels are checked, and inputs are the same everywhere."""

import io

import numpy as np
import PIL.Image
import pytest

from nsr_jax.errors import UserError
from nsr_jax.tasks import Degradation, find_degradations
from nsr_jax.tasks.denoise import DENOISE, DENOISE_AUTHORS, DENOISE_SHARED, authors_noise, noise
from nsr_jax.tasks.jpeg import JPEG_RGB, JPEG_RGB_444, compress
from nsr_jax.tasks.sr import luma
from nsr_jax.tasks.task import Example

# What the authors' code draws for a gray image of 4x5 pixels called 0801.png, at sigma 25.
AUTHORS_NOISE = (
    (-0.006939879470132783, 0.09763047421216636, -0.18007841720486542, 0.022105115203624147, 0.2696134345877219),
    (0.08370810039352286, 0.14230321816020855, -0.079252281039208, 0.040000617928606236, 0.006950926561635145),
    (-0.16653664949924143, -0.06541399900987525, 0.02808040760511725, 0.08671621435047414, 0.020592267107871973),
    (0.03553505423205661, -0.04283439587110816, 0.06629836041721636, -0.20676604093832596, -0.047419043670681456),
)


def test_the_authors_own_noise():
    drawn = authors_noise((4, 5, 1), 25, '0801.png')
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(drawn[..., 0], AUTHORS_NOISE, rtol=1e-6)
    colour = authors_noise((4, 5, 3), 25, '0801.png')  # drawn channel by channel: the first one is the same
    np.testing.assert_array_equal(colour[..., :1], drawn)
    assert not np.allclose(colour[..., 1:2], drawn)
    assert not np.allclose(authors_noise((4, 5, 1), 25, '0802.png'), drawn)


def test_the_usual_noise_is_numpys_legacy_generator_with_seed_0():
    """The first numbers of `numpy.random.seed(0); numpy.random.normal()`, known from many tutorials."""
    drawn = noise((1, 2, 3), 255)
    assert drawn.dtype == np.float32
    first = [1.76405235, 0.40015721, 0.97873798, 2.2408932, 1.86755799, -0.97727788]
    np.testing.assert_allclose(drawn.ravel(), first, rtol=1e-6)
    np.testing.assert_allclose(noise((1, 2, 3), 51).ravel() * 5, first, rtol=1e-6)


def test_noisy_images_are_not_clipped_and_always_the_same():
    hr = np.concatenate([np.zeros((60, 80, 3), np.uint8), np.full((60, 80, 3), 255, np.uint8)])
    for protocol, by_name in ((DENOISE, False), (DENOISE_SHARED, False), (DENOISE_AUTHORS, True)):
        make = protocol.network_input
        given = make(Example('a.png', hr, None), 50)
        assert given.dtype == np.float32
        assert given.min() < -0.4 and given.max() > 1.4
        np.testing.assert_array_equal(given, make(Example('a.png', hr.copy(), None), 50))
        assert (given == make(Example('b.png', hr, None), 50)).all() != by_name
        assert np.std(given - hr / 255) == pytest.approx(50 / 255, rel=0.02)
        np.testing.assert_array_equal(make(Example('a.png', hr, None), 0), hr.astype(np.float32) / 255)


def test_shared_noise_is_that_of_a_gray_image():
    hr = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    given = DENOISE_SHARED.network_input(Example('a.png', hr, None), 25) - hr.astype(np.float32) / 255
    gray = DENOISE.network_input(Example('a.png', np.zeros((30, 40, 1), np.uint8), None), 25)
    np.testing.assert_allclose(given, gray.repeat(3, axis=-1), atol=1e-7)


@pytest.mark.parametrize('channels', [1, 3])
def test_compressed_images_are_pillows(channels):
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (23, 31, channels), np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(image[..., 0] if channels == 1 else image).save(buffer, 'JPEG', quality=30)
    expected = np.array(PIL.Image.open(buffer)).reshape(image.shape)
    np.testing.assert_array_equal(compress(image, 30), expected)


def test_chroma_is_stored_at_half_or_full_resolution():
    """As the files say, of which Pillow gives the sampling factors, and as a stripe of colour shows."""
    hr = np.full((32, 32, 3), 128, np.uint8)
    hr[:, ::2] = 200, 100, 128
    halved, full = (each.network_input(Example('a', hr, None), 100) for each in (JPEG_RGB, JPEG_RGB_444))
    assert np.abs(full.astype(int) - hr).max() <= 4
    assert np.abs(halved.astype(int) - hr).max() > 20
    buffer = io.BytesIO()
    PIL.Image.fromarray(hr).save(buffer, 'JPEG', quality=100, subsampling=0)
    with PIL.Image.open(buffer) as stored:
        assert [layer[1:3] for layer in stored.layer] == [(1, 1)] * 3
        np.testing.assert_array_equal(full, np.array(stored))


def test_luma():
    random = np.random.default_rng(0)
    gray = random.integers(0, 256, (3, 4, 1), np.uint8)
    assert luma(gray) is gray
    rgb = random.integers(0, 256, (30, 40, 3), np.uint8)
    y = 16 + rgb @ np.array([65.481, 128.553, 24.966]) / 255
    assert luma(rgb).dtype == np.uint8
    np.testing.assert_allclose(luma(rgb)[..., 0], y, atol=0.5 + 1e-9)


def test_degradations_in_words():
    assert [str(Degradation(*each)) for each in (('sr', 2), ('denoise', 25), ('denoise', 12.5), ('jpeg', 10))] == [
        'x2', 'sigma 25', 'sigma 12.5', 'quality 10',
    ]  # fmt: skip
    assert [Degradation(*each).scale for each in (('sr', 3), ('denoise', 25), ('jpeg', 10))] == [3, 1, 1]


def test_levels_may_be_text():
    assert find_degradations('sr', 4, ()) == (Degradation('sr', 4),)
    assert find_degradations('denoise', 1, ['15', 25, '12.5']) == tuple(
        Degradation('denoise', s) for s in (15, 25, 12.5)
    )
    assert find_degradations('jpeg', 1, ['10', 40.0]) == (Degradation('jpeg', 10), Degradation('jpeg', 40))


@pytest.mark.parametrize(
    ('task', 'level', 'message'),
    [
        ('deblur', 2, "'deblur': one of sr, denoise, jpeg"),
        ('sr', 2.5, r'whole number from 1, not 2\.5'),
        ('sr', 0, 'whole number from 1, not 0'),
        ('denoise', -1, 'sigma must be a number from 0 to 255 .*not -1'),
        ('denoise', 256, 'sigma must be .*not 256'),
        ('denoise', float('nan'), 'sigma must be .*not nan'),
        ('jpeg', 0, 'quality must be a whole number from 1 to 100, not 0'),
        ('jpeg', 101, 'quality must be .*not 101'),
        ('jpeg', 10.5, r'quality must be .*not 10\.5'),
    ],
)
def test_levels_out_of_range(task, level, message):
    with pytest.raises(UserError, match=message):
        Degradation(task, level)


def test_levels_that_do_not_fit_the_task():
    with pytest.raises(UserError, match='no levels besides its scale: 15, 25 given'):
        find_degradations('sr', 2, ['15', '25'])
    with pytest.raises(UserError, match='no level given to score denoise at'):
        find_degradations('denoise', 1, ())
    with pytest.raises(UserError, match="'ten' is not a number"):
        find_degradations('jpeg', 1, ['ten'])
