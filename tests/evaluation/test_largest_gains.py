"""A network compared with baselines, down to the files that eval.py writes."""

import csv
import dataclasses
import pathlib
import re
import unicodedata

import jax
import numpy as np
import pytest
from PIL import Image

from configs.sr import get_config
from nsr_jax.data.sources import Example, open_source
from nsr_jax.evaluation.cells import Contender, Sweep, baseline_contenders, digest_weights, run_sweep
from nsr_jax.evaluation.largest_gains import (
    file_names,
    find_largest_gains,
    labels_of,
    show,
)
from nsr_jax.evaluation.protocols import score
from nsr_jax.evaluation.scoring import evaluate
from nsr_jax.evaluation.tables import from_json, read_models
from nsr_jax.images.writing import write_image
from nsr_jax.inference.prediction import predict
from nsr_jax.inference.restorer import Restorer
from nsr_jax.inference.tiling import Tiling
from nsr_jax.metrics import METRICS, Metric, find_metrics
from nsr_jax.models.build import build_network
from nsr_jax.shipped import read_card
from nsr_jax.tasks import Degradation, all_protocols, find_protocols
from nsr_jax.tasks.sr import bicubic
from nsr_jax.training.checkpoints import save_model

PROTOCOLS = all_protocols()

ROOT = pathlib.Path(__file__).parents[2]
X2 = Degradation('sr', 2)
USUAL = find_metrics(['psnr', 'ssim'])
TINY = {'num_blocks': 1, 'features': 8, 'groups': 2, 'cardinality': 2}


@pytest.fixture(scope='module')
def tfds_dir(tmp_path_factory):
    return tmp_path_factory.mktemp('tfds')


@pytest.fixture(scope='module')
def photos(tfds_dir):
    return open_source('photos', '', 2, tfds_dir=tfds_dir)


def network(name, predictor):
    """A contender that is a function but counts as a network."""
    return Contender(name, name, lambda degradation: [predictor], network=(None, {}))


def test_pictures_are_of_the_largest_gains(photos, tmp_path):
    def better_on_coffee(image):
        exact = photos[1].hr / 255
        return exact if image.shape == photos[1].lr.shape else bicubic(2)(image)

    contenders = [*baseline_contenders(['bicubic'], [X2]), network('cheat', better_on_coffee)]
    sweep = Sweep(contenders, [photos], find_protocols('sr', ['sr-y']), [X2], USUAL)
    scores = run_sweep(sweep, tmp_path)
    assert [(each.model, each.image) for each in scores] == [
        (model, image) for model in ('bicubic', 'cheat') for image in ('chelsea.png', 'coffee.png')
    ]
    assert scores[3].values['psnr'] == np.inf and scores[2].values == scores[0].values
    assert from_json((tmp_path / 'scores.json').read_text(encoding='utf-8')) == scores
    (tmp_path / 'metrics.jsonl').write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25}\n')
    show(sweep, scores, tmp_path, workdirs=[str(tmp_path)], report=True)
    assert [path.name for path in (tmp_path / 'pictures').iterdir()] == ['photos_x2_coffee.png']
    assert (tmp_path / 'losses.png').stat().st_size > 1000
    page = (tmp_path / 'index.html').read_text(encoding='utf-8')
    assert 'coffee.png' in page and 'cheat' in page


def test_gains_are_by_the_first_metric_in_its_direction(tfds_dir, monkeypatch):
    photos = open_source('photos', '', 1, tfds_dir=tfds_dir)
    sigma, denoise = Degradation('denoise', 15), find_protocols('denoise', ['denoise'])
    darkest = Metric(lambda a, b: float(a.mean()), 'Mean', decimals=1, higher_is_better=False)
    monkeypatch.setitem(METRICS, 'darkest', darkest)

    def darker(image):
        return image * (0.5 if image.shape == photos[1].hr.shape else 0.9)

    for names, first in ((['darkest', 'psnr'], 'coffee.png'), (['psnr', 'darkest'], 'chelsea.png')):
        sweep = Sweep([network('darker', darker)], [photos], denoise, [sigma], find_metrics(names))
        scores = evaluate([darker], photos, denoise, sigma, sweep.metrics, model='darker')
        (found,) = find_largest_gains(sweep, photos, sigma, scores, 1)
        assert found.image == first
        assert list(found.scores) == ['degraded', 'darker'] and list(found.scores['degraded']) == names


