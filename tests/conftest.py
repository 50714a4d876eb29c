"""What every test stands on: one compilation cache for the session, and the folder of real images."""

import os
import pathlib

import jax
import pytest


@pytest.fixture(scope='session', autouse=True)
def compilation_cache(tmp_path_factory):
    """What one test or process has compiled, the next one of this session need not."""
    folder = str(tmp_path_factory.mktemp('compiled'))
    os.environ['JAX_COMPILATION_CACHE_DIR'] = folder  # for processes that tests start
    jax.config.update('jax_compilation_cache_dir', folder)


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
