"""The benchmark of streaming as it is run, on images that take no time."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def run(*arguments):
    command = [sys.executable, '-m', 'benchmarks.streaming', *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_resident_and_streamed(tmp_path):
    path = tmp_path / 'streaming.json'
    sizes = ['--images=3', '--height=40', '--width=60', '--patch_size=8', '--batch_size=4', '--steps=3', '--calls=3']
    result = run('--tasks=sr', *sizes, '--rounds=3', f'--output={path}', f'--folder={tmp_path}')
    assert result.returncode == 0, result.stderr
    (table,) = json.loads(path.read_text(encoding='utf-8'))['tables']
    assert table['title'] == 'sampling for sr, 3 steps a call of 4 patches 8x8, 3 images, 0 MB'
    rows = {row['candidate']: row for row in table['rows']}
    assert list(rows) == ['resident', 'streamed', "streamed, the host's part"]
    for row in rows.values():
        assert len(row['seconds']) == 3
        assert row['per_second']['images'] * row['time']['median'] == pytest.approx(3 * 4)
    assert rows['resident']['error'] == rows['streamed']['error'] == 0  # they were compared
    assert path.with_suffix('.md').read_text(encoding='utf-8') == result.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ['streaming.json', 'streaming.md']


def test_an_unknown_task():
    result = run('--tasks=sr,blur')
    assert (result.returncode, result.stdout) == (2, '')
    assert result.stderr.splitlines()[-1] == 'error: --tasks takes sr, denoise, jpeg, not blur'