def test_two_perfect_predictions_are_no_gain():
    image = np.full((32, 32, 3), 7, np.uint8)
    random = np.random.default_rng(0).integers(0, 256, image.shape, np.uint8)
    source = Images([Example('flat.png', image, image[:16, :16]), Example('random.png', random, random[::2, ::2])])
    same = network('same', lambda image: bicubic(2)(image))
    sweep = Sweep([same], [source], find_protocols('sr', ['sr-y']), [X2], USUAL)
    scores = evaluate(same.predictors(X2), source, sweep.protocols, X2, USUAL, model='same')
    assert scores[0].values['psnr'] == np.inf
    assert [found.image for found in find_largest_gains(sweep, source, X2, scores, 2)] == ['random.png', 'flat.png']


class Images(list):
    """A source that is a list."""

    name = 'images'

    @property
    def names(self):
        return [example.name for example in self]


def test_noise_of_several_sigmas_beside_the_noisy_image_itself(tfds_dir, tmp_path):
    photos = open_source('photos', '', 1, tfds_dir=tfds_dir)
    degradations = [Degradation('denoise', sigma) for sigma in (15, 50)]

    def smooth(image):
        return (image + np.roll(image, 1, 0) + np.roll(image, 1, 1) + np.roll(image, (1, 1), (0, 1))) / 4

    contenders = [*baseline_contenders(['degraded'], degradations), network('smooth', smooth)]
    sweep = Sweep(contenders, [photos], find_protocols('denoise', ['denoise']), degradations, USUAL)
    scores = run_sweep(sweep, tmp_path)
    psnrs = {(each.degradation, each.model, each.image): each.values['psnr'] for each in scores}
    assert len(psnrs) == len(scores) == 8
    for image in photos.names:
        assert psnrs['sigma 15', 'degraded', image] == pytest.approx(24.8, abs=0.3)  # 24.6 without clipping
        assert psnrs['sigma 50', 'smooth', image] > psnrs['sigma 50', 'degraded', image] + 4
    assert (tmp_path / 'scores.md').read_text(encoding='utf-8').count('| degraded |') == 2
    show(sweep, scores, tmp_path)
    pictures = sorted(path.name for path in (tmp_path / 'pictures').iterdir())
    assert [name.rpartition('_')[0] for name in pictures] == ['photos_sigma15', 'photos_sigma50']
    assert not (tmp_path / 'index.html').exists()


CONFIG = '--config=configs/sr.py:scale=2,preset=edsr_s_nsr'


