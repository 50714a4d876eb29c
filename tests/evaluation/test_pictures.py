"""Pictures, read back pixel by pixel."""

import json

import numpy as np
import pytest
from PIL import Image

from nsr_jax.errors import UserError
from nsr_jax.evaluation.pictures import choose_crop, draw_comparison, plot_losses, read_curves


@pytest.mark.parametrize('size, place', [(8, (13, 21)), (1, (13, 21)), (100, (0, 0))])
def test_crop_is_where_the_gain_is(size, place):
    hr = np.full((40, 50, 3), 100, np.uint8)
    baseline, prediction = hr.copy(), hr.copy()
    baseline[13 : 13 + size, 21 : 21 + size] = 90
    prediction[0:9, 0:9] = 0  # where the network is worse
    baseline[0:9, 0:9] = 1
    assert choose_crop(hr, prediction, baseline, size) == place


def test_crop_agrees_with_trying_all():
    random = np.random.default_rng(0)
    hr, prediction, baseline = random.integers(0, 256, (3, 12, 15, 1), np.uint8).astype(np.float64)
    gain = (baseline - hr) ** 2 - (prediction - hr) ** 2
    tried = {(i, j): gain[i : i + 4, j : j + 4].sum() for i in range(9) for j in range(12)}
    assert choose_crop(hr, prediction, baseline, 4) == max(tried, key=tried.get)


@pytest.mark.parametrize('channels', [1, 3])
def test_comparison_shows_the_crops(tmp_path, channels):
    colours = [(200, 30, 40), (20, 190, 60), (10, 60, 220)]
    images = [np.zeros((64, 80, 3), np.uint8) for _ in colours]
    for image, colour in zip(images, colours, strict=True):
        image[16:48, 20:52] = colour
    images = [image[..., :channels] for image in images]
    captions = ['low resolution', 'network\n33.67 dB', 'high resolution']
    path = tmp_path / 'picture.png'
    draw_comparison(path, 'title', list(zip(captions, images, strict=True)), (16, 20), 32)
    pixels = np.asarray(Image.open(path).convert('RGB')).reshape(-1, 3)
    counts = [(pixels == (colour if channels == 3 else colour[:1] * 3)).all(axis=-1).sum() for colour in colours]
    assert min(counts) > 10_000  # each crop fills its panel
    assert counts[2] > 1.1 * counts[0]  # the true image is also shown as a whole
    assert [each.name for each in tmp_path.iterdir()] == ['picture.png']


def write_lines(path, *lines):
    path.write_text(''.join(f'{line}\n' for line in lines))
    return path


def test_losses_are_read_in_order_and_the_resumed_step_counts_once(tmp_path):
    lines = [
        {'step': 10, 'loss': 0.5},
        {'step': 20, 'loss': 0.4},
        {'step': 20, 'Set5/psnr': 'inf'},
        {'step': 20, 'loss': 0.3},
    ]
    path = write_lines(tmp_path / 'metrics.jsonl', *map(json.dumps, [{'step': 30, 'loss': 0.2}, *lines]))
    curves = {name: (steps.tolist(), values.tolist()) for name, (steps, values) in read_curves(path).items()}
    assert curves == {'loss': ([10, 20, 30], [0.5, 0.3, 0.2]), 'Set5/psnr': ([20], [np.inf])}


def test_loss_curve_falls_on_the_picture(tmp_path):
    lines = [json.dumps({'step': step, 'loss': 0.1 * 0.99**step}) for step in range(200)]
    picture = tmp_path / 'loss.png'
    plot_losses(write_lines(tmp_path / 'metrics.jsonl', *lines), picture)
    image = np.asarray(Image.open(picture).convert('RGB')).astype(int)
    rows, columns = np.nonzero((image[..., 2] - image[..., 0] > 100) & (image[..., 2] > 150))  # matplotlib's first blue
    assert len(rows) > 300
    assert np.corrcoef(rows, columns)[0, 1] > 0.99  # exponential decay is a straight line on a logarithmic axis


@pytest.mark.parametrize('line', ['{"step": 1, "lo', '7', '{"loss": 1}', '{"step": 1, "loss": "low"}'])
def test_broken_metrics_are_refused_by_line(tmp_path, line):
    path = write_lines(tmp_path / 'metrics.jsonl', '{"step": 1, "loss": 0.5}', line)
    with pytest.raises(UserError, match='line 2'):
        plot_losses(path, tmp_path / 'loss.png')
    assert not (tmp_path / 'loss.png').exists()


def test_missing_losses(tmp_path):
    with pytest.raises(UserError, match='cannot be read'):
        read_curves(tmp_path / 'none.jsonl')
    with pytest.raises(UserError, match='no line'):
        read_curves(write_lines(tmp_path / 'metrics.jsonl', '{"step": 1, "psnr": 30}'))


def test_names_are_no_formulas(tmp_path):
    image = np.zeros((16, 16, 3), np.uint8)
    draw_comparison(tmp_path / 'a.png', r'a$\x$.png', [(r'$\frac$', image), ('$', image)], (0, 0), 8)
    assert (tmp_path / 'a.png').exists()
