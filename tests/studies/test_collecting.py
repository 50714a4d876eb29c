"""Tables of made-up results against SciPy's own paired test and NumPy."""

import base64
import csv
import json
import math
import xml.etree.ElementTree

import ml_collections
import numpy as np
import pytest
import scipy.stats
from matplotlib.backends.backend_agg import FigureCanvasAgg

from nsr_jax.errors import UserError
from nsr_jax.studies import collecting, plots
from nsr_jax.studies.collecting import collect, differences, summarize
from nsr_jax.studies.one_run import FAILURE, RESULT
from nsr_jax.studies.study import Study, StudyRun, claim_workdir

SEEDS = (0, 1, 2, 3)
PSNR = {'softmax': [30.1, 30.4, 29.9, 30.2], 'uniform': [30.0, 30.1, 29.7, 30.2], 'worse': [20.0, None, 21.0, None]}


@pytest.fixture
def study(tmp_path):
    """Four seeds of three members, one of which has failed once and is not done once."""
    members = {'softmax': {}, 'uniform': {'model.gate': 'uniform'}, 'worse': {'model.features': 1}}
    config = ml_collections.ConfigDict({'num_steps': 5})
    runs = [StudyRun(0, member, seed, config) for seed in SEEDS for member in members]
    study = Study('gates', 'configs/sr.py', members, members, SEEDS, runs)
    claim_workdir(tmp_path, study)
    for run in runs:
        folder = run.folder(tmp_path)
        folder.mkdir(parents=True)
        psnr = PSNR[run.member][run.seed]
        if psnr is not None:
            scores = {'x2/psnr': psnr, 'x2/ssim': 'inf' if run.member == 'worse' else psnr / 100}
            if run.member != 'uniform':
                scores['gates/entropy'] = 1.5
            text = json.dumps({'parameters': 12345, 'multi_adds': 1.5e9, 'steps': 5, 'scores': scores})
            (folder / RESULT).write_text(text)
        elif run.seed == 1:
            (folder / FAILURE).write_text('it diverged')
    return study


def made_up(workdir, members, axis, missing=''):
    """Two seeds of members with a PSNR of 30, 31, … and 1, 2, … G Multi-Adds."""
    runs = []
    for number, (member, overrides) in enumerate(members.items()):
        model = {name.removeprefix('model.'): value for name, value in overrides.items()}
        config = ml_collections.ConfigDict({'num_steps': 5, 'model': model})
        runs += [StudyRun(0, member, seed, config) for seed in (0, 1)]
        for run in runs[-2:] if member != missing else ():
            run.folder(workdir).mkdir(parents=True)
            result = {'parameters': 1, 'multi_adds': (number + 1) * 1e9, 'steps': 5, 'scores': {'psnr': 30 + number}}
            (run.folder(workdir) / RESULT).write_text(json.dumps(result))
    study = Study('made_up', 'configs/sr.py', members, members, (0, 1), runs, axis=axis)
    claim_workdir(workdir, study)
    return study


def test_a_summary_is_scipys():
    numbers = np.random.default_rng(0).normal(3, 2, 7)
    summary = summarize(numbers.tolist())
    expected = scipy.stats.ttest_1samp(numbers, 0).confidence_interval(0.95)
    np.testing.assert_allclose([summary.low, summary.high], [expected.low, expected.high], rtol=1e-12)
    np.testing.assert_allclose([summary.mean, summary.deviation], [numbers.mean(), numbers.std(ddof=1)], rtol=1e-12)
    assert summary.count == 7


@pytest.mark.parametrize(('numbers', 'mean'), [([2.0], 2.0), ([math.inf, 1.0], math.inf), ([], math.nan)])
def test_what_has_no_spread(numbers, mean):
    summary = summarize(numbers)
    np.testing.assert_equal(summary.mean, mean)
    assert math.isnan(summary.deviation) and math.isnan(summary.low) and math.isnan(summary.high)


def test_differences_are_of_the_same_seed():
    assert differences({3: 5.0, 1: 2.0, 7: 1.0}, {1: 1.0, 3: 1.0, 2: 9.0}) == [4.0, 1.0]


