"""Protocols compared with published bicubic rows, the authors' own numbers, and their definitions."""

import collections
import hashlib
import math

import numpy as np
import pytest

from nsr_jax.data.sources import open_source
from nsr_jax.errors import UserError
from nsr_jax.evaluation.protocols import compared_images, score
from nsr_jax.evaluation.scores import means
from nsr_jax.evaluation.scoring import evaluate
from nsr_jax.images.reading import list_images, read_image
from nsr_jax.metrics import find_metrics, psnr
from nsr_jax.ops.imresize import imresize
from nsr_jax.tasks import TASKS, Degradation, all_protocols, find_protocols
from nsr_jax.tasks.jpeg import compress
from nsr_jax.tasks.sr import luma
from nsr_jax.tasks.task import Example, degraded

PROTOCOLS = all_protocols()
SR_NAMES = [protocol.name for protocol in TASKS['sr'].protocols]

# Scores of MATLAB's low-resolution images enlarged by MATLAB's bicubic, x2, x3, x4.
BICUBIC = {
    ('sr-y', 'Set5'): (33.67, 30.41, 28.43),
    ('sr-y', 'Set14'): (30.23, 27.54, 26.00),
    ('sr-y', 'BSD100'): (29.56, 27.21, 25.96),
    ('sr-y-uint8', 'Set5'): (33.64, 30.39, 28.42),
    ('sr-y-uint8', 'Set14'): (30.22, 27.53, 25.99),
    ('sr-y-uint8', 'BSD100'): (29.55, 27.20, 25.96),
}
# The authors' code scores HR + noise, clipped to [-.1, 1.1], like this: name, scale, RGB, Y.
AUTHORS = (
    ('butterfly', 2, 30.495380401611328, 35.301639556884766),
    ('bird', 3, 30.938602447509766, 35.55476760864258),
    ('head', 4, 30.833110809326172, 35.66001510620117),
)
# SHA-256 of the pixels of the authors' own low-resolution images.
AUTHORS_LOW_RESOLUTION = (
    ('butterfly', 2, '54708198737e631fd5feeee17379664ed75b0fa8e30bd8f686353c91f2635314'),
    ('bird', 3, '5f591125efa97e5255639f6f9213adfd89c61f5a365021217ba9ddd789f14996'),
    ('head', 4, 'd61f1ff281369b852d3e5a163c3abe48161a298548794f42f6723487da255102'),
)

SR = find_protocols('sr', ['sr-y', 'sr-y-uint8', 'sr-rgb', 'authors'])
METRICS = find_metrics(['psnr', 'ssim'])


def psnr_of(protocol, prediction, hr, scale):
    return score(protocol, prediction, hr, scale, METRICS)['psnr']


