"""Tiny networks with random weights, in the place of those that come with the package."""

import jax
import ml_collections
import numpy as np
import pytest

from nsr_jax import package_weights
from nsr_jax.evaluation.scoring import Score
from nsr_jax.evaluation.tables import to_json
from nsr_jax.models.build import build_network
from nsr_jax.models.cost import parameter_shapes
from nsr_jax.restoring import weights
from nsr_jax.training.checkpoints import save_model

STEP = 30


def make_config(task, scale, channels, **changes):
    model = {
        'scale': scale, 'channels': channels, 'num_blocks': 1, 'features': 4, 'width_multiplier': 1, 'groups': 2,
        'cardinality': 2, 'gate': 'softmax',
    }  # fmt: skip
    degradation = {'sigma': (0.0, 50.0), 'quality': (10, 40)}
    config = {'task': task, 'model': model | changes, 'data': {'source': 'bsds500'}, 'degradation': degradation}
    return ml_collections.ConfigDict(config | {'batch_size': 16})


def make_parameters(config, seed=5):
    """Large enough for gates and blocks to matter."""
    generator = np.random.RandomState(seed)
    shapes = parameter_shapes(build_network(config.model))
    return jax.tree.map(lambda leaf: generator.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)


@pytest.fixture
def random_model():
    """A function from (task, scale, channels) to a config and its parameters."""

    def make(task, scale, channels, **changes):
        config = make_config(task, scale, channels, **changes)
        return config, make_parameters(config)

    return make


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A function that packages random weights under the names given, in a folder of this test; returns the folder."""
    folder = tmp_path / 'shipped'
    monkeypatch.setattr(weights, 'FOLDER', folder)
    folder.mkdir()

    def package(*names):
        for name in names:
            config = make_config(*weights.NETWORKS[name])
            save_model(tmp_path / 'runs' / name, make_parameters(config), config, step=STEP)
            models = {f'runs/{name}, step {STEP}, tiling feathered 96/16': 30.0, 'bicubic': 28.0}
            scores = [Score('Set5', 'x2', model, 'sr-y', 'baby', psnr, 0.9) for model, psnr in models.items()]
            path = tmp_path / 'runs' / f'{name}.json'
            path.write_text(to_json(scores))
            package_weights.package_weights(tmp_path / 'runs' / name, name, [path], '2 CPU cores', 'python train.py')
        return folder

    return package
