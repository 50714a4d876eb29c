"""The file of the report, read back by an HTML parser and an image decoder."""

import base64
import dataclasses
import html
import html.parser
import io
import json
import math
import re
import xml.etree.ElementTree

import numpy as np
import PIL.Image
import pytest

from nsr_jax.errors import UserError
from nsr_jax.evaluation.report import CURVE_POINTS, WINDOW_SIZE, ZOOM_SIZE, Picture, write_report
from nsr_jax.evaluation.scores import Score
from nsr_jax.metrics import METRICS, Metric
from nsr_jax.tasks import all_protocols

PROTOCOLS = all_protocols()

HOSTILE = """<script>alert(1)</script>'"><img src=x onerror=alert(1)> {{ 7 * 7 }} &amp; é"""
SCORES = [
    Score('Set5', 'x2', 'bicubic', 'sr-y', 'baby.png', {'psnr': 30.0, 'ssim': 0.9}),
    Score('Set5', 'x2', 'bicubic', 'sr-y', 'bird.png', {'psnr': 33.0, 'ssim': 0.95}),
    Score('Set5', 'x2', 'net', 'sr-y', 'baby.png', {'psnr': math.inf, 'ssim': 1.0}),
    Score('Set5', 'x2', 'net', 'sr-rgb', 'baby.png', {'psnr': math.nan, 'ssim': math.nan}),
    Score('Set14', 'x2', 'net', 'sr-y', 'zebra.png', {'psnr': 20.125, 'ssim': 0.5}),
]


