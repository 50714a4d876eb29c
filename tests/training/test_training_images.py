"""Which images of a source are trained on."""

import dataclasses

import numpy as np
import pytest

from nsr_jax.data.sources import open_source
from nsr_jax.data.store import Needs, build_store
from nsr_jax.errors import UserError
from nsr_jax.images.writing import write_image
from nsr_jax.training.training_images import leave_out_small


def test_small_images_are_left_out_and_counted(tmp_path, caplog):
    for name, size in {'a.png': (8, 20), 'b.png': (20, 7), 'c.png': (9, 9)}.items():
        write_image(tmp_path / 'folder' / name, np.zeros((*size, 3), np.uint8))
    source = open_source(tmp_path / 'folder', 'train', 2, inputs='made', tfds_dir=tmp_path / 'tfds')
    needs = Needs(scale=2, channels=3, smallest=4, has_inputs=False)
    left = leave_out_small(source, needs)
    assert left.names == ('a.png', 'c.png')
    assert '1 of 3 images of folder are left out: their shorter sides are below the 8 pixels of a patch' in caplog.text
    assert 'b.png' in caplog.text
    assert leave_out_small(source, dataclasses.replace(needs, smallest=3)) is source
    with pytest.raises(UserError, match=r'3 images cannot be used: a\.png is too small to train on'):
        none = dataclasses.replace(needs, smallest=5)
        build_store(leave_out_small(source, none), none)
