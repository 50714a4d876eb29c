"""The package as it is installed: what is in the wheel and the sdist, and that the commands run from any folder."""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile

import numpy as np
import PIL.Image
import pytest

ROOT = pathlib.Path(__file__).parents[1]
SHIPPED = ('nsr_jax', 'configs', 'train.py', 'eval.py')

pytestmark = pytest.mark.slow


def call(*command, code=0, **options):
    ended = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)
    assert ended.returncode == code, ended.stderr
    return ended.stderr.splitlines()[-1] if code == 2 else ended.stdout


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """A copy of what is packaged, without what a checkout has besides."""
    folder = tmp_path_factory.mktemp('source')
    for name in SHIPPED:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, folder / name, ignore=shutil.ignore_patterns('__pycache__'))
        else:
            shutil.copy(path, folder)
    for name in ('pyproject.toml', 'README.md', 'LICENSE', 'CHANGELOG.md', 'CITATION.cff', '.gitignore'):
        shutil.copy(ROOT / name, folder)
    (folder / 'tests').mkdir()
    (folder / 'tests' / 'left_out.py').write_text('')
    return folder


@pytest.fixture(scope='module')
def wheel(tmp_path_factory, source):
    """Built from the sdist."""
    folder = tmp_path_factory.mktemp('built')
    call(sys.executable, '-m', 'venv', folder / 'venv')
    python = folder / 'venv' / 'bin' / 'python'
    call(python, '-m', 'pip', 'install', 'hatchling>=1.27')
    call(python, '-m', 'hatchling', 'build', '-t', 'sdist', '-d', folder / 'sdist', cwd=source)
    (sdist,) = (folder / 'sdist').iterdir()
    with tarfile.open(sdist) as archive:
        names = {name.partition('/')[2] for name in archive.getnames()}
    assert {name.partition('/')[0] for name in names} >= {*SHIPPED, 'README.md', 'LICENSE', 'CITATION.cff'}
    assert not any(name.startswith('tests') for name in names)
    call(sys.executable, '-m', 'pip', 'wheel', sdist, '--no-deps', '--wheel-dir', folder)
    (wheel,) = folder.glob('*.whl')
    return wheel


@pytest.fixture(scope='module')
def installed(tmp_path_factory, wheel):
    """A function that calls a command of an environment with the wheel, in a folder that is no checkout."""
    folder = tmp_path_factory.mktemp('installed')
    room = folder / 'room'
    # A user's own folder and modules of these names are in nobody's way.
    for name in ('configs/__init__.py', 'configs/mine.py', 'train.py'):
        (room / name).parent.mkdir(parents=True, exist_ok=True)
        (room / name).write_text('raise AssertionError')
    # What the package needs is taken from here, itself from the wheel.
    call(sys.executable, '-m', 'venv', '--without-pip', folder / 'venv')
    (library,) = (folder / 'venv' / 'lib').glob('*/site-packages')
    (library / 'dependencies.pth').write_text(sysconfig.get_path('purelib'))
    binaries = folder / 'venv' / 'bin'
    call(sys.executable, '-m', 'pip', '--python', binaries / 'python', 'install', '--no-deps', wheel)
    environment = {'PATH': str(binaries), 'JAX_COMPILATION_CACHE_DIR': os.environ['JAX_COMPILATION_CACHE_DIR']}
    environment |= {'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': '1', 'HOME': str(folder)}

    def run(command, *arguments, code=0, **variables):
        return call(binaries / command, *arguments, code=code, cwd=room, env=environment | variables)

    generator = np.random.default_rng(0)
    for index in range(3):
        (room / 'images').mkdir(exist_ok=True)
        pixels = generator.integers(0, 256, (48, 56, 3), np.uint8)
        PIL.Image.fromarray(pixels).save(room / 'images' / f'{index}.png')
    return run, room


