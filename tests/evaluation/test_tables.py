"""Tables: nothing is lost on the way to a file and back."""

import csv
import io
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsr_jax.errors import UserError
from nsr_jax.evaluation.scores import Score
from nsr_jax.evaluation.tables import from_json, read_models, to_csv, to_json, to_markdown, write_tables
from nsr_jax.metrics import METRICS, Metric
from nsr_jax.tasks import TASKS, all_protocols

PROTOCOLS = all_protocols()

SCORES = [
    Score('Set5', 'x2', 'bicubic', 'sr-y', 'baby.png', {'psnr': 30.0, 'ssim': 0.9}),
    Score('Set5', 'x2', 'bicubic', 'sr-y', 'a, "bird".png', {'psnr': 33.0, 'ssim': 0.95}),
    Score('Set14', 'x2', 'bicubic', 'sr-y', 'x.png', {'psnr': 20.125, 'ssim': 0.5}),
    Score('Set5', 'x2', 'net|1', 'sr-y', 'baby.png', {'psnr': math.inf, 'ssim': 1.0}),
    Score('Set5', 'x2', 'bicubic', 'sr-rgb', 'baby.png', {'psnr': 28.0, 'ssim': 0.8}),
    Score('Set5', 'x3', 'bicubic', 'sr-y', 'baby.png', {'psnr': 27.0, 'ssim': 0.7}),
]

numbers = st.floats(-1e100, 1e100) | st.just(math.inf)
records = st.builds(
    Score,
    st.text(),
    st.sampled_from(['x2', 'sigma 15', 'quality 10']),
    st.text(),
    st.sampled_from(list(PROTOCOLS)),
    st.text(),
    st.fixed_dictionaries({'psnr': numbers, 'mae': numbers}),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(records))
def test_json_round_trip(scores):
    assert from_json(to_json(scores, {})) == scores


def test_json_is_strict_and_names_infinity():
    text = to_json(SCORES, {'bicubic': {}})
    contents = json.loads(text, parse_constant=lambda name: pytest.fail(f'{name} is not JSON'))
    assert contents['scores'][3]['psnr'] == 'inf'
    assert contents['models'] == {'bicubic': {}}
    assert contents['means'][0] == {
        'dataset': 'Set5', 'degradation': 'x2', 'model': 'bicubic', 'protocol': 'sr-y', 'images': 2, 'psnr': 31.5,
        'ssim': 0.925,
    }  # fmt: skip
    assert contents['protocols'] == {name: PROTOCOLS[name].description for name in ('sr-y', 'sr-rgb')}


def test_whose_published_scores_follow_each_protocol_stands_in_every_file():
    """The papers: SwinIR scores Y in floating point, and none scores RGB with this border."""
    contents = json.loads(to_json(SCORES, {}))
    assert contents['published_so_for'] == {'sr-y': ['SwinIR-light'], 'sr-rgb': []}
    rows = list(csv.DictReader(to_csv(SCORES).splitlines()))
    assert {(row['protocol'], row['published_so_for']) for row in rows} == {('sr-y', 'SwinIR-light'), ('sr-rgb', '')}
    tables = to_markdown(SCORES).split('## ')[1:]
    assert f'{PROTOCOLS["sr-y"].description}; so in papers for SwinIR-light.' in tables[0]
    assert f'{PROTOCOLS["sr-rgb"].description}; in no paper known here.' in tables[1]


def test_not_a_number_survives():
    (score,) = from_json(to_json([Score('a', 'x2', 'm', 'sr-y', 'i', {'psnr': math.nan, 'ssim': math.nan})], {}))
    assert math.isnan(score.values['psnr']) and math.isnan(score.values['ssim'])


@pytest.mark.parametrize(
    'text', ['', '{}', '[]', '{"scores": [{}]}', '{"scores": [[]]}', '{"scores": [{"psnr": 1, "model": "a"}]}']
)
def test_other_json_is_refused(text):
    with pytest.raises(UserError, match='scores'):
        from_json(text)


def test_csv():
    rows = list(csv.DictReader(to_csv(SCORES).splitlines()))
    assert [row['image'] for row in rows] == [score.image for score in SCORES]
    assert [float(row['psnr']) for row in rows] == [score.values['psnr'] for score in SCORES]


@pytest.mark.parametrize('name', ['=1+1', '+1', '-1', '@SUM(A1)', '\t=1', '\r=1', '\n=1'])
def test_names_are_no_formulas_in_csv(name):
    score = Score(name, 'x2', name, 'sr-y', name, {'psnr': -math.inf, 'ssim': -0.5})
    (row,) = csv.DictReader(io.StringIO(to_csv([score]), newline=''))
    assert {row[field] for field in ('dataset', 'model', 'image')} == {f"'{name}"}
    assert (float(row['psnr']), float(row['ssim'])) == (-math.inf, -0.5)  # numbers stay numbers


