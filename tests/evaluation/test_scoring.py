"""Evaluation of predictors on sources: every image counts, work is shared, and parameters are not constants."""

import collections
import dataclasses
import functools
import math
import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest

from nsr_jax.data.sources import Example, open_source
from nsr_jax.errors import UserError
from nsr_jax.evaluation.protocols import score
from nsr_jax.evaluation.scores import Score, means
from nsr_jax.evaluation.scoring import check_images, device_predictors, evaluate
from nsr_jax.inference.tiling import Tiling
from nsr_jax.metrics import METRICS, Metric, find_metrics
from nsr_jax.ops.imresize import imresize
from nsr_jax.pace import shown
from nsr_jax.tasks import Degradation, all_protocols, find_baselines, find_protocols

PROTOCOLS = all_protocols()

X2 = Degradation('sr', 2)
SR = find_protocols('sr', ['sr-y', 'sr-y-uint8', 'sr-rgb', 'authors'])
USUAL = find_metrics(['psnr', 'ssim'])


class ListSource(list):
    def __init__(self, name, examples):
        super().__init__(examples)
        self.name = name
        self.names = [example.name for example in examples]


def random_source(name='noise', count=3, size=(40, 44), channels=3):
    random = np.random.default_rng(count)
    images = [random.integers(0, 256, (*size, channels), np.uint8) for _ in range(count)]
    return ListSource(name, [Example(f'{i}.png', image, imresize(image, 0.5)) for i, image in enumerate(images)])


@dataclasses.dataclass(frozen=True)
class NearestNetwork:
    """A network of one parameter, which repeats pixels and multiplies them by the parameter."""

    scale: int = 2
    channels: int = 3
    groups: int = 1
    traced: collections.Counter = dataclasses.field(default_factory=collections.Counter, compare=False)

    def apply(self, variables, x):
        self.traced[x.shape] += 1
        return variables['params']['gain'] * jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def test_bicubic_on_set5_as_tables_print_it(data_dir, tmp_path):
    source = open_source('set5', 'test', 4, data_dir=data_dir, tfds_dir=tmp_path)
    protocols = find_protocols('sr', ['sr-y', 'sr-y-uint8'])
    x4 = Degradation('sr', 4)
    scores = evaluate([find_baselines(['bicubic'], x4)['bicubic']], source, protocols, x4, USUAL, model='bicubic')
    assert len(scores) == 10
    assert len({each.image for each in scores}) == 5
    rows = {mean.protocol: mean for mean in means(scores)}
    assert rows['sr-y'].values['psnr'] == pytest.approx(28.43, abs=0.01) and rows['sr-y'].images == 5
    assert rows['sr-y-uint8'].values['psnr'] == pytest.approx(28.42, abs=0.01)
    assert rows['sr-y-uint8'].values['ssim'] == pytest.approx(0.810, abs=0.002)  # published: 0.8104


def test_every_image_is_predicted_once_for_each_input_and_scored_once_for_each_protocol():
    source = random_source(count=5)
    seen = []

    def predictor(image):
        seen.append(image)
        return imresize(image, 2) / 255

    scores = evaluate([predictor], source, SR, X2, USUAL, model='m')
    assert [(each.image, each.protocol) for each in scores] == [
        (f'{i}.png', protocol.name) for i in range(5) for protocol in SR
    ]
    assert len(seen) == 10  # once the example's own input, once the authors'
    for example in source:
        assert any(image is example.lr for image in seen)
    expected = score(PROTOCOLS['sr-rgb'], imresize(source[4].lr, 2) / 255, source[4].hr, 2, USUAL)
    assert scores[-2].values == expected
    assert (scores[-2].dataset, scores[-2].degradation, scores[-2].model) == ('noise', 'x2', 'm')


def test_means():
    def record(image, psnr, ssim, **fields):
        return Score(
            **({'dataset': 'a', 'degradation': 'x2', 'model': 'm', 'protocol': 'sr-y'} | fields),
            image=image,
            values={'psnr': psnr, 'ssim': ssim},
        )

    scores = [
        record('1', 30.0, 0.5),
        record('1', 10.0, 0.1, dataset='b'),
        record('2', 33.0, 0.8),
        record('1', 9.0, 0, degradation='x3'),
    ]
    first, other, other_scale = means(scores)
    assert (first.dataset, first.images, first.values) == ('a', 2, {'psnr': 31.5, 'ssim': pytest.approx(0.65)})
    assert (other.dataset, other.images, other.values['psnr']) == ('b', 1, 10.0)
    assert (other_scale.degradation, other_scale.values['psnr']) == ('x3', 9.0)
    (infinite,) = means([record('1', 30.0, 1), record('2', math.inf, 1)])
    assert infinite.values['psnr'] == math.inf


