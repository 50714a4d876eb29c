"""The stream against the resident sampler, bit for bit; how far ahead it cuts; and what it does when it cannot."""

import functools
import pathlib
import subprocess
import sys
import threading
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nsr_jax.data import region_stream
from nsr_jax.data.region_stream import RegionStream, sample_regions
from nsr_jax.data.sampling import region_size, sample_patches
from nsr_jax.data.store import ImageStore
from nsr_jax.errors import UserError
from nsr_jax.tasks.denoise import Noise
from nsr_jax.tasks.jpeg import Jpeg

ROOT = pathlib.Path(__file__).parents[2]
PATCH, MARGIN, BATCH, CALL = 7, 2, 6, 4
FIRST, LAST = 5, 22
KEY = jax.random.key(3)
# A task and the side of the region that it needs of the scale-1 image.
KINDS = {'sr': (2, None, 7), 'noise': (1, Noise(5, 50), 7), 'jpeg': (1, Jpeg(10, 40), 32)}


@functools.cache
def random_store(scale=2, images=5, height=40, width=60):
    generator = np.random.default_rng(scale)

    def random(factor):
        return generator.integers(0, 256, (images, height * factor, width * factor, 3), np.uint8)

    sizes = np.stack([generator.integers(36, height + 1, images), generator.integers(40, width + 1, images)], axis=1)
    return ImageStore(random(scale), None if scale == 1 else random(1), sizes.astype(np.int32))


def open_stream(kind='sr', store=None, **changes):
    scale, _, size = KINDS[kind]
    arguments = {'key': KEY, 'indices': range(BATCH), 'scale': scale, 'size': size, 'margin': MARGIN}
    arguments |= {'first_step': FIRST, 'last_step': LAST, 'steps_per_call': CALL}
    return RegionStream(store or random_store(scale), **arguments | changes)


@functools.cache
def resident(kind):
    """(step, indices) to what the step makes of the resident store."""
    scale, corruption, _ = KINDS[kind]
    sample = functools.partial(sample_patches, scale=scale, patch_size=PATCH, margin=MARGIN, corruption=corruption)
    return functools.partial(jax.jit(sample), jax.device_put(random_store(scale)), KEY)


@functools.cache
def streamed(kind):
    """(regions, key, step, indices, first_step=…) to what the step makes of them."""
    return jax.jit(functools.partial(sample_regions, patch_size=PATCH, corruption=KINDS[kind][1]))


def assert_same_batches(kind, stream, counts, step=FIRST):
    """Calls of these many steps give what the resident store gives."""
    indices = jnp.arange(BATCH)
    for count in counts:
        regions = stream.take(count)
        for array in jax.tree.leaves(regions):
            assert array.dtype == np.uint8
            assert array.shape[:2] == (CALL, BATCH)
        for each in range(step, step + count):
            actual = streamed(kind)(regions, KEY, each, indices, first_step=step)
            for found, expected in zip(actual, resident(kind)(each, indices), strict=True):
                np.testing.assert_array_equal(found, expected, err_msg=f'{kind}, step {each}')
        step += count
    return step


@pytest.mark.parametrize('kind', KINDS)
def test_batches_are_those_of_the_resident_store(kind):
    assert region_size(PATCH, 3, KINDS[kind][1]) == KINDS[kind][2]
    stream = open_stream(kind)
    # Whole calls; then others, which begin and end within what was cut for a call; then what is left.
    assert assert_same_batches(kind, stream, (4, 4, 1, 2, 3, 1, 2)) == LAST
    stream.close()


def test_every_way_to_divide_the_steps_gives_the_same_regions():
    whole = np.concatenate([open_stream(first_step=step).take(1).targets[:1] for step in range(FIRST, LAST)])
    generator = np.random.default_rng(0)
    for _ in range(5):
        stream, step = open_stream(), FIRST
        while step < LAST:
            count = int(generator.integers(1, min(CALL, LAST - step) + 1))
            regions = stream.take(count)
            np.testing.assert_array_equal(regions.targets[:count], whole[step - FIRST :][:count])
            step += count
        stream.close()