def test_published_rows_follow_a_protocol_of_their_task():
    rows = [row for task in TASKS.values() for row in task.published]
    for task in TASKS.values():
        assert {row.protocol for row in task.published} <= {protocol.name for protocol in task.protocols}
    keys = [(row.model, row.training, row.dataset, row.degradation) for row in rows]
    assert len(set(keys)) == len(keys)


def test_markdown():
    tables = to_markdown(SCORES).split('## ')[1:]
    assert [table.splitlines()[0] for table in tables] == [
        'x2, protocol `sr-y`',
        'x2, protocol `sr-rgb`',
        'x3, protocol `sr-y`',
    ]
    assert PROTOCOLS['sr-y'].description in tables[0] and PROTOCOLS['sr-rgb'].description in tables[1]
    assert tables[0].splitlines()[4:] == [
        '| model | Set5 (2) | Set14 (1) | Set5 (1) |',
        '| --- | ---: | ---: | ---: |',
        '| bicubic | 31.50 / 0.9250 | 20.12 / 0.5000 |  |',
        '| net\\|1 |  |  | inf / 1.0000 |',
        '',
    ]


def test_files_of_before_are_read():
    record = {'dataset': 'a', 'degradation': 'x2', 'model': 'm', 'protocol': 'sr-y', 'image': 'i'}
    text = json.dumps({'scores': [record | {'psnr': 'inf', 'ssim': 1.0}]})
    assert from_json(text) == [Score('a', 'x2', 'm', 'sr-y', 'i', {'psnr': math.inf, 'ssim': 1.0})]
    assert read_models(text) == {}
    with pytest.raises(UserError, match='not a file of scores'):
        from_json(json.dumps({'scores': [record | {'dataset': 5}]}))


def test_a_metric_of_a_users_own_is_printed_its_way(monkeypatch):
    monkeypatch.setitem(METRICS, 'mine', Metric(np.subtract, 'Mine', 'm', decimals=1, higher_is_better=False))
    scores = [Score('Set5', 'x2', 'net', 'sr-y', f'{i}', {'mine': 1.26 + i, 'psnr': 30.0}) for i in range(2)]
    assert from_json(to_json(scores, {})) == scores
    rows = list(csv.DictReader(to_csv(scores).splitlines()))
    assert [(row['mine'], row['psnr']) for row in rows] == [('1.26', '30.0'), ('2.26', '30.0')]
    lines = to_markdown(scores).splitlines()
    assert lines[2].startswith('Mine (m; lower is better) / PSNR (dB), mean over all images')
    assert lines[-1] == '| net | 1.8 / 30.00 |'


def test_published_numbers_stand_under_their_own_metric():
    def table(*names):
        values = dict.fromkeys(names, 0.5)
        return to_markdown([Score('Set5', 'x2', 'net', 'sr-y', f'{i}', values) for i in range(5)])

    assert '| EDSR-baseline (published, sr-y-uint8, trained on DIV2K) | 37.99 / 0.9604 |' in table('psnr', 'ssim')
    assert '| EDSR-baseline (published, sr-y-uint8, trained on DIV2K) | 0.9604 / – / 37.99 |' in table(
        'ssim', 'ms_ssim', 'psnr'
    )
    only_psnr = '| Bicubic (published, sr-y-uint8) | '
    assert f'{only_psnr}– / 33.66 |' in table('ssim', 'psnr') and f'{only_psnr}33.66 |' in table('psnr', 'ssim')
    assert only_psnr not in table('ssim', 'mae') and 'EDSR-baseline' in table('ssim', 'mae')
    assert 'published' not in table('mae')


def test_published_rows_stand_beside_whole_sets_alone():
    def scores_of(count, protocol='denoise'):
        return [Score('BSD68', 'sigma 25', 'ours', protocol, f'{i}', {'psnr': 29.3, 'ssim': 0.8}) for i in range(count)]

    whole = to_markdown(scores_of(68)).splitlines()
    assert '| ours | 29.30 / 0.8000 |' in whole
    assert '| DnCNN-S (published, denoise, trained on Train400) | 29.23 |' in whole
    assert '| BM3D (published, denoise) | 28.57 |' in whole
    assert 'published' not in to_markdown(scores_of(67))
    assert 'published' not in to_markdown(scores_of(68, 'denoise-authors'))


def test_files(tmp_path):
    write_tables(tmp_path, SCORES, {})
    write_tables(tmp_path, SCORES[:2], {})  # overwrites the files
    assert sorted(path.name for path in tmp_path.iterdir()) == ['scores.csv', 'scores.json', 'scores.md']
    assert from_json((tmp_path / 'scores.json').read_text(encoding='utf-8')) == SCORES[:2]
    assert (tmp_path / 'scores.md').read_text(encoding='utf-8') == to_markdown(SCORES[:2])
