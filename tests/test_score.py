"""The command that scores folders of images, against scikit-image, published numbers and a PSNR written by hand."""

import csv
import json
import math
import os
import pathlib
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import skimage.metrics
from absl import flags

from nsr_jax import score
from nsr_jax.errors import UserError
from nsr_jax.evaluation.folders import match
from nsr_jax.images.reading import list_images, read_image
from nsr_jax.images.writing import write_photo
from nsr_jax.ops.imresize import imresize

ROOT = pathlib.Path(__file__).parents[1]


def write(path, pixels):
    path.parent.mkdir(exist_ok=True, parents=True)
    PIL.Image.fromarray(pixels).save(path)


def random_pair(seed=0, shape=(24, 31, 3)):
    """A true image and a prediction near it."""
    generator = np.random.RandomState(seed)
    truth = generator.randint(0, 256, shape)
    return truth.astype(np.uint8), np.clip(truth + generator.randint(-9, 10, shape), 0, 255).astype(np.uint8)


def save_pairs(folder, names=('a', 'b'), ending='', **options):
    pairs = [random_pair(seed, **options) for seed, _ in enumerate(names)]
    for name, (truth, prediction) in zip(names, pairs, strict=True):
        write(folder / 'Set/HR' / f'{name}.png', truth)
        write(folder / 'Tool' / f'{name}{ending}.png', prediction)
    return pairs


def y_of(image):
    return image @ np.array([65.481, 128.553, 24.966]) / 255 + 16


def psnr_by_hand(truth, prediction):
    return 10 * math.log10(255**2 / np.mean((truth.astype(np.float64) - prediction) ** 2))


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """A function that calls the command in this process, in a folder of this test, and returns what it prints."""
    monkeypatch.chdir(tmp_path)
    before = set(flags.FLAGS)
    score.define_flags()
    names = set(flags.FLAGS) - before

    def call(*arguments):
        for name in names:
            flags.FLAGS[name].unparse()
        score.main(flags.FLAGS(['score', 'Tool', 'Set/HR', *map(str, arguments)]))
        return capsys.readouterr().out

    yield call
    for name in names:
        delattr(flags.FLAGS, name)


def read_scores(folder):
    return {
        (each['protocol'], each['image']): each for each in json.loads((folder / 'scores.json').read_text())['scores']
    }


def printed(text):
    """The printed numbers by protocol."""
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in text.splitlines()[2:]]
    return {row[0]: row[3:] for row in rows}


def test_images_without_a_scale(run, tmp_path):
    pairs = save_pairs(tmp_path)
    table = printed(run('--output=out', '--report'))
    assert list(table) == [
        'denoise',
        'denoise-shared',
        'denoise-authors',
        'jpeg-rgb',
        'jpeg-rgb-444',
        'pairs-rgb',
        'pairs-y',
    ]
    assert table['denoise'] == table['jpeg-rgb'] != table['pairs-y']
    found = read_scores(tmp_path / 'out')
    for name, (truth, prediction) in zip(('a.png', 'b.png'), pairs, strict=True):
        rgb, y = found['denoise', name], found['pairs-y', name]
        assert rgb['psnr'] == pytest.approx(psnr_by_hand(truth, prediction), abs=1e-9)
        assert y['psnr'] == pytest.approx(psnr_by_hand(*map(np.rint, map(y_of, (truth, prediction)))), abs=1e-9)
        options = {'gaussian_weights': True, 'use_sample_covariance': False, 'data_range': 255, 'channel_axis': -1}
        _, of_pixels = skimage.metrics.structural_similarity(truth, prediction, full=True, **options)
        assert rgb['ssim'] == pytest.approx(of_pixels[5:-5, 5:-5].mean(), abs=1e-9)
        assert (rgb['dataset'], rgb['degradation'], rgb['model']) == ('Set', 'denoise', 'Tool')
    mean = np.mean([psnr_by_hand(*pair) for pair in pairs])
    assert table['denoise'][0] == f'{mean:.2f}'
    with (tmp_path / 'out/scores.csv').open(encoding='utf-8') as file:
        assert len(list(csv.DictReader(file))) == 2 * len(table)
    assert 'protocol `pairs-y`' in (tmp_path / 'out/scores.md').read_text()
    assert 'Scores of Tool' in (tmp_path / 'out/index.html').read_text()
    for name in ('scores.json', 'scores.csv', 'scores.md', 'index.html'):  # of `denoise`
        assert 'DnCNN-S' in (tmp_path / 'out' / name).read_text()