def test_it_goes_on_from_any_step():
    stream = open_stream(first_step=9)
    assert_same_batches('sr', stream, (3, 4), step=9)
    stream.close()


def test_processes_that_cut_parts_of_the_batch_cut_the_batch():
    whole = open_stream().take(CALL)
    parts = [open_stream(indices=indices).take(CALL) for indices in ([4, 0, 1], [5, 3, 2])]
    for name in ('targets', 'inputs'):
        joined = np.concatenate([getattr(part, name) for part in parts], axis=1)
        np.testing.assert_array_equal(joined, getattr(whole, name)[:, [4, 0, 1, 5, 3, 2]])


@pytest.mark.parametrize('count', [0, CALL + 1])
def test_steps_that_are_not_taken_at_once(count):
    with pytest.raises(ValueError, match=f'{count} steps from step 5 on'):
        open_stream().take(count)


def test_it_ends_at_the_last_step():
    stream = open_stream(last_step=FIRST + 5)
    stream.take(4)
    with pytest.raises(ValueError, match='2 steps from step 9 on, of a stream that ends at 10'):
        stream.take(2)
    stream.take(1)
    with pytest.raises(ValueError, match='ends at 10'):
        stream.take(1)
    with pytest.raises(ValueError, match='ends at 5'):
        open_stream(last_step=FIRST).take(1)


def wait_until(condition):
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize('calls_ahead', [2, 3])
def test_it_cuts_some_calls_ahead_and_no_more(monkeypatch, calls_ahead):
    drawn, get = [], jax.device_get  # once for each call
    monkeypatch.setattr(jax, 'device_get', lambda places: (drawn.append(places), get(places))[1])
    stream = open_stream(last_step=100 * CALL, calls_ahead=calls_ahead)
    for expected in range(calls_ahead, calls_ahead + 3):
        wait_until(functools.partial(lambda number: len(drawn) >= number, expected))
        time.sleep(0.1)
        assert len(drawn) == expected
        stream.take(CALL)
    stream.close()


def test_what_take_waited_for_is_told_once(monkeypatch):
    """The clock is read before the wait, and only then lets the threads cut regions."""
    go, clock, get = threading.Event(), iter([10, 10.5]), jax.device_get
    monkeypatch.setattr(jax, 'device_get', lambda places: (go.wait(), get(places))[1])
    monkeypatch.setattr(region_stream, 'time', types.SimpleNamespace(perf_counter=lambda: (go.set(), next(clock))[1]))
    stream = open_stream()
    stream.take(CALL)
    assert stream.pop_waited_seconds() == 0.5
    assert stream.pop_waited_seconds() == 0
    stream.close()


def test_an_error_while_cutting_is_raised_by_take():
    store = random_store()
    broken = ImageStore(store.targets[:1], store.inputs, store.sizes)
    stream = open_stream(store=broken)
    with pytest.raises(IndexError):
        stream.take(CALL)
    stream.close()


def test_a_closed_stream_leaves_no_thread():
    before = set(threading.enumerate())
    stream = open_stream()
    stream.take(CALL)
    assert set(threading.enumerate()) - before
    stream.close()
    wait_until(lambda: not set(threading.enumerate()) - before)


def test_either_inputs_or_a_degradation():
    regions = open_stream().take(1)
    with pytest.raises(ValueError, match='either'):
        sample_regions(
            regions, KEY, FIRST, jnp.arange(BATCH), first_step=FIRST, patch_size=PATCH, corruption=Noise(1, 1)
        )


def test_it_needs_a_cpu_device(monkeypatch):
    def local_devices(backend):
        raise RuntimeError('Unknown backend cpu')

    monkeypatch.setattr(region_stream.jax, 'local_devices', local_devices)
    with pytest.raises(UserError, match='JAX_PLATFORMS leaves out: add cpu'):
        open_stream()


def test_it_needs_no_tensorflow():
    code = (
        'import sys; sys.modules.update(tensorflow=None, tensorflow_datasets=None, torch=None); '
        'import nsr_jax.data.region_stream'
    )
    result = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
