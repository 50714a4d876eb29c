"""How a store lies on a device, with a CPU in the place of a TPU, which has an order of the axes of its own."""

import jax
import numpy as np
import pytest

from nsr_jax.data.store import ImageStore
from nsr_jax.inference.devices import replicated
from nsr_jax.training import placing
from nsr_jax.training.placing import place_store, store_formats
from nsr_jax.training.sharding import make_mesh


@pytest.fixture
def mesh():
    return make_mesh(1, 1, 1, jax.devices()[:1])


@pytest.fixture
def store():
    targets = np.random.default_rng(0).integers(0, 256, (5, 12, 16, 3), np.uint8)
    return ImageStore(targets, targets[:, ::2, ::2], np.full((5, 2), 6, np.int32))


@pytest.mark.parametrize('pieces', [1, 2, 5])
@pytest.mark.parametrize('has_inputs', [True, False])
def test_a_store_in_another_order_holds_the_same_images(mesh, store, pieces, has_inputs, monkeypatch):
    monkeypatch.setattr(placing, '_PLATFORM', 'cpu')
    monkeypatch.setattr(placing, '_PIECE', store.targets.nbytes // pieces)
    store = store if has_inputs else store.replace(inputs=None)
    placed = place_store(store, mesh)
    jax.tree.map(np.testing.assert_array_equal, placed, store)
    assert placed.targets.format.layout.major_to_minor == (0, 3, 1, 2)
    # A program that takes the store as it lies, as the train steps do.
    program = jax.jit(lambda store: store.targets[3], in_shardings=(store_formats(mesh),))
    np.testing.assert_array_equal(program(placed), store.targets[3])


def test_elsewhere_devices_share_the_memory_of_the_host(mesh, store):
    assert store_formats(mesh) == replicated(mesh)
    targets = place_store(store, mesh).targets
    assert targets.format.layout.major_to_minor == (0, 1, 2, 3)