def test_super_resolution_leaves_a_border_out_and_crops_the_truth(run, tmp_path):
    (truth, prediction), *_ = save_pairs(tmp_path, ending='_SwinIR')
    for name in 'ab':
        write(tmp_path / 'Tool' / f'{name}_SwinIR.png', prediction[:, :30])
        write(tmp_path / 'Set/HR' / f'{name}.png', truth)
    text = run('--scale=3', '--metrics=psnr,mae')
    assert 'SwinIR-light' in next(line for line in text.splitlines() if line.startswith('| sr-y |'))
    table = printed(text)
    assert list(table) == ['sr-y', 'sr-y-uint8', 'sr-rgb', 'authors', 'pairs-rgb', 'pairs-y']
    y = [y_of(image[3:-3, 3:27]) for image in (truth, prediction)]
    assert table['sr-y'] == [f'{psnr_by_hand(*y):.2f}', f'{np.abs(y[0] - y[1]).mean():.3f}']
    assert table['sr-rgb'][0] == f'{psnr_by_hand(truth[9:-9, 9:21], prediction[9:-9, 9:21]):.2f}'
    assert table['pairs-rgb'][0] == f'{psnr_by_hand(truth[:, :30], prediction[:, :30]):.2f}'


def test_predictions_of_y_alone(run, tmp_path):
    """They fit the protocols that compare nothing else, which do not take colour."""
    pairs = save_pairs(tmp_path, ['a'])
    with pytest.raises(UserError, match=r'a\.png: protocol jpeg-y scores predictions of Y alone'):
        run('--protocol=denoise,jpeg-y')
    y = [np.rint(y_of(image)).astype(np.uint8) for image in pairs[0]]
    write(tmp_path / 'Tool/a.png', y[1])
    assert printed(run())['jpeg-y'][0] == printed(run('--protocol=jpeg-y'))['jpeg-y'][0] == f'{psnr_by_hand(*y):.2f}'
    assert list(printed(run('--scale=2'))) == ['sr-luma']
    with pytest.raises(UserError, match=r'Tool/a.png: .*cannot restore a colour image \(protocol denoise\)'):
        run('--protocol=denoise')
    write(tmp_path / 'Set/HR/a.png', y[0])
    write(tmp_path / 'Tool/a.png', pairs[0][1])
    assert {'sr-y', 'sr-luma'} < printed(run('--scale=2')).keys()  # in super-resolution alone, as Set14 needs it
    with pytest.raises(UserError, match=r'is not scored on a gray image under protocol denoise'):
        run('--protocol=denoise')


@pytest.mark.parametrize('ending', ['', '_x2', 'x4', '_SwinIR', '_out', '0'])
def test_the_ending_of_all_names_is_found(tmp_path, ending):
    names = ['1', '10', 'img_1', 'img_10']
    save_pairs(tmp_path, names, ending)
    pairs, *found = match(tmp_path / 'Tool', tmp_path / 'Set/HR')
    assert found == [ending, '']
    assert [(prediction.stem, truth.stem) for prediction, truth in pairs] == [(name + ending, name) for name in names]


MANY = ('1', '10', 'img_1', 'img_10')


@pytest.mark.parametrize(
    ('names', 'ending', 'truth_ending', 'found'),
    [
        (MANY, '_SRF_2_SwinIR', '_HR', ['_SRF_2_SwinIR', '_HR']),
        (MANY, '_SR', '_HR', ['_SR', '_HR']),
        (MANY, '', '_gt', ['', '_gt']),
        (MANY, '_SwinIR', '_SRF_2_HR', ['_SwinIR', '_SRF_2_HR']),
        (MANY, '_SRF_2_SwinIR', '_SRF_2_HR', ['_SwinIR', '_HR']),  # the shortest that fits
        (MANY, '.x2-out', ' true', ['.x2-out', ' true']),
        (MANY, '_HR_x2', '_HR', ['_x2', '']),  # the same pairs with either ending of the true images
        (['baby'], '_SRF_2_SwinIR', '_HR', ['_SRF_2_SwinIR', '_HR']),
        (['baby'], '', '_gt', ['', '_gt']),
    ],
)
def test_true_images_may_have_an_ending_too(tmp_path, names, ending, truth_ending, found):
    save_pairs(tmp_path, names, ending)
    for name in names:
        (tmp_path / f'Set/HR/{name}.png').rename(tmp_path / f'Set/HR/{name}{truth_ending}.png')
    pairs, *endings = match(tmp_path / 'Tool', tmp_path / 'Set/HR')
    assert endings == found
    expected = sorted((name + truth_ending + '.png', name + ending + '.png') for name in names)
    assert [(truth.name, prediction.name) for prediction, truth in pairs] == expected


