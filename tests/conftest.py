"""Fixtures that every test may use."""

import os
import pathlib

import pytest


@pytest.fixture(scope='session')
def data_dir() -> pathlib.Path:
    """The folder of real benchmark and training images; the test is skipped where there is none."""
    folder = os.environ.get('NSR_DATA_DIR')
    if not folder:
        pytest.skip('NSR_DATA_DIR does not name the folder of benchmark images')
    return pathlib.Path(folder)
