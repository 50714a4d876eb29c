"""What is packed: the images that a run needs, and no others."""

import pathlib
import subprocess
import sys

import pytest

from experiments import pack
from experiments.comparisons import find_comparison
from nsr_jax.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(
    ('name', 'trained', 'scored'),
    [
        ('sr_x2_nsr', {'T91': 90, 'BSDS500': 199}, {'Set5/HR': 5, 'Set5/LR_bicubic/X2': 5}),
        ('sr_x3_nsr', {'T91': 90, 'BSDS500': 199}, {'Set5/HR': 5, 'Set5/LR_bicubic/X3': 5}),
        ('denoise_25', {'Train400': 400}, {'Set12/HR': 12}),
        ('jpeg', {'BSDS500': 399}, {'Classic5/HR': 5}),
    ],
)
def test_the_images_of_a_run(data_dir, name, trained, scored):
    files = list(pack.image_files(find_comparison(name), data_dir))
    counts = {}
    for path in files:
        part, *folders = path.parent.relative_to(data_dir).parts
        counts[part, '/'.join(folders)] = counts.get((part, '/'.join(folders)), 0) + 1
    expected = {('train', key): count for key, count in trained.items()}
    assert counts == expected | {('test', key): count for key, count in scored.items()}
    assert sum(path.stat().st_size for path in files) < 50e6


def test_what_is_packed_is_a_copy_and_replaces_what_was_there(data_dir, tmp_path):
    (tmp_path / 'data' / 'train' / 'old').mkdir(parents=True)
    pack.pack_images([find_comparison('denoise_25')], data_dir, tmp_path)
    copies = sorted(path for path in (tmp_path / 'data').rglob('*') if path.is_file())
    assert len(copies) == 412
    for path in copies[::50]:
        assert path.read_bytes() == (data_dir / path.relative_to(tmp_path / 'data')).read_bytes()
    assert {path.name for path in (tmp_path / 'data' / 'train').iterdir()} == {'Train400'}


def test_missing_sets_are_named(tmp_path):
    with pytest.raises(UserError, match='t91_bsds200: t1, t2, t3 and 87 more missing in the folder T91'):
        list(pack.image_files(find_comparison('sr_x2'), tmp_path))


@pytest.mark.skipif(not (ROOT / '.git').exists(), reason='this is no checkout by Git')
def test_what_travels_is_weighed(tmp_path):
    nothing = pack.travelling([])
    assert nothing > 1e6  # the repository
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'folder' / 'a').write_bytes(bytes(1000))
    (tmp_path / 'b').write_bytes(bytes(30))
    assert pack.travelling([tmp_path / 'folder', tmp_path / 'b']) == nothing + 1030


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--runs=sr_x9'], "error: unknown run 'sr_x9': one of sr_x2_nsr, "),
        (['--runs=sr_x2', 'more'], "error: unexpected argument 'more'"),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path):
    command = [sys.executable, '-m', 'experiments.pack', *arguments, f'--output={tmp_path}']
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert process.stderr.splitlines()[-1].startswith(message)