@pytest.mark.parametrize(
    ('truths', 'predictions'),
    [
        (['img_1'], ['img_2']),
        (['portrait_of_anna'], ['portrait_of_bob']),
        (['a_1', 'b_1'], ['a_2', 'b_2']),  # other frames of the same films
        (['baby', 'abby'], ['bax2', 'abx2']),  # an ending is a word
    ],
)
def test_parts_of_names_that_tell_images_apart_are_no_ending(tmp_path, truths, predictions):
    save_pairs(tmp_path / 'a', truths)
    save_pairs(tmp_path / 'b', predictions)
    with pytest.raises(UserError, match='no name begins with the name of an image'):
        match(tmp_path / 'b/Tool', tmp_path / 'a/Set/HR')


def test_endings_of_true_images_that_do_not_fit_are_named(tmp_path):
    names = ['baby', 'bird', 'head']
    save_pairs(tmp_path, names, '_SR')
    for name in names:
        (tmp_path / f'Set/HR/{name}.png').rename(tmp_path / f'Set/HR/{name}_HR.png')
    (tmp_path / 'Tool/head_SR.png').rename(tmp_path / 'Tool/face_SR.png')
    with pytest.raises(UserError, match=r'head_HR\.png has no head_SR in .*; .*face_SR\.png has no partner in'):
        match(tmp_path / 'Tool', tmp_path / 'Set/HR')
    save_pairs(tmp_path, names, '_x2')
    for name in names:
        (tmp_path / f'Set/HR/{name}.png').unlink()
    (tmp_path / 'Tool/face_SR.png').rename(tmp_path / 'Tool/head_SR.png')
    several = r"Tool: names fit with several endings \('_SR' for '_HR' of true images, '_x2' for '_HR' of true images\)"
    with pytest.raises(UserError, match=several):
        match(tmp_path / 'Tool', tmp_path / 'Set/HR')
    for name in names:  # the true images lie beside the predictions: '' fits as well as _SR
        (tmp_path / f'Tool/{name}_x2.png').rename(tmp_path / f'Tool/{name}_HR.png')
    with pytest.raises(UserError, match=r"several endings \('', '_SR' for '_HR' of true images\)"):
        match(tmp_path / 'Tool', tmp_path / 'Set/HR')


def test_the_ending_of_true_images_is_written_down(run, tmp_path, caplog):
    save_pairs(tmp_path, ending='_SR')
    for name in 'ab':
        (tmp_path / f'Set/HR/{name}.png').rename(tmp_path / f'Set/HR/{name}_HR.png')
    caplog.set_level('INFO', logger='absl')
    run('--protocol=pairs-rgb', '--output=out')
    contents = json.loads((tmp_path / 'out/scores.json').read_text())
    assert contents['models'] == {'Tool': {'predictions': 'Tool', 'ending': '_SR', 'truth_ending': '_HR'}}
    assert {each['image'] for each in contents['scores']} == {'a_HR.png', 'b_HR.png'}
    assert "names end in '_SR', those of true images in '_HR', and are the same before" in caplog.messages