class Page(html.parser.HTMLParser):
    """Tags with their attributes, and the text of each table's body, cell by cell."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.tables, self.heading, self._open = [], [], '', []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._open.append(tag)
        match tag:
            case 'tbody':
                self.tables.append([])
            case 'tr' if 'tbody' in self._open:
                self.tables[-1].append([])
            case 'td' | 'th' if 'tbody' in self._open:
                self.tables[-1][-1].append('')

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:  # void elements have no end
            pass

    def handle_data(self, data):
        if 'tbody' in self._open and {'td', 'th'} & set(self._open):
            self.tables[-1][-1][-1] += data
        elif self._open and self._open[-1] == 'h1':
            self.heading += data

    def attributes(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def write(folder, scores=SCORES, pictures=(), curves=None, title='A title'):
    write_report(folder, title, scores, pictures, curves or {})
    return (folder / 'index.html').read_text(encoding='utf-8')


def metrics_file(folder, *records):
    path = folder / 'metrics.jsonl'
    path.write_text(''.join(json.dumps(record) + '\n' for record in records))
    return path


def pictures_in(page):
    return [
        np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(image['src'].removeprefix('data:image/webp;base64,')))))
        for image in page.attributes('img')
    ]


def test_means(tmp_path):
    text = write(tmp_path)
    rows = [row.get('class') for row in Page(text).attributes('tr')]
    assert rows[1:6] == [None] * 4 + ['published']
    assert Page(text).tables[0][:4] == [
        ['Set5', 'x2', 'bicubic', 'sr-y', '2', '31.50', '0.9250'],
        ['Set5', 'x2', 'net', 'sr-y', '1', '∞', '1.0000'],
        ['Set5', 'x2', 'net', 'sr-rgb', '1', 'not a number', 'not a number'],
        ['Set14', 'x2', 'net', 'sr-y', '1', '20.12', '0.5000'],
    ]
    numbers = [cell['data-number'] for cell in Page(text).attributes('td') if 'data-number' in cell]
    assert numbers[:6] == ['2.0', '31.5', '0.925', '1.0', 'Infinity', '1.0']
    assert PROTOCOLS['sr-y'].description in text and PROTOCOLS['sr-rgb'].description in text
    shown = html.unescape(text)
    assert (
        PROTOCOLS['authors'].description in shown and PROTOCOLS['jpeg-y'].description not in shown
    )  # of published rows


def test_whose_published_scores_follow_each_protocol(tmp_path):
    shown = html.unescape(write(tmp_path, [dataclasses.replace(each, dataset='mine') for each in SCORES]))
    assert f'{PROTOCOLS["sr-y"].description}; so in papers for SwinIR-light</dd>' in shown
    assert f'{PROTOCOLS["sr-rgb"].description}; in no paper known here</dd>' in shown


def test_published_rows_are_marked(tmp_path):
    ours = Score('set5', 'x2', 'net', 'sr-y', 'baby.png', {'psnr': 30.0, 'ssim': 0.9})
    rows = Page(write(tmp_path, [ours])).tables[0]
    assert not any('published' in cell for cell in rows[0])
    assert all('published training data: ' in row[2] for row in rows[1:] if 'Bicubic' not in row[2])
    (vdsr,) = (row for row in rows if row[2].startswith('VDSR'))
    assert vdsr == ['set5', 'x2', 'VDSR published training data: 91 + 200 images', 'sr-luma', '–', '37.53', '0.9590']
    (paper,) = (row for row in rows if row[2].startswith('EDSR-S + NSR'))
    assert paper[5:] == ['38.11', '–']
    assert len(Page(write(tmp_path, [dataclasses.replace(ours, dataset='mine')])).tables[0]) == 1
    assert len(Page(write(tmp_path, [dataclasses.replace(ours, values={'mae': 2.0})])).tables[0]) == 1


def test_rows_of_what_is_not_trained_are_marked_too(tmp_path):
    text = write(tmp_path, [Score('BSD68', 'sigma 25', 'net', 'denoise', '1.png', {'psnr': 29.0, 'ssim': 0.8})])
    (bm3d,) = (row for row in Page(text).tables[0] if row[2].startswith('BM3D'))
    assert bm3d[2:4] == ['BM3D published not trained', 'denoise']
    assert [row.get('class') for row in Page(text).attributes('tr')][1:3] == [None, 'published']


def test_each_image(tmp_path):
    page = Page(write(tmp_path))
    assert page.tables[1:] == [
        [['baby.png', '30.00', '0.9000', '∞', '1.0000'], ['bird.png', '33.00', '0.9500', '–', '–']],
        [['baby.png', 'not a number', 'not a number']],
        [['zebra.png', '20.12', '0.5000']],
    ]
    assert len(page.attributes('details')) == 3


def test_short_names_stand_for_long_ones_but_in_the_legend(tmp_path):
    long = 'runs/net, step 30 (tiling feathered 96/16)'
    scores = [dataclasses.replace(each, model=long) if each.model == 'net' else each for each in SCORES]
    picture = Picture('Set5', 'baby.png', {label: np.zeros((8, 8, 3), np.uint8) for label in ('a', long)}, {}, (0, 0))
    write_report(tmp_path, 'A title', scores, [picture], {}, {long: 'net'})
    text = (tmp_path / 'index.html').read_text(encoding='utf-8')
    page = Page(text)
    assert [row[2] for row in page.tables[0][:4]] == ['bicubic', 'net', 'net', 'net']
    assert [image['alt'] for image in page.attributes('img')] == ['a', 'net']
    assert text.count(long) == 1 and f'<dt>net</dt><dd>{long}</dd>' in text
    assert '<h3 id="models-heading">' not in write(tmp_path)


def test_a_metric_of_a_users_own_stands_everywhere(tmp_path, monkeypatch):
    monkeypatch.setitem(METRICS, 'mine', Metric(np.subtract, 'Mine', 'm', decimals=1, higher_is_better=False))
    scores = [Score('Set5', 'x2', 'net', 'sr-y', f'{i}', {'psnr': 30.0, 'mine': 1.26 + i}) for i in range(2)]
    path = metrics_file(tmp_path, *({'step': step, 'loss': 1.0, 'Set5/sr-y/x2/mine': step} for step in (1, 2)))
    images = {label: np.zeros((8, 8, 3), np.uint8) for label in 'ab'}
    text = write(tmp_path, scores, [Picture('Set5', '0', images, {'a': scores[0].values}, (0, 0))], {'net': path})
    page = Page(text)
    assert page.tables[0][0][5:] == ['30.00', '1.8'] and page.tables[0][1][5:] == ['33.66', '–']
    assert page.tables[1] == [['0', '30.00', '1.3'], ['1', '30.00', '2.3']]
    assert [heading.get('data-best') for heading in page.attributes('th')][5:7] == [None, 'lowest']
    assert text.count('>Mine (m; lower is better)</button>') == 2
    assert '30.00 dB, 1.3 m' in text and 'Set5/sr-y/x2: Mine (m; lower is better)' in text
    assert len(curves_in(text)) == 2


def test_names_are_only_text(tmp_path):
    images = {label: np.zeros((8, 8, 3), np.uint8) for label in (HOSTILE, 'truth')}
    path = metrics_file(tmp_path, {'step': 1, 'loss': 0.5}, {'step': 1, f'{HOSTILE}/psnr': 30.0})
    text = write(
        tmp_path,
        [Score(HOSTILE, HOSTILE, HOSTILE, 'sr-y', HOSTILE, {'psnr': 30.0, 'ssim': 0.9})],
        [Picture(HOSTILE, HOSTILE, images, {HOSTILE: {'psnr': 30.0, 'ssim': 0.9}}, (0, 0))],
        {HOSTILE: path},
        title=HOSTILE,
    )
    page = Page(text)
    assert page.heading == HOSTILE
    assert [row[:3] for row in page.tables[0]] == [[HOSTILE] * 3]
    assert page.tables[1][0][0] == HOSTILE
    assert [image['alt'] for image in page.attributes('img')][:2] == [HOSTILE, 'truth']
    assert len(page.attributes('script')) == 1
    assert not any('onerror' in attributes for _, attributes in page.tags)
    assert page.attributes('div')[-1]['aria-label'] == 'scores of each image: ' + ', '.join([HOSTILE] * 2 + ['sr-y'])


def test_nothing_is_on_the_network(tmp_path):
    images = {label: np.zeros((8, 8, 3), np.uint8) for label in 'ab'}
    path = metrics_file(tmp_path, {'step': 1, 'loss': 0.5}, {'step': 2, 'loss': 0.4, 'Set5/sr-y/psnr': 30.0})
    text = write(tmp_path, SCORES, [Picture('Set5', 'baby.png', images, {}, (0, 0))], {'net': path})
    assert '://' not in text and '@import' not in text and 'url(' not in text.replace('url(#', '')
    page = Page(text)
    sources = [value for _, attributes in page.tags for name, value in attributes.items() if name in ('src', 'href')]
    assert len(sources) == 5 and all(source.startswith('data:') for source in sources)
    policies = [meta['content'] for meta in page.attributes('meta') if 'http-equiv' in meta]
    assert len(policies) == 1 and policies[0].startswith("default-src 'none'; img-src data:;")


@pytest.mark.parametrize('channels', [1, 3])
def test_small_pictures_are_kept_without_loss(tmp_path, channels):
    random = np.random.default_rng(0).integers(0, 256, (2, 70, 90, channels), np.uint8)
    images, scores = dict(zip(('low', 'high'), random, strict=True)), {'low': {'psnr': 9.0, 'ssim': 0.1}}
    picture = Picture('Set5', 'baby.png', images, scores, (60, -3))
    text = write(tmp_path, pictures=[picture])
    for decoded, image in zip(pictures_in(Page(text)), random, strict=True):
        np.testing.assert_array_equal(decoded, np.broadcast_to(image, (70, 90, 3)))
    (figure,) = (figure for figure in Page(text).attributes('figure') if 'data-zoom' in figure)
    assert figure['data-zoom'] == str(ZOOM_SIZE)
    assert (figure['data-row'], figure['data-column']) == (str(70 - ZOOM_SIZE), '0')  # within the image
    assert '9.00 dB, 0.1000' in text


@pytest.mark.parametrize('place', [(0, 0), (300, 1000), (736, 1136), (300, 500)])
def test_of_a_large_picture_the_window_around_the_zoom_is_kept(tmp_path, place):
    rows, columns = np.mgrid[:800, :1200]
    image = np.stack([rows % 256, columns % 256, rows // 256 + 8 * (columns // 256)], -1).astype(np.uint8)
    text = write(tmp_path, pictures=[Picture('Set5', 'baby.png', {'low': image, 'high': image}, {}, place)])
    kept = pictures_in(Page(text))[0]
    (figure,) = (figure for figure in Page(text).attributes('figure') if 'data-zoom' in figure)
    row, column = int(figure['data-row']), int(figure['data-column'])
    zoomed = (slice(row, row + ZOOM_SIZE), slice(column, column + ZOOM_SIZE))
    wanted = image[place[0] : place[0] + ZOOM_SIZE, place[1] : place[1] + ZOOM_SIZE]
    assert kept.shape == (WINDOW_SIZE, WINDOW_SIZE, 3)
    np.testing.assert_array_equal(kept[zoomed], wanted)
    assert '512×512 of 1200×800 pixels' in text
    if place == (300, 500):  # far from every border
        assert row == column == (WINDOW_SIZE - ZOOM_SIZE) // 2


@pytest.mark.parametrize('shapes', [[(8, 8, 3)], [(8, 8, 3), (8, 9, 3)]])
def test_pictures_must_fit_each_other(shapes):
    with pytest.raises(ValueError, match='of one size'):
        Picture('Set5', 'x', {str(i): np.zeros(shape, np.uint8) for i, shape in enumerate(shapes)}, {}, (0, 0))


def curves_in(text):
    """The points (x, y) of each curve, figure by figure, as drawn: y grows downwards."""
    figures = []
    kind = 'data:image/svg+xml;base64,'
    for image in (image for image in Page(text).attributes('img') if image['src'].startswith(kind)):
        tree = xml.etree.ElementTree.fromstring(base64.b64decode(image['src'].removeprefix(kind)))
        space = '{http://www.w3.org/2000/svg}'
        curves = [each for each in tree.iter(f'{space}g') if each.get('id', '').startswith('curve_')]
        lines = [curve.find(f'{space}path').get('d') for curve in curves]
        figures.append([np.array(re.findall(r'[ML] (\S+) (\S+)', line), float) for line in lines])
    return figures


def test_curves(tmp_path):
    lines = [{'step': i, 'loss': 0.1 * 0.99**i, 'psnr': 1.0, 'loss/ssim': 1.0, 'a/mae': 1.0} for i in range(1, 200)]
    lines += [{'step': step, 'Set5/sr-y/psnr': psnr, 'Set5/sr-y/ssim': 0.5} for step, psnr in ((1, 20.0), (100, 30.0))]
    lines += [{'step': step, 'gates/entropy': bits, 'gates/deviation': 0.01} for step, bits in ((1, 2.0), (100, 1.5))]
    path = metrics_file(
        tmp_path, *lines, {'step': 150, 'Set5/sr-y/psnr': math.inf}, {'step': 199, 'Set5/sr-y/psnr': 40}
    )
    text = write(tmp_path, curves={'net': path, 'the same': path})
    loss, psnr, ssim, entropy = curves_in(text)
    assert len(loss) == len(psnr) == len(ssim) == len(entropy) == 2
    assert entropy[0][-1, 1] > entropy[0][0, 1] + 100  # it falls
    assert np.corrcoef(loss[0].T)[0, 1] > 0.9999  # exponential decay is a straight line on a logarithmic axis
    assert loss[0][-1, 1] > loss[0][0, 1] + 100 and psnr[0][-1, 1] < psnr[0][0, 1] - 100
    assert 'Set5/sr-y: PSNR (dB)' in text and 'Set5/sr-y: SSIM' in text and 'gates: entropy (bits)' in text


def test_long_curves_are_averaged(tmp_path):
    lines = [{'step': step, 'loss': 1.0 + (-1) ** step * 0.5} for step in range(40 * CURVE_POINTS)]
    text = write(tmp_path, curves={'net': metrics_file(tmp_path, *lines)})
    assert len(text) < 100_000
    assert np.ptp(curves_in(text)[0][0][:, 1]) < 1e-3


def test_the_same_report_is_the_same_file(tmp_path):
    path = metrics_file(tmp_path, {'step': 1, 'loss': 0.5}, {'step': 2, 'loss': 0.4})
    assert write(tmp_path, curves={'net': path}) == write(tmp_path, curves={'net': path})


@pytest.mark.parametrize('line', ['{"step": 1, "lo', '{"step": 2, "a/psnr": "high"}', '{"a/psnr": 30}'])
def test_broken_metrics_leave_the_old_report(tmp_path, line):
    (tmp_path / 'index.html').write_text('old')
    path = metrics_file(tmp_path, {'step': 1, 'loss': 0.5})
    path.write_text(path.read_text(encoding='utf-8') + line, encoding='utf-8')
    with pytest.raises(UserError, match='line 2'):
        write(tmp_path, curves={'net': path})
    assert (tmp_path / 'index.html').read_text(encoding='utf-8') == 'old'
    assert sorted(each.name for each in tmp_path.iterdir()) == ['index.html', 'metrics.jsonl']


def test_a_folder_that_is_missing(tmp_path):
    with pytest.raises(UserError, match='cannot be written'):
        write(tmp_path / 'none')


def test_without_scores(tmp_path):
    assert Page(write(tmp_path, [])).tables == [[]]
