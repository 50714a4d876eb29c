"""The package as it is installed: what is in the wheel, and that its command runs from any folder."""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import zipfile

import numpy as np
import PIL.Image
import pytest

ROOT = pathlib.Path(__file__).parents[2]


def call(*command, **options):
    ended = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.slow
def test_an_installed_package_restores(tmp_path, package):
    source, room = tmp_path / 'source', tmp_path / 'room'
    source.mkdir()
    room.mkdir()
    shutil.copytree(ROOT / 'nsr_jax', source / 'nsr_jax', ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, source)
    shutil.copytree(package('sr_x2'), source / 'nsr_jax' / 'weights', dirs_exist_ok=True)
    files = {path.relative_to(source).as_posix() for path in (source / 'nsr_jax').rglob('*') if path.is_file()}

    call(sys.executable, '-m', 'pip', 'wheel', '.', '--no-deps', '--wheel-dir', tmp_path, cwd=source)
    (wheel,) = tmp_path.glob('*.whl')
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith('nsr_jax/')}
    assert packed == files
    assert {'nsr_jax/weights/sr_x2.safetensors', 'nsr_jax/weights/README.md'} <= packed

    # What the package needs is taken from here, itself from the wheel.
    call(sys.executable, '-m', 'venv', '--without-pip', tmp_path / 'venv')
    (library,) = (tmp_path / 'venv' / 'lib').glob('*/site-packages')
    (library / 'dependencies.pth').write_text(sysconfig.get_path('purelib'))
    binaries = tmp_path / 'venv' / 'bin'
    call(sys.executable, '-m', 'pip', '--python', binaries / 'python', 'install', '--no-deps', wheel)
    environment = {'PATH': str(binaries), 'JAX_COMPILATION_CACHE_DIR': os.environ['JAX_COMPILATION_CACHE_DIR']}
    PIL.Image.fromarray(np.zeros((5, 6, 3), np.uint8)).save(room / 'a.png')
    assert 'sr_x2: enlarges x2' in call(binaries / 'nsr-restore', '--models', cwd=room, env=environment)
    call(binaries / 'nsr-restore', 'a.png', '--output=out', '--scale=2', '--compare', cwd=room, env=environment)
    assert PIL.Image.open(room / 'out' / 'a.png').size == (12, 10)
    assert (room / 'out' / 'compare.html').is_file()
    code = "import nsr_jax, numpy; print(nsr_jax.Restorer.load('sr_x2')(numpy.zeros((4, 4), 'uint8')).shape)"
    assert call(binaries / 'python', '-c', code, cwd=room, env=environment) == '(8, 8)\n'
    for command, purpose in (('nsr-restore', 'Restore images'), ('nsr-score', 'Score images')):
        help_text = subprocess.run(
            [binaries / command, '--help'], cwd=room, env=environment, capture_output=True, text=True, check=False
        ).stdout
        assert '--scale' in help_text
        assert purpose in help_text