@pytest.mark.parametrize(
    ('suffix', 'shape', 'options'),
    [
        ('.tif', (24, 31, 3), {}),
        ('.TIFF', (24, 31), {'compression': 'tiff_lzw'}),
        ('.webp', (24, 31, 3), {'lossless': True}),
        ('.dib', (24, 31, 3), {'format': 'BMP'}),
        ('.jfif', (24, 31), {'quality': 90}),
    ],
)
def test_images_of_any_format_are_scored(run, tmp_path, suffix, shape, options):
    """Against what Pillow reads."""
    ((truth, prediction),) = save_pairs(tmp_path, ['a'], shape=shape)
    (tmp_path / 'Tool/a.png').unlink()
    PIL.Image.fromarray(prediction).save(tmp_path / f'Tool/a{suffix}', **options)
    read = np.asarray(PIL.Image.open(tmp_path / f'Tool/a{suffix}'))
    assert read.shape == shape
    table = printed(run('--protocol=pairs-rgb', '--metrics=psnr'))
    assert table == {'pairs-rgb': [f'{psnr_by_hand(truth, read):.2f}']}


def with_alpha(image, alpha):
    return np.concatenate([image, np.full((*image.shape[:2], 1), alpha, image.dtype)], axis=2)


@pytest.mark.parametrize('suffix', ['.png', '.tif', '.webp'])
def test_alpha_is_left_out_where_it_is_opaque_alone(run, tmp_path, suffix):
    pairs = save_pairs(tmp_path)
    options = {'lossless': True} if suffix == '.webp' else {}
    for name, (_, prediction) in zip('ab', pairs, strict=True):
        (tmp_path / f'Tool/{name}.png').unlink()
        PIL.Image.fromarray(with_alpha(prediction, 255)).save(tmp_path / f'Tool/{name}{suffix}', **options)
    mean = np.mean([psnr_by_hand(*pair) for pair in pairs])
    assert printed(run('--protocol=denoise', '--metrics=psnr')) == {'denoise': [f'{mean:.2f}']}
    seen_through = with_alpha(pairs[0][1], 255)
    seen_through[0, :, 3] = 254
    PIL.Image.fromarray(seen_through).save(tmp_path / f'Tool/a{suffix}', **options)
    with pytest.raises(
        UserError, match=rf'a\{suffix}: its alpha is not opaque: 4.2% of the pixels; accepted are 8-bit'
    ):
        run()


def test_a_transparent_colour_of_a_png_is_alpha(run, tmp_path):
    ((truth, prediction),) = save_pairs(tmp_path, ['a'])
    prediction[prediction == 7] = 8
    PIL.Image.fromarray(prediction).save(tmp_path / 'Tool/a.png', transparency=(7, 7, 7))
    table = printed(run('--protocol=denoise', '--metrics=psnr'))
    assert table == {'denoise': [f'{psnr_by_hand(truth, prediction):.2f}']}
    prediction[3, 4] = 7
    PIL.Image.fromarray(prediction).save(tmp_path / 'Tool/a.png', transparency=(7, 7, 7))
    with pytest.raises(UserError, match=r'a\.png: its alpha is not opaque'):
        run()


def test_other_images_are_refused_by_name(run, tmp_path):
    (_, prediction), *_ = save_pairs(tmp_path, 'abcd')
    (tmp_path / 'Tool/a.png').unlink()
    about = {'height': 24, 'width': 31, 'channels': 3, 'dtype': np.uint16}
    for name, form in (('a.tif', 'TIFF'), ('b.png', 'PNG')):
        write_photo(tmp_path / 'Tool' / name, [prediction.astype(np.uint16) * 257], format=form, **about)
    PIL.Image.fromarray(prediction).convert('P').save(tmp_path / 'Tool/c.png')
    (tmp_path / 'Tool/d.png').write_bytes((tmp_path / 'Tool/d.png').read_bytes()[:-30])
    with pytest.raises(UserError) as error:
        run()
    for part in (
        'a.tif: an image of 16 bits; accepted are 8-bit gray and RGB, without alpha or with opaque alpha',
        'b.png: image of mode RGB with 16 bits; accepted are 8-bit gray (L) and 8-bit RGB',
        'c.png: image of mode P; accepted',
        'd.png: broken',
    ):
        assert part in str(error.value)


def test_files_that_are_passed_over_are_named(run, tmp_path, caplog):
    save_pairs(tmp_path)
    for name in ('a.npy', 'b.NPY', 'log.txt', '.hidden.txt'):
        (tmp_path / 'Tool' / name).touch()
    (tmp_path / 'Tool/inner').mkdir()
    caplog.set_level('INFO', logger='absl')
    run('--protocol=denoise')
    said = [message for message in caplog.messages if 'passed over' in message]
    assert len(said) == 1
    assert said[0].startswith('Tool: 3 files that do not end in .png, .jpg, ')
    assert said[0].endswith("are passed over: 'a.npy', 'b.NPY', 'log.txt'")