def test_tables_are_paired_by_seed(tmp_path, study):
    text = collect(study, tmp_path)
    assert text == (tmp_path / 'table.md').read_text(encoding='utf-8')
    softmax, uniform = np.array(PSNR['softmax']), np.array(PSNR['uniform'])
    paired = scipy.stats.ttest_rel(uniform, softmax).confidence_interval(0.95)

    rows = {(row['member'], row['score']): row for row in csv.DictReader((tmp_path / 'table.csv').open())}
    found = [float(rows['uniform', 'x2/psnr'][f'difference_{name}']) for name in ('mean', 'low', 'high')]
    np.testing.assert_allclose(found, [(uniform - softmax).mean(), paired.low, paired.high], rtol=1e-9)
    assert float(rows['softmax', 'x2/psnr']['deviation']) == pytest.approx(softmax.std(ddof=1))
    assert rows['softmax', 'x2/psnr']['difference_mean'] == ''
    assert rows['worse', 'x2/psnr']['count'] == '2'
    assert float(rows['worse', 'x2/psnr']['difference_mean']) == pytest.approx((20 - 30.1 + 21 - 29.9) / 2)
    assert rows['uniform', 'gates/entropy']['count'] == '0'

    assert '| uniform | model.gate uniform | 12,345 | 1.50 | 5 | 4 | 30 ± 0.22 | 0.3 ± 0.0022 |  |' in text
    assert f'| uniform | -0.15 [{paired.low:+.2g}, {paired.high:+.2g}] |' in text
    assert '| worse, seed 1 | failed: it diverged |' in text
    assert '| worse, seed 3 | not done yet |' in text
    assert (tmp_path / 'differences.png').read_bytes().startswith(b'\x89PNG')


def test_the_page_holds_the_same_tables_and_the_plot(tmp_path, study):
    text = collect(study, tmp_path)
    page = (tmp_path / 'table.html').read_text(encoding='utf-8')
    root = xml.etree.ElementTree.fromstring('<html>' + page.partition('<body>')[2].partition('</body>')[0] + '</html>')
    rows = [[''.join(cell.itertext()) for cell in row] for row in root.iter('tr')]
    expected = [
        line.strip('| ').split(' | ') for line in text.splitlines() if line.startswith('| ') and '---' not in line
    ]
    assert [[cell for cell in row if cell] for row in rows] == [
        [cell for cell in row if cell.strip()] for row in expected
    ]
    pictures = [
        base64.b64decode(image.attrib['src'].removeprefix('data:image/png;base64,')) for image in root.iter('img')
    ]
    assert pictures == [(tmp_path / name).read_bytes() for name in ('scores.png', 'differences.png')]
    assert root.find('.//td[@class="number"]').text == '12,345'
    assert "default-src 'none'" in page


def test_json_holds_every_number(tmp_path, study):
    collect(study, tmp_path)
    contents = json.loads((tmp_path / 'table.json').read_text(), parse_constant=pytest.fail)
    runs = contents['members']['softmax']['runs']
    assert [runs[str(seed)]['scores']['x2/psnr'] for seed in SEEDS] == PSNR['softmax']
    assert contents['members']['worse']['runs']['0']['scores']['x2/ssim'] == 'inf'
    assert contents['missing'] == {'worse, seed 1': 'failed: it diverged', 'worse, seed 3': 'not done yet'}
    (summary,) = (each for each in contents['summaries'] if (each['member'], each['score']) == ('uniform', 'x2/psnr'))
    assert summary['values']['mean'] == pytest.approx(30.0)
    assert summary['differences']['count'] == 4


def test_nothing_is_done_yet(tmp_path, study):
    for path in tmp_path.glob('*/*/*'):
        path.unlink()
    text = collect(study, tmp_path)
    assert text.count('not done yet') == 12
    assert not (tmp_path / 'differences.png').exists()


@pytest.fixture
def drawn(monkeypatch):
    """The arguments of each function that draws the scores."""
    calls = {}
    for name in ('draw_rows', 'draw_curves', 'draw_sizes'):
        real = getattr(plots, name)

        def draw(*arguments, name=name, real=real, **options):
            calls.setdefault(name, arguments)
            return real(*arguments, **options)

        monkeypatch.setattr(collecting, name, draw)
    return calls


