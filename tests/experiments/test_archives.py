"""What travels between machines arrives whole, or is refused."""

import gzip
import io
import json
import tarfile
import zipfile

import jax
import numpy as np
import pytest

from experiments import archives
from nsr_jax.errors import UserError
from nsr_jax.trained import load_model


def test_results_of_a_finished_run_arrive(tmp_path, make_run):
    workdir, params = make_run(tmp_path / 'there', exit_code=0)
    older, _ = make_run(tmp_path / 'older', exit_code=0, step=4)
    (older / 'checkpoints' / '4').rename(workdir / 'checkpoints' / '4')  # the last one counts
    archives.write_results(workdir, tmp_path, 'python train.py')
    arrived = archives.read_results(tmp_path / 'denoise_25.zip', tmp_path / 'here')
    assert arrived == tmp_path / 'here' / 'denoise_25'
    model = load_model(arrived)
    assert model.step == 30
    assert model.config.to_json() == load_model(workdir / 'checkpoints' / '30').config.to_json()
    for leaf, sent in zip(jax.tree.leaves(model.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(leaf, sent.astype(np.float16).astype(np.float32))
    for name in (archives.METRICS, archives.PIECES, archives.LOG):
        assert (arrived / name).read_text(encoding='utf-8') == (workdir / name).read_text()
    assert archives.is_finished(arrived)
    run = json.loads((arrived / archives.RUN).read_text(encoding='utf-8'))
    assert (run['command'], run['step'], len(run['pieces'])) == ('python train.py', 30, 2)


def test_the_state_of_an_unfinished_run_arrives_in_parts(tmp_path, make_run, monkeypatch):
    workdir, _ = make_run(tmp_path / 'there', exit_code=75)
    archives.write_results(workdir, tmp_path, 'python train.py')
    with zipfile.ZipFile(tmp_path / 'denoise_25.zip') as archive:
        assert set(archive.namelist()) == {'run.json', 'metrics.jsonl', 'train.log'}

    monkeypatch.setattr(archives, 'LARGEST_PART', 700)
    archives.write_state(workdir, tmp_path)
    parts = list(tmp_path.glob('denoise_25.state.*'))
    assert len(parts) > 10  # more than one digit
    assert max(path.stat().st_size for path in parts) == 700
    archives.read_state(parts, tmp_path / 'here')
    sent = {path.relative_to(workdir): path.read_bytes() for path in workdir.rglob('*') if path.is_file()}
    found = {
        path.relative_to(tmp_path / 'here'): path.read_bytes()
        for path in (tmp_path / 'here').rglob('*')
        if path.is_file()
    }
    assert found == {path: contents for path, contents in sent.items() if path in found}
    assert not [path for path in sent.keys() - found.keys() if path.parts[:2] == ('checkpoints', '30')]
    assert archives.last_checkpoint(tmp_path / 'here').name == '30'

    parts.sort(key=lambda path: int(path.suffix[1:]))
    for left in (parts[:-1], parts[:3] + parts[4:], parts[1:]):
        with pytest.raises(UserError, match='not the whole state of a run'):
            archives.read_state(left, tmp_path / 'broken')
    assert not (tmp_path / 'broken').exists()


def test_a_run_that_was_stopped_before_its_first_step_has_a_state_too(tmp_path):
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / archives.LOG).write_text('begun\n')
    archives.write_state(tmp_path / 'run', tmp_path)
    archives.read_state([tmp_path / 'run.state.0'], tmp_path / 'here')
    assert archives.last_checkpoint(tmp_path / 'here') is None


def test_python_before_3_11_4_reads_a_state_too(tmp_path, make_run, monkeypatch):
    workdir, _ = make_run(tmp_path / 'there', exit_code=75)
    archives.write_state(workdir, tmp_path)

    def without_filter(self, *arguments, **options):
        raise TypeError("TarFile.extractall() got an unexpected keyword argument 'filter'")

    for name in ('extract', 'extractall'):
        monkeypatch.setattr(tarfile.TarFile, name, without_filter)
    archives.read_state([tmp_path / 'denoise_25.state.0'], tmp_path / 'here')
    assert archives.last_checkpoint(tmp_path / 'here').name == '30'


@pytest.mark.parametrize(
    ('name', 'kind'),
    [
        ('../outside', tarfile.REGTYPE),
        ('checkpoints/../../outside', tarfile.REGTYPE),
        ('/outside', tarfile.REGTYPE),
        ('link', tarfile.SYMTYPE),
        ('link', tarfile.LNKTYPE),
        ('pipe', tarfile.FIFOTYPE),
    ],
)
def test_a_state_writes_nothing_but_files_into_its_workdir(tmp_path, name, kind):
    member, buffer = tarfile.TarInfo(name), io.BytesIO()
    member.type, member.linkname = kind, '/etc/hostname'
    with tarfile.open(fileobj=buffer, mode='w') as archive:
        archive.addfile(tarfile.TarInfo('config.json'))
        archive.addfile(member)
    (tmp_path / 'run.state.0').write_bytes(gzip.compress(buffer.getvalue()))
    with pytest.raises(UserError, match='is no file or folder of a run'):
        archives.read_state([tmp_path / 'run.state.0'], tmp_path / 'here')
    assert [path.name for path in tmp_path.iterdir()] == ['run.state.0']


@pytest.mark.parametrize('damage', ['cut', 'not a zip', 'no run.json', 'other weights'])
def test_damaged_results_are_refused(tmp_path, make_run, damage):
    workdir, _ = make_run(tmp_path, exit_code=0)
    archives.write_results(workdir, tmp_path, '')
    path = tmp_path / 'denoise_25.zip'
    if damage == 'cut':
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == 'not a zip':
        path.write_text('{}')
    else:
        with zipfile.ZipFile(path) as archive:
            contents = {name: archive.read(name) for name in archive.namelist()}
        if damage == 'no run.json':
            del contents['run.json']
        else:
            contents['weights.safetensors'] = contents['weights.safetensors'][:-10]
        with zipfile.ZipFile(path, 'w') as archive:
            for name, each in contents.items():
                archive.writestr(name, each)
    with pytest.raises(UserError, match=r'denoise_25\.zip'):
        archives.read_results(path, tmp_path / 'here')
    assert not (tmp_path / 'here' / 'denoise_25' / archives.RUN).exists()