def test_names_that_do_not_fit_are_named_at_once(tmp_path):
    names = ['baby', 'bird', 'head', 'woman']
    save_pairs(tmp_path, names, '_x2')
    tool, truth = tmp_path / 'Tool', tmp_path / 'Set/HR'
    (tool / 'bird_x2.png').rename(tool / 'bird.png')
    (truth / 'head.png').rename(truth / 'face.png')
    (truth / 'baby.bmp').write_bytes((truth / 'baby.png').read_bytes())
    with pytest.raises(UserError) as error:
        match(tool, truth)
    assert str(error.value).startswith('5 images without a partner')
    for part in (
        'baby.bmp has the name of baby.png', 'HR/bird.png has no bird_x2 in', 'face.png has no face_x2 in',
        'Tool/bird.png has no partner', 'head_x2.png has no partner',
    ):  # fmt: skip
        assert part in str(error.value)


def test_ambiguous_and_foreign_names(tmp_path):
    save_pairs(tmp_path, ending='_x2')
    save_pairs(tmp_path, ending='_x4')
    with pytest.raises(UserError, match=r"Tool: names fit with several endings \('_x2', '_x4'\)"):
        match(tmp_path / 'Tool', tmp_path / 'Set/HR')
    save_pairs(tmp_path / 'other', ['c'])
    with pytest.raises(UserError, match=r'no name begins with the name of an image in .*, such as c$'):
        match(tmp_path / 'Tool', tmp_path / 'other/Set/HR')


def test_sizes_and_modes_are_named_at_once(run, tmp_path):
    save_pairs(tmp_path, 'abc')
    write(tmp_path / 'Tool/a.png', np.zeros((12, 16, 3), np.uint8))
    write(tmp_path / 'Tool/c.png', np.zeros((24, 31, 4), np.uint8))
    with pytest.raises(UserError) as error:
        run('--output=out')
    assert '2 predictions cannot be compared' in str(error.value)
    assert 'Tool/a.png has 16x12 pixels, Set/HR/a.png 31x24; give --scale' in str(error.value)
    assert 'Tool/c.png: its alpha is not opaque: 100.0% of the pixels' in str(error.value)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--protocol=sr-y'], "no protocol 'sr-y' for --scale=1: there are all, denoise"),
        (['--protocol=denoise', '--scale=2'], "no protocol 'denoise' for --scale=2: there are all, sr-y"),
        (['--protocol='], 'no protocol'),
        (['--metrics=lpips'], "unknown metric 'lpips'"),
        (['--metrics=ms_ssim'], 'MS-SSIM needs 176x176'),
        (['--report'], '--report needs --output=FOLDER'),
        (['more'], 'two folders are needed'),
    ],
)
def test_mistakes(run, tmp_path, arguments, message):
    save_pairs(tmp_path)
    with pytest.raises(UserError, match=message):
        run(*arguments)


def test_bicubic_of_set5_has_the_documented_scores(run, tmp_path, data_dir):
    for path in list_images(data_dir / 'test/Set5/LR_bicubic/X2'):
        write(
            tmp_path / 'Tool' / path.name,
            np.asarray(imresize(read_image(path), 2)).round().clip(0, 255).astype(np.uint8),
        )
    (tmp_path / 'Set').symlink_to(data_dir / 'test/Set5')
    table = printed(run('--scale=2', '--protocol=sr-y,sr-y-uint8', '--output=out', '--metrics=psnr'))
    assert table == {'sr-y': ['33.67'], 'sr-y-uint8': ['33.64']}
    assert 'SwinIR-light (published, sr-y, trained on DIV2K) | 38.14' in (tmp_path / 'out/scores.md').read_text()


def test_the_command_as_a_user_starts_it(tmp_path):
    save_pairs(tmp_path)
    command = [sys.executable, '-m', 'nsr_jax.score', 'Tool', 'Set/HR', '--protocol=pairs-rgb']
    environment = os.environ | {'PYTHONPATH': str(ROOT)}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert list(printed(ended.stdout)) == ['pairs-rgb']
