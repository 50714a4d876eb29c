"""A tiny run: 8 photographs-like images in a folder, a network of one block, a few steps."""

import ml_collections
import numpy as np
import pytest

from configs.base import get_base
from nsr_jax.data.images import write_image


@pytest.fixture(scope='session')
def image_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    generator = np.random.default_rng(0)
    for index in range(4):
        height, width = (64, 80) if index % 2 else (90, 60)
        rows, columns = np.mgrid[:height, :width] / 10
        waves = np.stack([np.sin(rows * f + index) + np.cos(columns / f) for f in (1, 2, 3)], axis=-1)
        noise = generator.normal(0, 0.1, waves.shape)
        write_image(folder / f'{index}.png', np.clip(127 + 50 * (waves + noise), 0, 255).astype(np.uint8))
    return folder


@pytest.fixture(scope='session')
def tfds_dir(tmp_path_factory):
    return tmp_path_factory.mktemp('datasets')


@pytest.fixture
def config(image_folder, tfds_dir) -> ml_collections.ConfigDict:
    config = get_base()
    config.task = 'sr'
    config.model.update(scale=2, num_blocks=1, features=8, groups=2, cardinality=4)
    config.data.update(source=str(image_folder), tfds_dir=str(tfds_dir), patch_size=12)
    config.update(
        batch_size=4,
        num_steps=12,
        steps_per_call=2,
        log_every_steps=3,
        evaluate_every_steps=8,
        checkpoint_every_steps=5,
    )
    return config