def test_script(commands, tfds_dir, photos, tmp_path):
    with get_config('scale=2,preset=edsr_s_nsr').unlocked() as config:
        config.model.update(TINY)
    model = build_network(config.model)
    params = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))['params']
    save_model(tmp_path / 'model', params, config, step=7)
    output = tmp_path / 'eval'
    code, error, _ = commands(
        'eval.py', CONFIG, *(f'--config.model.{name}={value}' for name, value in TINY.items()),
        f'--config.data.tfds_dir={tfds_dir}', f'--checkpoint={tmp_path / "model"}', '--datasets=photos',
        '--baselines=bicubic', '--protocol=sr-y,sr-rgb', '--metrics=psnr,mae', f'--output={output}',
    )  # fmt: skip
    assert code == 0, error
    told = set(re.findall(r'^I\d{4} \S+ +\d+ (\w+\.py):', error, re.MULTILINE))
    assert 'eval.py' in told
    ours = {path.name for path in (*ROOT.glob('*.py'), *(ROOT / 'nsr_jax').rglob('*.py'))}
    assert told <= ours  # libraries do not report their steps
    scores = from_json((output / 'scores.json').read_text(encoding='utf-8'))
    assert len(scores) == len(list(csv.DictReader((output / 'scores.csv').open()))) == 8
    name = f'{tmp_path / "model"}, step 7 (tiling feathered 96/16)'
    assert name in (output / 'scores.md').read_text(encoding='utf-8')
    models = read_models((output / 'scores.json').read_text(encoding='utf-8'))
    assert models['bicubic'] == {}
    assert models[name] == {
        'weights': digest_weights(params), 'step': 7, 'tiling': 'feathered 96/16', 'ensemble': 1,
    }  # fmt: skip
    for each in scores:
        example = photos[photos.names.index(each.image)]
        if each.model == 'bicubic':
            prediction = bicubic(2)(example.lr)
        else:
            prediction = predict(model, params, example.lr, tiling=Tiling('feathered'))
        expected = score(PROTOCOLS[each.protocol], prediction, example.hr, 2, find_metrics(['psnr', 'mae']))
        assert each.values == pytest.approx(expected, abs=1e-3)
    (picture,) = (output / 'pictures').iterdir()
    assert Image.open(picture).size[0] > 1000


def test_script_scores_a_shipped_network_as_restore_applies_it(commands, tfds_dir, photos, tmp_path):
    folder = tmp_path / 'crops'
    folder.mkdir()
    write_image(folder / 'cat.png', photos[0].hr[100:148, 100:160])
    code, error, _ = commands(
        'eval.py', '--shipped=sr_x2', f'--datasets={folder}', '--protocol=sr-y,sr-rgb', '--report',
        f'--output={tmp_path / "eval"}',
    )  # fmt: skip
    assert code == 0, error
    scores = from_json((tmp_path / 'eval' / 'scores.json').read_text(encoding='utf-8'))
    (example,) = open_source(str(folder), '', 2, tfds_dir=tfds_dir)
    restored = Restorer.load('sr_x2')(example.lr) / 255
    card = read_card('sr_x2')
    assert [(each.model, each.protocol) for each in scores] == [
        (card.scores[1]['model'], name) for name in ('sr-y', 'sr-rgb')
    ]
    for each in scores:
        expected = score(PROTOCOLS[each.protocol], restored, example.hr, 2, USUAL)
        assert each.values == pytest.approx(expected, abs=1e-3)
    page = (tmp_path / 'eval' / 'index.html').read_text(encoding='utf-8')
    assert '<h1>Evaluation of sr_x2</h1>' in page
    assert '<dt>sr_x2</dt><dd>sr_x2 (tiling feathered 96/16)</dd>' in page