def test_the_wheel_holds_the_package_the_scripts_and_the_configs(source, wheel):
    def files(*names):
        paths = [path for name in names for path in [source / name, *(source / name).rglob('*')] if path.is_file()]
        return {path.relative_to(source).as_posix() for path in paths}

    packed = {name for name in zipfile.ZipFile(wheel).namelist() if '.dist-info/' not in name}
    scripts = {f'nsr_jax/scripts/{name}' for name in files('configs', 'train.py', 'eval.py')}
    assert packed == files('nsr_jax') | scripts
    assert {'nsr_jax/weights/README.md', 'nsr_jax/scripts/configs/sweeps/gates.py'} <= packed


def test_an_installed_package_restores(installed):
    run, room = installed
    assert 'sr_x2: enlarges x2' in run('nsr-restore', '--models')
    run('nsr-restore', 'images/0.png', '--output=out', '--scale=2', '--compare')
    assert PIL.Image.open(room / 'out' / '0.png').size == (112, 96)
    assert (room / 'out' / 'compare.html').is_file()
    code = "import nsr_jax, numpy; print(nsr_jax.Restorer.load('sr_x2')(numpy.zeros((4, 4), 'uint8')).shape)"
    assert run('python', '-c', code) == '(8, 8)\n'


TINY = {
    'model.num_blocks': 1, 'model.features': 8, 'model.groups': 1, 'model.cardinality': 1, 'batch_size': 2,
    'data.source': 'images/', 'data.patch_size': 8, 'data.tfds_dir': 'datasets', 'num_steps': 2,
    'validation.fraction': 0.3,
}  # fmt: skip
FIELDS = [f'--config.{name}={value}' for name, value in TINY.items()]


def test_an_installed_package_trains_and_evaluates_by_the_name_of_a_config(installed):
    run, room = installed
    run('nsr-train', '--config=sr:scale=2', '--workdir=run', *FIELDS)
    run('nsr-train', '--config=configs/sr.py:scale=2', '--workdir=run', *FIELDS)  # the same run, which is done
    assert (room / 'run' / 'checkpoints' / '2').is_dir()
    run('nsr-eval', '--checkpoint=run', '--datasets=images/', '--pictures=0', '--output=eval')
    assert 'step 2' in (room / 'eval' / 'scores.md').read_text()
    error = run('nsr-train', '--workdir=run', code=2)
    assert error.startswith('error: give a config: --config=configs/denoise.py:sigma=25.0,')
    (room / 'stub').mkdir()
    (room / 'stub' / 'optax.py').write_text("raise ModuleNotFoundError('no', name='optax')")
    error = run('nsr-train', '--config=sr', code=2, PYTHONPATH='stub')
    assert error == 'error: nsr-train needs optax besides: pip install "nsr-jax[train]"'


def test_an_installed_package_runs_a_sweep_by_its_name(installed):
    run, room = installed
    names = ('nsr-sweep', 'gates', '--workdir=sweep', '--index=1')
    changes = [f'--set={name}={value}' for name, value in TINY.items() if not name.startswith('model.')]
    run(*names, *changes, '--set=model.num_blocks=1')
    assert (room / 'sweep' / 'scale_10' / 'seed_0' / 'result.json').is_file()


def test_an_installed_package_describes_its_commands(installed):
    run, _ = installed
    listed = run('python', '-m', 'nsr_jax')
    calls = [line.partition('  ')[0] for line in listed.splitlines()]
    assert {'nsr-train', 'nsr-eval', 'nsr-restore', 'nsr-score', 'nsr-sweep', 'python -m nsr_jax.export'} <= {*calls}
    for command, purpose, flag in (
        ('nsr-restore', 'Restore images', '--scale'),
        ('nsr-score', 'Score images', '--scale'),
        ('nsr-train', 'Train a restoration network', '--stop_after'),
        ('nsr-eval', 'Score trained networks', '--baselines'),
        ('nsr-sweep', 'Train and compare the members', '--index'),
    ):
        text = run(command, '--help', code=1)  # as Abseil ends
        assert purpose in text and flag in text
