import json

import pytest

from nsr_jax.errors import UserError
from nsr_jax.training.workdir import MetricsWriter, check_workdir, lock_workdir


def test_a_workdir_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='file/run cannot be written'):
        check_workdir(tmp_path / 'file' / 'run')


def test_metrics_of_steps_that_are_taken_again_are_removed(tmp_path):
    writer = MetricsWriter(tmp_path, 0)
    for step in (10, 20, 30):
        writer.write(step, loss=1 / step)
    writer.close()
    with (tmp_path / 'metrics.jsonl').open('a') as file:
        file.write('{"step": 40, "lo')  # killed while writing
    writer = MetricsWriter(tmp_path, 20)
    writer.write(30, loss=2.0)
    writer.write(30, psnr=float('inf'))
    writer.close()
    lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    assert lines == [
        {'step': 10, 'loss': 0.1},
        {'step': 20, 'loss': 0.05},
        {'step': 30, 'loss': 2.0},
        {'step': 30, 'psnr': 'inf'},
    ]
    assert list((tmp_path / 'tensorboard').glob('events*'))


def test_a_workdir_that_orbax_would_misread_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"^workdir .*/a\?: .* has '\?' in it"):
        check_workdir(tmp_path / 'a?')
    assert not list(tmp_path.iterdir())


def test_a_lock_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / '.lock').mkdir()
    with pytest.raises(UserError, match=r'\.lock cannot be written: Is a directory'), lock_workdir(tmp_path):
        pass


def test_a_damaged_line_of_metrics_is_removed_and_told(tmp_path, caplog):
    good, last = b'{"step": 1, "loss": 0.5}', b'{"step": 6}'
    lines = [good, b'{"step": 2, "lo\xffs": 1}', b'[3]', b'null', b'{"step": "x"}', last]
    (tmp_path / 'metrics.jsonl').write_bytes(b'\n'.join(lines))  # without the end of the last line
    writer = MetricsWriter(tmp_path, 6)
    writer.write(7, loss=1.0)
    writer.close()
    kept = (tmp_path / 'metrics.jsonl').read_bytes().splitlines()
    assert kept == [good, last, b'{"step": 7, "loss": 1.0}']
    assert [f'line {number} is damaged' in caplog.text for number in range(1, 7)] == [False, *[True] * 4, False]


@pytest.mark.parametrize('name', ['metrics.jsonl', 'tensorboard'])
def test_metrics_that_cannot_be_written_are_told_before_the_first_step(tmp_path, name):
    if name == 'tensorboard':
        (tmp_path / name).write_text('')
    else:
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match='cannot be written into'):
        MetricsWriter(tmp_path, 0)
