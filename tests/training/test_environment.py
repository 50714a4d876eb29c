"""Settings of JAX from environment variables: weights, batches and predictions are the same under all of them.

A variable sets a value when JAX is imported. The tests change the value afterwards, with the same effect.
"""

import functools

import flax
import jax
import numpy as np
import pytest

from nsr_jax.data.sampling import sample_patches
from nsr_jax.data.store import ImageStore
from nsr_jax.inference.prediction import predict
from nsr_jax.inference.tiling import Tiling
from nsr_jax.models.build import build_network
from nsr_jax.ops.settings import new_key
from nsr_jax.optimizers import adam
from nsr_jax.tasks.denoise import Noise
from nsr_jax.tasks.jpeg import Jpeg
from nsr_jax.trained import load_model
from nsr_jax.training.checkpoints import save_model
from nsr_jax.training.loop import train
from nsr_jax.training.state import init_state

OTHERS = {
    'jax_enable_x64': True,
    'jax_threefry_partitionable': False,
    'jax_default_prng_impl': 'rbg',
    'jax_random_seed_offset': 7,
    'flax_fix_rng_separator': True,
}


@pytest.fixture
def other_settings(monkeypatch):
    """A function that changes all these settings until the test ends."""
    before = {name: getattr(flax.config if name.startswith('flax') else jax.config, name) for name in OTHERS}

    def update(settings):
        for name, value in settings.items():
            (flax.config if name.startswith('flax') else jax.config).update(name, value)

    yield functools.partial(update, OTHERS)
    update(before)


def assert_same(tree, expected):
    leaves, expected_leaves = jax.tree.leaves(tree), jax.tree.leaves(expected)
    assert [leaf.dtype for leaf in leaves] == [leaf.dtype for leaf in expected_leaves]
    for leaf, expected_leaf in zip(leaves, expected_leaves, strict=True):
        np.testing.assert_array_equal(leaf, expected_leaf)


def test_a_run_is_the_same(tmp_path, config, finished, metrics_of, other_settings):
    usual = load_model(finished)
    other_settings()
    config.data.store_dir = str(tmp_path / 'stores')
    config.data.resident_megabytes = 0  # so that regions are also drawn in threads
    train(config, tmp_path / 'other')
    assert metrics_of(tmp_path / 'other') == metrics_of(finished)
    other = load_model(tmp_path / 'other')
    assert_same(other.params, usual.params)
    assert {leaf.dtype for leaf in jax.tree.leaves(other.params)} == {np.dtype('float32')}


@pytest.mark.parametrize('corruption', [Noise(5.0, 50.0), Jpeg(10, 90)], ids=lambda each: type(each).__name__)
def test_batches_are_the_same(other_settings, corruption):
    images = np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), np.uint8)
    store = ImageStore(images, None, np.array([[48, 64], [40, 50]], np.int32))

    def sample():
        make = functools.partial(sample_patches, scale=1, patch_size=12, margin=2, corruption=corruption)
        return jax.jit(make)(store, new_key(3), np.int32(7), np.arange(4, dtype=np.int32))

    usual = sample()
    other_settings()
    assert_same(sample(), usual)


@pytest.mark.slow
def test_first_weights_and_predictions_are_the_same(tmp_path, config, other_settings):
    network, image = build_network(config.model), np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)

    def begin():
        params = jax.jit(functools.partial(init_state, network, adam(lambda step: 1e-3)))(new_key(2**31 + 3)).params
        return params, predict(network, params, image, tiling=Tiling('whole'))

    usual = begin()
    other_settings()
    assert_same(begin(), usual)
    save_model(tmp_path, jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), usual[0]), config)
    assert_same(load_model(tmp_path).params, usual[0])


@pytest.mark.parametrize('seed', [0, 3, 2**31 + 7, 2**32 - 1])
def test_keys_are_those_that_jax_makes_by_default(seed):
    assert_same(jax.random.key_data(new_key(seed)), jax.random.key_data(jax.random.key(seed)))
