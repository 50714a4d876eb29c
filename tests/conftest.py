"""What every test stands on: one environment, one compilation cache, and the folder of real images."""

import tests.environment  # noqa: F401

# isort: split
import os
import pathlib

import jax
import pytest

from nsr_jax import cpu_cores
from nsr_jax.ops import image_conv

# Whatever JAX would convert or broadcast by itself is an error, in the processes that tests start too.
STRICT = {'jax_numpy_dtype_promotion': 'strict', 'jax_numpy_rank_promotion': 'raise'}
for name, value in STRICT.items():
    os.environ[name.upper()] = value
    jax.config.update(name, value)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, so that processes that share the tests end together."""
    items.sort(key=lambda item: 'training' not in item.path.parts)


@pytest.fixture(scope='session', autouse=True)
def compilation_cache(tmp_path_factory):
    """What one test or process has compiled, the next one of this session need not."""
    folder = str(tmp_path_factory.mktemp('compiled'))
    os.environ['JAX_COMPILATION_CACHE_DIR'] = folder  # for processes that tests start
    jax.config.update('jax_compilation_cache_dir', folder)
    os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)


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
    """Both ways to convolve an image on a CPU: all multiplications, or half of them even for the fewest channels."""
    if request.param:
        monkeypatch.setattr(cpu_cores, 'are_devices', lambda: True)
        monkeypatch.setattr(image_conv, '_LEAST_CHANNELS', 1)
    return request.param


@pytest.fixture
def lenient_promotion():
    """What JAX converts by itself where nobody asks for strictness, for tests that mix in float64."""
    with jax.numpy_dtype_promotion('standard'), jax.numpy_rank_promotion('allow'):
        yield
