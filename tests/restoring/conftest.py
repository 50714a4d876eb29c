"""The command that restores files, called in this process."""

import pytest
from absl import flags

from nsr_jax import restore
from tests.restoring.restored import save


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return save(tmp_path_factory.mktemp('model'))


@pytest.fixture
def packaged(package):
    """Random weights in the place of those that come with the package: x2, both for denoising, both for JPEG."""
    package('sr_x2', 'denoise_gray', 'denoise_colour', 'jpeg_gray', 'jpeg_colour')


@pytest.fixture
def run(monkeypatch, tmp_path):
    """A function that calls the command in this process, in a folder of this test, and returns its exit code."""
    monkeypatch.chdir(tmp_path)
    before = set(flags.FLAGS)
    restore.define_flags()
    names = set(flags.FLAGS) - before

    def call(*arguments):
        for name in names:
            flags.FLAGS[name].unparse()
        return restore.main(flags.FLAGS(['restore', *map(str, arguments)]))

    yield call
    for name in names:
        delattr(flags.FLAGS, name)
