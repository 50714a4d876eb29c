"""Runs in folders of their own, and a tiny network's."""

import json

import jax
import numpy as np
import pytest

from experiments import archives
from experiments.comparisons import find_comparison
from nsr_jax.models.build import build_network
from nsr_jax.models.cost import parameter_shapes
from nsr_jax.training.checkpoints import save_model
from nsr_jax.training.workdir import CONFIG


@pytest.fixture
def make_run():
    """Make the workdir of a run of denoise_25 as `experiments.piece` leaves it."""

    def make(folder, exit_code, name='denoise_25', step=30):
        workdir = folder / name
        config = find_comparison(name).config(30).unlock()
        config.model.update(num_blocks=1, features=4)
        generator = np.random.default_rng(0)
        shapes = parameter_shapes(build_network(config.model))
        params = jax.tree.map(lambda leaf: generator.normal(size=leaf.shape).astype(np.float32), shapes)
        save_model(workdir, params, config, step)
        (workdir / CONFIG).write_text(config.to_json())
        piece = {'seconds': 61.5, 'exit_code': exit_code, 'hardware': 'a machine', 'jax': '0.11'}
        (workdir / archives.PIECES).write_text(json.dumps(piece | {'exit_code': 75}) + '\n' + json.dumps(piece) + '\n')
        lines = [{'step': 15, 'loss': 0.1}, {'step': 15, 'Set12/psnr': 28.0}, {'step': 30, 'Set12/psnr': 29.0}]
        (workdir / archives.METRICS).write_text(''.join(json.dumps(line) + '\n' for line in lines))
        (workdir / archives.LOG).write_text('trained\n')
        return workdir, params

    return make