def crop(image, scale):
    return image[: image.shape[0] // scale * scale, : image.shape[1] // scale * scale]


@pytest.mark.parametrize('dataset', ['Set5', 'Set14', 'BSD100'])
def test_bicubic_rows(data_dir, dataset):
    folder = data_dir / 'test' / dataset
    images = {path.stem: read_image(path) for path in list_images(folder / 'HR')}
    for i, scale in enumerate((2, 3, 4)):
        scores = collections.defaultdict(list)
        for path in list_images(folder / f'LR_bicubic/X{scale}'):
            enlarged = imresize(read_image(path), scale) / 255
            hr = crop(images[path.stem.removesuffix(f'x{scale}')], scale)
            for name in ('sr-y', 'sr-y-uint8'):
                scores[name].append(psnr(*compared_images(PROTOCOLS[name], enlarged, hr, scale)))
        for name, values in scores.items():
            assert len(values) == len(images)
            assert np.mean(values) == pytest.approx(BICUBIC[name, dataset][i], abs=0.01), (name, scale)


@pytest.mark.parametrize('name, scale, rgb, y', AUTHORS)
def test_authors_own_scores(data_dir, name, scale, rgb, y):
    hr = crop(read_image(data_dir / f'test/Set5/HR/{name}.png'), scale)
    noise = np.random.RandomState(3).normal(0, 0.03, hr.shape)
    prediction = np.clip(hr / 255 + noise, -0.1, 1.1).astype(np.float32)
    assert psnr_of(PROTOCOLS['authors'], prediction, hr, scale) == pytest.approx(y, abs=1e-4)
    assert psnr_of(PROTOCOLS['sr-rgb'], prediction, hr, scale) == pytest.approx(rgb, abs=1e-4)


@pytest.mark.parametrize('name, scale, digest', AUTHORS_LOW_RESOLUTION)
def test_authors_resize_is_bit_exact(data_dir, name, scale, digest):
    hr = crop(read_image(data_dir / f'test/Set5/HR/{name}.png'), scale)
    lr = PROTOCOLS['authors'].network_input(Example(name, hr, hr[:1]), scale)
    assert lr.dtype == np.uint8 and lr.shape == (hr.shape[0] // scale, hr.shape[1] // scale, 3)
    assert hashlib.sha256(lr.tobytes()).hexdigest() == digest


def test_which_image_the_network_is_given():
    hr, lr = np.zeros((40, 40, 3), np.uint8), np.ones((20, 20, 3), np.uint8)
    example, div2k = Example('a', hr, lr), Example('a', hr, lr, 'DIV2K')
    for name in ('sr-y', 'sr-y-uint8', 'sr-rgb'):
        assert PROTOCOLS[name].network_input(example, 2) is lr
    authors = PROTOCOLS['authors'].network_input
    assert authors(div2k, 2) is lr
    np.testing.assert_array_equal(authors(example, 2), np.zeros((20, 20, 3)))
    for protocol in SR:
        with pytest.raises(UserError, match='no low-resolution image at scale 1'):
            protocol.network_input(Example('a', hr, None), 1)


def test_weights_and_rounding_of_y():
    """If one colour changes by one step, Y changes by the weight of that colour, or by its rounding."""
    hr = np.full((40, 40, 3), 100, np.uint8)
    for channel, (bt601, authors) in enumerate(zip((65.481, 128.553, 24.966), (0.257, 0.504, 0.098), strict=True)):
        prediction = hr.copy()
        prediction[..., channel] += 10
        y = {protocol.name: compared_images(protocol, prediction / 255, hr, 2) for protocol in SR}
        differences = {name: np.unique(np.round(np.subtract(*map(np.float64, pair)), 9)) for name, pair in y.items()}
        assert differences['sr-y'] == pytest.approx([10 * bt601 / 255])
        assert differences['sr-y-uint8'] == [np.floor(110 * bt601 / 255 + 100 * (219 - bt601) / 255 + 0.5) - 86]
        assert differences['authors'] == pytest.approx([10 * authors])
        assert list(differences['sr-rgb']) == [0, 10]


@pytest.mark.parametrize('name', PROTOCOLS)
def test_prediction_is_rounded_and_clipped_before_it_is_compared(name):
    random = np.random.default_rng(0)
    hr = random.integers(0, 256, (40, 50, 3), np.uint8)
    hr[:5] = 255
    off = hr / 255 + random.uniform(-0.4, 0.4, hr.shape) / 255
    off[:5] = 1.3
    channels = PROTOCOLS[name].truth(hr).shape[-1]
    if channels == 1:
        hr, off = hr[..., :1], off[..., :1]
    assert psnr_of(PROTOCOLS[name], off, hr, 2) == math.inf
    assert psnr_of(PROTOCOLS[name], hr / 255 + 0.6 / 255 * (hr < 255), hr, 2) < 60


@pytest.mark.parametrize(
    'name, scale, shave', [('sr-y', 3, 3), ('sr-y-uint8', 2, 2), ('authors', 4, 4), ('sr-rgb', 3, 9)]
)
def test_shave(name, scale, shave):
    hr = np.full((48, 54, 3), 90, np.uint8)
    border, inside = hr / 255, hr / 255
    border[:shave], border[-shave:], border[:, :shave], border[:, -shave:] = 0, 0, 0, 0
    assert psnr_of(PROTOCOLS[name], border, hr, scale) == math.inf
    for place in [(shave, 20), (-shave - 1, 20), (20, shave), (20, -shave - 1)]:
        inside = hr / 255
        inside[place] = 0
        assert psnr_of(PROTOCOLS[name], inside, hr, scale) < 60


def test_gray_images():
    random = np.random.default_rng(1)
    hr = random.integers(0, 256, (40, 50, 1), np.uint8)
    gray = np.clip(hr / 255 + random.normal(0, 0.05, hr.shape), 0, 1)
    spread = np.array([-0.02, 0.0, 0.02])
    expected = psnr(np.rint(gray * 255)[2:-2, 2:-2], hr[2:-2, 2:-2])
    for name in ('sr-y', 'sr-y-uint8', 'authors'):
        assert psnr_of(PROTOCOLS[name], gray, hr, 2) == pytest.approx(expected)
        assert psnr_of(PROTOCOLS[name], gray + spread, hr, 2) == pytest.approx(expected, abs=1e-3)
    expected = psnr(np.rint(gray * 255)[8:-8, 8:-8], hr[8:-8, 8:-8])
    assert psnr_of(PROTOCOLS['sr-rgb'], gray, hr, 2) == pytest.approx(expected)


def test_not_a_number_is_a_score():
    prediction = np.full((40, 40, 3), 0.5)
    prediction[20, 20, 0] = np.nan
    scores = score(PROTOCOLS['sr-y'], prediction, np.zeros((40, 40, 3), np.uint8), 2, METRICS)
    assert list(scores) == ['psnr', 'ssim'] and all(math.isnan(value) for value in scores.values())


def test_mistakes():
    hr = np.zeros((40, 40, 3), np.uint8)
    sr_y = PROTOCOLS['sr-y']
    with pytest.raises(UserError, match='80'):
        psnr_of(sr_y, np.zeros((80, 80, 3)), hr, 2)
    with pytest.raises(UserError, match='network for gray images'):
        psnr_of(sr_y, np.zeros((40, 40, 1)), hr, 2)
    with pytest.raises(UserError, match='11x11'):
        psnr_of(sr_y, np.zeros((14, 40, 3)), hr[:14], 2)
    with pytest.raises(UserError, match='nothing'):
        psnr_of(PROTOCOLS['sr-rgb'], np.zeros((16, 40, 3)), hr[:16], 2)
    with pytest.raises(UserError, match=r"'sr-z'.*sr-y, sr-y-uint8, sr-rgb, sr-luma, authors"):
        find_protocols('sr', ['sr-y', 'sr-z'])
    with pytest.raises(UserError, match='no protocol'):
        find_protocols('sr', [])
    assert [protocol.name for protocol in find_protocols('sr', ['authors', 'sr-y'])] == ['authors', 'sr-y']


def test_descriptions_are_one_line_for_a_table():
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name
        assert 'shave' in protocol.description and 'rounded' in protocol.description
        assert '\n' not in protocol.description and '|' not in protocol.description


# The PSNR of the JPEG images themselves at quality 10, 20, 30, 40.
JPEG = {'LIVE1': (27.77, 30.07, 31.41, 32.35), 'Classic5': (27.82, 30.12, 31.48, 32.43)}


@pytest.mark.parametrize('dataset', JPEG)
def test_jpeg_rows(data_dir, dataset):
    images = [read_image(path) for path in list_images(data_dir / 'test' / dataset / 'HR')]
    protocol = PROTOCOLS['jpeg-y']
    for quality, published in zip((10, 20, 30, 40), JPEG[dataset], strict=True):
        scores = []
        for hr in images:
            given = protocol.network_input(Example('a', hr, None), quality)
            assert given.dtype == np.uint8 and given.shape == (*hr.shape[:2], 1)
            scores.append(psnr(*compared_images(protocol, degraded(quality)(given), hr, 1)))
        assert np.mean(scores) == pytest.approx(published, abs=0.01)


def test_jpeg_row_as_an_evaluation_prints_it(data_dir, tmp_path):
    source = open_source('classic5', '', 1, data_dir=data_dir, tfds_dir=tmp_path)
    quality = Degradation('jpeg', 10)
    predictor = degraded(10)
    (mean,) = means(evaluate([predictor], source, [PROTOCOLS['jpeg-y']], quality, METRICS, model='degraded'))
    assert (mean.dataset, mean.degradation, mean.images) == ('Classic5', 'quality 10', 5)
    assert mean.values['psnr'] == pytest.approx(27.82, abs=0.01)


@pytest.mark.parametrize('sigma, expected', [(15, 24.61), (25, 20.17)])
def test_the_score_of_noise_follows_from_its_variance(sigma, expected):
    """It is 20 log10(255 / sigma) for values that neither clipping nor rounding changes much."""
    hr = np.full((200, 200, 3), 128, np.uint8)
    for name in ('denoise', 'denoise-shared', 'denoise-authors'):
        given = PROTOCOLS[name].network_input(Example('flat.png', hr, None), sigma)
        assert given.dtype == np.float32
        assert psnr(*compared_images(PROTOCOLS[name], given, hr, 1)) == pytest.approx(expected, abs=0.05)


def test_gray_and_colour_are_told_apart_but_for_super_resolution():
    gray, colour = np.zeros((40, 40, 1), np.uint8), np.zeros((40, 40, 3), np.uint8)
    for name, protocol in PROTOCOLS.items():
        if name in ('jpeg-y', 'sr-luma'):
            assert psnr_of(protocol, luma(colour) / 255, colour, 1) == math.inf
        else:
            with pytest.raises(UserError, match=f'network for gray images cannot restore a colour image.*{name}'):
                psnr_of(protocol, gray / 255, colour, 1)
        if name in SR_NAMES:
            assert psnr_of(protocol, colour / 255, gray, 1) == math.inf
        else:
            with pytest.raises(UserError, match=f'network for colour images .* gray image under protocol {name}:'):
                psnr_of(protocol, colour / 255, gray, 1)
    with pytest.raises(UserError, match='network for colour images'):
        psnr_of(PROTOCOLS['jpeg-y'], colour / 255, colour, 1)


def test_the_border_counts_where_nothing_is_shaved():
    hr = np.full((40, 40, 1), 90, np.uint8)
    for name in ('denoise', 'denoise-shared', 'denoise-authors', 'jpeg-y', 'jpeg-rgb', 'jpeg-rgb-444'):
        for place in [(0, 20), (-1, 20), (20, 0), (20, -1)]:
            wrong = hr / 255
            wrong[place] = 0
            assert psnr_of(PROTOCOLS[name], wrong, hr, 1) < 60


def test_what_jpeg_rgb_gives_is_a_colour_file(data_dir):
    hr = read_image(data_dir / 'test/Set5/HR/bird.png')
    given = PROTOCOLS['jpeg-rgb'].network_input(Example('bird', hr, None), 10)
    np.testing.assert_array_equal(given, compress(hr, 10))
    assert given.shape == hr.shape and len(np.unique(given[..., 0] - given[..., 1])) > 20
    np.testing.assert_array_equal(luma(hr), PROTOCOLS['sr-y-uint8'].compared(hr))


def test_protocols_of_two_tasks():
    with pytest.raises(UserError, match="protocol 'denoise' is of another task: for sr there are sr-y"):
        find_protocols('sr', ['sr-y', 'denoise'])
    assert len(find_protocols('denoise', ['denoise', 'denoise-authors'])) == 2
