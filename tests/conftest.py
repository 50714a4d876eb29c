"""What every test stands on: one environment, one compilation cache, the folder of real images, and random weights."""

import tests.environment  # noqa: F401

# isort: split
import os
import pathlib

import jax
import ml_collections
import numpy as np
import pytest

from nsr_jax import cpu_cores, shipped
from nsr_jax.evaluation.cells import digest_weights
from nsr_jax.evaluation.scores import Score
from nsr_jax.evaluation.tables import to_json
from nsr_jax.models.build import build_network
from nsr_jax.models.cost import parameter_shapes
from nsr_jax.package_weights import package_weights
from nsr_jax.training.checkpoints import save_model
from tests.forks import forking

# For tests and the processes that they start: whatever JAX would convert or broadcast by itself is an error, and
# programs are compiled in a third of the time, as most of them run once; `optimized` turns the latter off.
SETTINGS = {
    'jax_numpy_dtype_promotion': 'strict',
    'jax_numpy_rank_promotion': 'raise',
    'jax_disable_most_optimizations': True,
}
for name, value in SETTINGS.items():
    os.environ[name.upper()] = str(value)
    jax.config.update(name, value)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, so that processes that share the tests end together."""
    items.sort(key=lambda item: 'training' not in item.path.parts)
    for item in items:
        if item.get_closest_marker('slow'):
            item.fixturenames.insert(0, 'optimized')


@pytest.fixture(scope='session', autouse=True)
def compilation_cache(tmp_path_factory):
    """What one test or process has compiled, no other one of this session compiles again."""
    base = tmp_path_factory.getbasetemp()
    folder = str((base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base) / 'compiled')
    os.environ['JAX_COMPILATION_CACHE_DIR'] = folder  # for processes that tests start
    jax.config.update('jax_compilation_cache_dir', folder)
    os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)


@pytest.fixture(scope='session')
def commands(compilation_cache):
    """A function that runs a command in a process of its own, as tests.forks says."""
    with forking('nsr_jax.planning.compiled_step', 'nsr_jax.evaluation.report', 'nsr_jax.studies.one_run') as run:
        yield run


@pytest.fixture(scope='session')
def data_dir() -> pathlib.Path:
    """The folder of real benchmark and training images; the test is skipped where there is none."""
    folder = os.environ.get('NSR_DATA_DIR')
    if folder:
        return pathlib.Path(folder)
    reason = 'NSR_DATA_DIR does not name the folder of benchmark images'
    if os.environ.get('NSR_REQUIRE_DATA'):
        pytest.fail(f'{reason}, and NSR_REQUIRE_DATA is set')
    pytest.skip(reason)


@pytest.fixture(params=[False, True], ids=['whole', 'halved'])
def halved(request, monkeypatch):
    """Both ways to convolve an image on a CPU: all multiplications, or half of them, which many channels need."""
    if request.param:
        monkeypatch.setattr(cpu_cores, 'are_devices', lambda: True)
    return request.param


@pytest.fixture
def optimized(monkeypatch):
    """What this test compiles, or a process that it starts, is what users run; all slow tests have it."""
    monkeypatch.setenv('JAX_DISABLE_MOST_OPTIMIZATIONS', 'False')
    jax.config.update('jax_disable_most_optimizations', False)
    yield
    jax.config.update('jax_disable_most_optimizations', True)


@pytest.fixture
def lenient_promotion():
    """What JAX converts by itself where nobody asks for strictness, for tests that mix in float64."""
    with jax.numpy_dtype_promotion('standard'), jax.numpy_rank_promotion('allow'):
        yield


# Tiny networks with random weights, in the place of those that come with the package.

_STEP = 30


def _make_config(task, scale, channels, **changes):
    model = {
        'scale': scale, 'channels': channels, 'num_blocks': 1, 'features': 4, 'width_multiplier': 1, 'groups': 2,
        'cardinality': 2, 'gate': 'softmax',
    }  # fmt: skip
    degradation = {'sigma': (0.0, 50.0), 'quality': (10, 40)}
    config = {'task': task, 'model': model | changes, 'data': {'source': 'bsds500'}, 'degradation': degradation}
    return ml_collections.ConfigDict(config | {'batch_size': 16})


def _make_parameters(config, seed=5):
    """Large enough for gates and blocks to matter."""
    generator = np.random.RandomState(seed)
    shapes = parameter_shapes(build_network(config.model))
    return jax.tree.map(lambda leaf: generator.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)


@pytest.fixture
def random_model():
    """A function from (task, scale, channels) to a config and its parameters."""

    def make(task, scale, channels, **changes):
        config = _make_config(task, scale, channels, **changes)
        return config, _make_parameters(config)

    return make


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function that packages random weights under the names given, in a folder of this test; returns the folder."""
    folder = tmp_path / 'shipped'
    monkeypatch.setattr(shipped, 'FOLDER', folder)
    folder.mkdir()

    def package_all(*names):
        for name in names:
            config = _make_config(*shipped.SHIPPED[name])
            params = _make_parameters(config)
            save_model(tmp_path / 'runs' / name, params, config, step=_STEP)
            applied = {'weights': digest_weights(params), 'tiling': 'feathered 96/16', 'ensemble': 1}
            baseline = 'bicubic' if config.task == 'sr' else 'degraded'
            models = {f'runs/{name}, step {_STEP} (tiling feathered 96/16)': applied, baseline: {}}
            scores = [
                Score('Set5', 'x2', model, 'sr-y', 'baby', {'psnr': psnr, 'ssim': 0.9, 'mae': 2.5})
                for model, psnr in zip(models, (30.0, 28.0), strict=True)
            ]
            path = tmp_path / 'runs' / f'{name}.json'
            path.write_text(to_json(scores, models))
            package_weights(tmp_path / 'runs' / name, name, [path], '2 CPU cores', 'python train.py')
        return folder

    return package_all