def test_options_of_data_and_tiles_need_no_config(commands, photos, tmp_path):
    write_image(tmp_path / 'data' / 'test' / 'Cats' / 'HR' / 'cat.png', photos[0].hr[100:148, 100:160])
    code, error, _ = commands(
        'eval.py', '--shipped=sr_x2', '--datasets=cats', f'--data_dir={tmp_path / "data"}', '--tile=16', '--overlap=4',
        f'--tfds_dir={tmp_path / "prepared"}', f'--output={tmp_path / "eval"}', '--pictures=0',
    )  # fmt: skip
    assert code == 0, error
    (each,) = from_json((tmp_path / 'eval' / 'scores.json').read_text(encoding='utf-8'))
    assert (each.model, each.dataset) == ('sr_x2 (tiling feathered 16/4)', 'Cats')
    assert list((tmp_path / 'prepared').iterdir())
    code, error, _ = commands(
        'eval.py', '--shipped=sr_x2', '--config.evaluation.tile=16', f'--output={tmp_path / "eval"}'
    )
    assert code == 2
    assert error == 'error: --config.evaluation.tile overrides a field of a config, which --config has to name\n'


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['--datasets=photos,set55', '--baselines=bicubic'], 'set55'),
        (
            ['--datasets=photos', '--baselines=bicubic', '--metrics=psnr,lpips'],
            "metric 'lpips': one or more of psnr",
        ),
        (['--datasets=photos'], 'nothing to score: give --checkpoint, --shipped=sr_x2, '),
        (['--datasets=photos', '--shipped=sr_x5'], 'no weights called sr_x5 come with the package; there are: sr_x2, '),
        (
            ['--datasets=photos', '--shipped=sr_x2'],
            '--config describes another network than sr_x2: num_blocks 16 here, 8 there',
        ),
        (['--datasets=photos', '--checkpoint=/no/such/folder'], '/no/such/folder'),
    ],
)
def test_script_refuses_mistakes_in_one_line(commands, tmp_path, tfds_dir, arguments, message):
    output = tmp_path / 'eval'
    code, error, _ = commands('eval.py', CONFIG, *arguments, f'--output={output}', f'--config.data.tfds_dir={tfds_dir}')
    assert code == 2
    (line,) = (line for line in error.splitlines() if line.startswith('error: '))
    assert message in line
    assert 'Traceback' not in error
    assert not output.exists() or not list(output.iterdir())


def test_networks_have_short_names_and_equal_ones_are_numbered():
    one, two, three = (network(f'runs/{number}, step 7', None) for number in (1, 2, 3))
    networks = [dataclasses.replace(one, label='x2'), two, dataclasses.replace(three, label='x2')]
    assert labels_of(networks) == {one.name: 'x2 (1)', two.name: two.name, three.name: 'x2 (2)'}


def test_every_picture_has_a_name_of_its_own():
    keys = [('set', 'x2', name) for name in (
        'a.png', 'b.png', 'b.bmp', 'box x2 fox.png', 'box_x2_fox.png', 'Größe.png', 'Gro\u0308ße.png', 'C.png', 'c.png',
        'd|:<>.png', 'x' * 250 + '.png', 'x' * 250 + '.bmp', 'ä' * 125 + '.png', 'a_gates.png', 'CON', '-', 'e.f.png',
    )]  # fmt: skip
    keys += [('set_x2', 'x2', 'a.png'), ('set', 'x2', 'x2_a.png'), ('set', 'sigma 25', 'a.png'), ('Set', 'x2', 'a.png')]
    names = file_names(keys)
    assert len({unicodedata.normalize('NFC', name).casefold() for name in names.values()}) == len(keys)
    assert all(len(f'{name}_gates.npz'.encode()) < 200 for name in names.values())
    assert not any(set(name) & set('/\\\n|:<>"*? ') for name in names.values())
    assert names['set', 'sigma 25', 'a.png'] == 'set_sigma25_a'
    assert names['set', 'x2', 'e.f.png'] == 'set_x2_e.f'
    assert names['set', 'x2', 'b.png'] != names['set', 'x2', 'b.bmp']
    assert names['set', 'x2', 'a_gates.png'] != f'{names["set", "x2", "a.png"]}_gates'
    assert file_names(keys[::-1]) == names


def test_pictures_of_equal_stems_do_not_replace_each_other(tmp_path):
    folder = tmp_path / 'evset'
    for number, name in enumerate(('box x2 fox.png', 'box_x2_fox.png', 'box_x2_fox.bmp', 'Größe|$pipe$.png')):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
        folder.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / name)
    source = open_source(folder, '', 2, tfds_dir=tmp_path / 'tfds')
    other = network('other', lambda image: np.clip(bicubic(2)(image) + 0.01, 0, 1))
    sweep = Sweep([other], [source], find_protocols('sr', ['sr-y']), [X2], USUAL)
    show(sweep, run_sweep(sweep, tmp_path), tmp_path, pictures=4, report=True)
    assert len(list((tmp_path / 'pictures').iterdir())) == 4
