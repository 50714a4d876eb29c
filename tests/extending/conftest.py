"""A user's own files, outside the package: plug-ins, and photographs."""

import pathlib
import shutil
import sys

import numpy as np
import pytest

from nsr_jax import plugins
from nsr_jax.images.writing import write_image


def photograph(seed, size=(72, 80)):
    """Smooth shapes and edges, the same for the same seed."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    waves = [np.sin(rows / a + seed) * np.cos(columns / b) for a, b in random.uniform(3, 12, (3, 2))]
    return np.clip(128 + 80 * np.stack(waves, axis=-1) + 30 * (rows > columns)[..., None], 0, 255).astype(np.uint8)


@pytest.fixture(scope='session')
def folder(tmp_path_factory):
    """The folder of a user: plug-ins as files, photographs, and pairs of photographs."""
    folder = tmp_path_factory.mktemp('mine')
    for path in pathlib.Path(__file__).with_name('plugins').glob('*.py'):
        shutil.copy(path, folder)
    for index in range(5):
        image = photograph(index)
        write_image(folder / 'photos' / f'{index}.png', image)
        write_image(folder / 'pairs' / 'target' / f'{index}.png', image)
        write_image(folder / 'pairs' / 'input' / f'{index}.png', (image // 2 + 20).astype(np.uint8))
    return folder


@pytest.fixture
def load(folder):
    """Load some of the plug-ins for one test, by name."""
    before = {kind: dict(mapping) for kind, mapping in plugins.EXTENSIBLE.items()}
    modules = set(sys.modules)
    yield lambda *names: plugins.load_plugins([str(folder / f'{name}.py') for name in names])
    for kind, mapping in plugins.EXTENSIBLE.items():
        mapping.clear()
        mapping.update(before[kind])
    for name in set(sys.modules) - modules:
        del sys.modules[name]