def test_scores_without_an_axis_are_rows_with_their_spread(tmp_path, study, drawn):
    collect(study, tmp_path)
    members, label = drawn['draw_rows']
    assert list(members) == ['softmax', 'uniform', 'worse']
    assert members['softmax'].values == PSNR['softmax']
    assert members['softmax'].mean == pytest.approx(np.mean(PSNR['softmax']))
    assert members['softmax'].reach == pytest.approx(np.std(PSNR['softmax'], ddof=1))
    assert label == 'x2/psnr; mean ± standard deviation over seeds'


def test_scores_over_a_field_are_joined_where_nothing_else_differs(tmp_path, drawn):
    """As the paper's figure 4 shows them, with squeeze-and-excitation apart."""
    members = {f'd_{parts}': {'model.cardinality': parts} for parts in (4, 1, 2)}
    members['se'] = {'model.cardinality': 1, 'model.gate': 'se'}
    members['later'] = {'model.cardinality': 8}
    study = made_up(tmp_path, members, axis='model.cardinality', missing='later')
    collect(study, tmp_path)
    points, places, curves, labels = drawn['draw_curves']
    assert places == {'d_4': 4, 'd_1': 1, 'd_2': 2, 'se': 1}
    assert curves == [['d_4', 'd_1', 'd_2'], ['se']]
    assert points['d_2'].mean == 32.0 and len(points['d_2'].values) == 2
    assert labels[0] == 'model.cardinality'
    assert (tmp_path / 'scores.png').read_bytes().startswith(b'\x89PNG')


def test_scores_over_the_size_of_networks_have_names(tmp_path, drawn):
    study = made_up(tmp_path, {'plain': {}, 'half': {'model.groups': 2}}, axis='multi_adds')
    collect(study, tmp_path)
    points, sizes, labels = drawn['draw_sizes']
    assert sizes == {'plain': 1e9, 'half': 2e9}
    assert list(points) == ['plain', 'half']
    assert labels[0] == 'Multi-Adds for a 1280x720 output'


def test_labels_of_sizes_are_whole_and_short(monkeypatch):
    figures = []
    monkeypatch.setattr(plots, '_png', lambda figure: figures.append(figure) or b'')
    points = {name: plots.Points([30.0, 31.0], 30.5, 0.5) for name in ('plain', 'half')}
    label = 'denoise/sigma 25/psnr; mean ± standard deviation over seeds'
    plots.draw_sizes(points, {'plain': 1.36e11, 'half': 0.68e11}, ('Multi-Adds', label))
    canvas = FigureCanvasAgg(figures[0])
    canvas.draw()
    (axis,) = figures[0].axes
    extent = axis.yaxis.label.get_window_extent(canvas.get_renderer())
    assert extent.y0 >= 0 and extent.y1 <= figures[0].bbox.y1
    assert '100 G' in [text.get_text() for text in axis.get_xticklabels()]


def test_curves_stand_at_their_places(monkeypatch):
    figures = []
    monkeypatch.setattr(plots, '_png', lambda figure: figures.append(figure) or b'')
    points = {name: plots.Points([mean, mean + 2], mean + 1, 1.0) for name, mean in (('b', 3), ('a', 1), ('se', 0))}
    plots.draw_curves(points, {'b': 8, 'a': 1, 'se': 1}, [['b', 'a'], ['se']], ('d', 'dB'))
    (axis,) = figures[0].axes
    line, *_ = axis.lines
    assert list(line.get_xdata()) == [1, 8] and list(line.get_ydata()) == [2, 4]
    assert axis.get_xscale() == 'log' and [text.get_text() for text in axis.get_xticklabels()] == ['1', '8']
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ['a to b', 'se']


def test_a_folder_of_another_sweep(tmp_path, study):
    with pytest.raises(UserError, match='holds no sweep'):
        collect(study, tmp_path / 'softmax')
    (tmp_path / 'sweep.json').write_text(json.dumps({'sweep': 'other', 'members': {}}))
    with pytest.raises(UserError, match='holds the sweep other'):
        collect(study, tmp_path)
