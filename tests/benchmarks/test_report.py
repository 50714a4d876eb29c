"""Tables: the numbers of known times, as data and as Markdown."""

import json

import pytest

from benchmarks import report
from benchmarks.report import Report
from benchmarks.timing import Candidate, Measurement
from nsr_jax.errors import UserError


def measured(name, seconds, failure='', error=None, **fields):
    candidate = Candidate(name, 'forward', prepare=None, run=None, wait=None, **fields)
    return Measurement(candidate, first_seconds=1.5, seconds=seconds, failure=failure, error=error)


@pytest.fixture
def table():
    floor = measured('static', [0.02, 0.01, 0.04], flops=2e9, error=1e-7)
    ours = measured('ours', [0.03, 0.02, 0.06], flops=2e9, error=2e-7)
    failed = measured('wrong', [], failure='ArithmeticError: by 0.5 | nan')
    uncounted = measured('sampling', [0.0012, 0.0012, 0.0012])
    return report.section('title', [floor, ours, failed, uncounted], floor, 200e9, {'images': 16}, 'a note')


def test_numbers(table):
    _, ours, failed, uncounted = json.loads(json.dumps(table))['rows']
    assert ours['seconds'] == [0.03, 0.02, 0.06]
    assert ours['time'] == {'median': 0.03, 'lowest': 0.02, 'highest': 0.06}
    assert ours['ratio'] == pytest.approx({'median': 1.5, 'lowest': 1.5, 'highest': 2})
    assert ours['flops_per_second'] == pytest.approx(2e9 / 0.03)
    assert ours['share_of_peak'] == pytest.approx(1 / 3)
    assert ours['per_second']['images'] == pytest.approx(16 / 0.03)
    assert ours['compile_seconds'] == pytest.approx(1.47)
    assert failed['failure'] and 'time' not in failed
    assert uncounted['share_of_peak'] is None and uncounted['flops_per_second'] is None


def shown(table, capsys):
    """The lines that are printed of a table."""
    written = Report(None, 'float32')
    capsys.readouterr()
    written.add(table)
    return capsys.readouterr().out.splitlines()


def test_markdown(table, capsys):
    assert shown(table, capsys) == [
        '',
        '**title**',
        '',
        '| candidate | ms | ratio to static | images/s | GFLOP/s | of peak | compile (s) | error |',
        '| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |',
        '| static | 20.0 (10.0–40.0) | 1.00 (1.00–1.00) | 800 | 100 | 50% | 1.5 | 1.0e-07 |',
        '| ours | 30.0 (20.0–60.0) | 1.50 (1.50–2.00) | 533 | 66.7 | 33% | 1.5 | 2.0e-07 |',
        '| wrong | failed: ArithmeticError: by 0.5 \\| nan |  |  |  |  |  | – |',
        '| sampling | 1.20 (1.20–1.20) | 0.06 (0.03–0.12) | 13333 | – | – | 1.5 | – |',
        '',
        'a note',
    ]


def test_without_floor_and_peak(capsys):
    failed = measured('static', [], failure='RuntimeError: no memory')
    table = report.section('title', [failed, measured('ours', [1.0, 2.0, 3.0])], failed, None)
    assert table['floor'] is None
    assert '| ours | 2000 (1000–3000) | – | – | – | 0.0 | – |' in shown(table, capsys)


def test_comparison():
    ours, theirs = measured('ours', [1.0, 2.0, 6.0]), measured('PyTorch eager', [2.0, 8.0, 8.0])
    assert report.comparison(ours, theirs) == (
        'ours takes 0.50 (0.25–0.75) of the time of PyTorch eager, the fastest in PyTorch.'
    )
    assert report.comparison(ours, None) == ''


def test_report_grows_with_each_table_and_remembers_failures(tmp_path, capsys, table):
    path = tmp_path / 'out.json'
    written = Report(str(path), 'bfloat16')
    assert not path.exists()
    written.add({'title': 'first', 'rows': [{'preset': 'edsr_s'}]}, {'preset': lambda row: row['preset']})
    assert written.exit_code == 0
    assert len(json.loads(path.read_text(encoding='utf-8'))['tables']) == 1
    written.add(table)
    assert written.exit_code == 1
    contents = json.loads(path.read_text(encoding='utf-8'))
    assert [each['title'] for each in contents['tables']] == ['first', 'title']
    assert {'device', 'processor', 'python', 'jax', 'jaxlib'} <= contents['environment'].keys()
    assert contents['environment']['dtype'] == 'bfloat16'
    markdown = path.with_suffix('.md').read_text(encoding='utf-8')
    assert markdown == capsys.readouterr().out
    assert markdown.index('**first**') < markdown.index('| ours | 30.0')


@pytest.mark.parametrize(
    ('path', 'message'), [('out.txt', r"must end in \.json .*'out\.txt'"), ('missing/out.json', 'missing/out.json')]
)
def test_outputs_that_cannot_be(tmp_path, monkeypatch, path, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        Report(path, 'float32')