def mean_psnr(network, gain, source, protocol='sr-y', degradation=X2):
    predictors = device_predictors(network, {'gain': np.float32(gain)}, Tiling('whole'))
    (mean,) = means(evaluate(predictors, source, [PROTOCOLS[protocol]], degradation, USUAL, model='m'))
    return mean.values['psnr']


def test_a_network_compiles_once_and_new_parameters_are_seen():
    network, source = NearestNetwork(traced=collections.Counter()), random_source(count=4)
    first, other, again = (mean_psnr(network, gain, source) for gain in (1, 0.5, 1))
    assert network.traced == {(1, 20, 22, 3): 1}
    assert first == again != other
    nearest = [np.repeat(np.repeat(example.lr / np.float32(255), 2, axis=0), 2, axis=1) for example in source]
    by_hand = [
        score(PROTOCOLS['sr-y'], image, example.hr, 2, USUAL)['psnr']
        for image, example in zip(nearest, source, strict=True)
    ]
    assert first == pytest.approx(np.mean(by_hand), abs=1e-9)


def test_colour_network_on_gray_images():
    source = random_source(channels=1)
    colour, gray = (mean_psnr(NearestNetwork(channels=channels), 1, source) for channels in (3, 1))
    assert colour == pytest.approx(gray, abs=1e-9)


def test_mistakes():
    with pytest.raises(UserError, match=r"'lanczos'.*bicubic"):
        find_baselines(['bicubic', 'lanczos'], X2)
    with pytest.raises(UserError, match=r'^noise, 0\.png: .*gray'):
        mean_psnr(NearestNetwork(channels=1), 1, random_source())
    with pytest.raises(UserError, match=r'^small, 0\.png: .*11x11'):
        source = random_source('small', size=(12, 12))
        evaluate([find_baselines(['bicubic'], X2)['bicubic']], source, [PROTOCOLS['sr-y']], X2, USUAL, model='bicubic')


def test_a_networks_channels_are_checked_on_every_image():
    sigma = Degradation('denoise', 25)
    denoise, sr = [PROTOCOLS['denoise']], [PROTOCOLS['sr-y']]
    gray, colour = random_source('g', channels=1), random_source('c')
    check_images([colour], denoise, sigma, USUAL, [3])
    check_images([colour, gray], sr, X2, USUAL, [3])
    with pytest.raises(
        UserError,
        match=r': g, 0\.png: a network for colour images is not scored on a gray image',
    ):
        check_images([colour, gray], denoise, sigma, USUAL, [3])
    for protocols, degradation in ((denoise, sigma), (sr, X2)):
        with pytest.raises(
            UserError,
            match=r': c, 0\.png: a network for gray images cannot restore a colour image',
        ):
            check_images([gray, colour], protocols, degradation, USUAL, [1])
    check_images([gray, colour], [PROTOCOLS['jpeg-y']], Degradation('jpeg', 10), USUAL, [1])
    mixed = ListSource('mixed', [gray[0], gray[1], colour[2]])
    with pytest.raises(UserError, match=r'^mixed, 2\.png: a network for gray images cannot restore a colour image'):
        check_images([mixed], denoise, sigma, USUAL, [1])


def test_protocol_of_another_task():
    with pytest.raises(UserError, match="protocol 'sr-y' is of another task: for jpeg there are jpeg-y"):
        evaluate([np.array], random_source(), [PROTOCOLS['sr-y']], Degradation('jpeg', 10), USUAL, model='m')
    with pytest.raises(UserError, match="protocol 'sr-y' is of another task: for jpeg there are jpeg-y"):
        check_images([], [PROTOCOLS['sr-y']], Degradation('jpeg', 10), USUAL, [3])


def test_a_level_of_noise_during_training():
    source, network = random_source(channels=1), NearestNetwork(scale=1, channels=1)
    object.__setattr__(network, 'apply', lambda variables, x: variables['params']['gain'] * x)
    five, ten = (mean_psnr(network, 1, source, 'denoise', Degradation('denoise', sigma)) for sigma in (5, 10))
    assert five - ten == pytest.approx(6, abs=0.5)


def test_devices_share_the_images_and_no_score_is_lost_or_moved():
    source = random_source(count=9)
    seen = [[] for _ in range(3)]
    barrier = threading.Barrier(3, timeout=300)

    def predictor_of(device):
        def predictor(image):
            if len(seen[device]) == 0:
                barrier.wait()  # three images are predicted at once
            seen[device].append(image)
            return imresize(image, 2) / 255

        return predictor

    scores = evaluate([predictor_of(device) for device in range(3)], source, SR[:2], X2, USUAL, model='m')
    assert scores == evaluate([lambda image: imresize(image, 2) / 255], source, SR[:2], X2, USUAL, model='m')
    assert sum(map(len, seen)) == 9
    assert min(map(len, seen)) >= 1


@pytest.mark.parametrize(('protocol', 'smallest'), [('sr-y', 15), ('sr-rgb', 27)])
def test_images_that_are_too_small_are_found_before_anything_is_computed(protocol, smallest):
    side = smallest + smallest % 2  # of a pair at scale 2
    protocols, fits = [PROTOCOLS[protocol]], random_source('fits', size=(side, 40))
    check_images([fits], protocols, X2, USUAL, [3])
    evaluate([find_baselines(['bicubic'], X2)['bicubic']], fits, protocols, X2, USUAL, model='bicubic')
    small = random_source('small', size=(40, smallest - 1))
    with pytest.raises(UserError) as caught:
        check_images([fits, small], protocols, X2, USUAL, [3])
    told = f'small, 0.png: {smallest - 1}x40 pixels are too few for protocol {protocol}: SSIM needs 11x11 inside of '
    assert str(caught.value).startswith(f'3 images cannot be scored: {told}')
    with pytest.raises(UserError):
        evaluate([find_baselines(['bicubic'], X2)['bicubic']], small, protocols, X2, USUAL, model='bicubic')


def test_the_metric_that_needs_the_largest_image_is_named():
    source, sr_rgb = random_source('small', count=1, size=(180, 200)), [PROTOCOLS['sr-rgb']]
    check_images([source], sr_rgb, X2, USUAL, [3])
    with pytest.raises(
        UserError, match='200x180 pixels are too few for protocol sr-rgb: MS-SSIM needs 176x176 inside of 8 border pix'
    ):
        check_images([source], sr_rgb, X2, find_metrics(['psnr', 'ms_ssim', 'ssim']), [3])


def test_a_metric_cannot_have_the_name_of_a_column():
    for name in ('model', 'images'):
        with pytest.raises(UserError, match=f"a metric cannot be called '{name}'"):
            check_images([], SR, X2, {'psnr': METRICS['psnr'], name: Metric(np.subtract, 'Mine')}, [3])


def test_a_failure_is_told_before_the_other_images_are_done():
    begun, ended, told = [], [], threading.Event()

    def predictor(image):
        begun.append(image)
        if len(begun) > 1:
            told.wait(30)
        ended.append(image)
        raise UserError('no')

    try:
        with pytest.raises(UserError, match=r'^noise, 0\.png: no$'):
            evaluate([predictor], random_source(count=4), [PROTOCOLS['sr-y']], X2, USUAL, model='m')
        assert len(ended) == 1
    finally:
        told.set()


def test_a_log_says_how_many_images_are_done_while_one_takes_long(monkeypatch, caplog):
    caplog.set_level('INFO', logger='absl')
    monkeypatch.setattr('sys.stderr.isatty', lambda: False)
    monkeypatch.setattr('nsr_jax.evaluation.scoring.shown', functools.partial(shown, seconds=0.01))
    seen = []

    def predictor(image):
        seen.append(image)
        deadline = time.monotonic() + 60
        while len(seen) == 3 and 'm on noise: 2 of 3 images are done' not in caplog.text:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return imresize(image, 2) / 255

    evaluate([predictor], random_source(), [PROTOCOLS['sr-y']], X2, USUAL, model='m')
    assert len(seen) == 3
