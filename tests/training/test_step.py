import contextlib
import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from nsr_jax.data.sampling import sample_patches
from nsr_jax.data.store import ImageStore
from nsr_jax.inference.devices import replicate, replicated
from nsr_jax.losses import find_losses
from nsr_jax.models.residual import RestorationNetwork
from nsr_jax.optimizers import find_optimizer
from nsr_jax.training.checkpoints import Checkpoints
from nsr_jax.training.sharding import make_mesh
from nsr_jax.training.state import TrainState, abstract_state, create_state
from nsr_jax.training.step import make_train_steps
from tests.processes import run_together

MODEL = {'scale': 2, 'channels': 3, 'num_blocks': 1, 'features': 8, 'groups': 2, 'cardinality': 4}
NETWORK = RestorationNetwork(**MODEL)


def batch_of(step, indices, side=10):
    """Smooth inputs and targets that differ from step to step; the store is not read."""
    grid = jnp.arange(side) / 5 + jnp.float32(step)
    waves = jnp.sin(grid[:, None] + jnp.cos(grid[None, :])) * 0.3 + 0.5
    colours = jnp.array([1.0, 0.8, 0.6])[None, None, None]
    inputs = waves[None, :, :, None] * (1 + indices[:, None, None, None] / 10) * colours
    return inputs, jnp.repeat(jnp.repeat(inputs, 2, axis=1), 2, axis=2)


def program_of(mesh, network, make_batch=None, side=10, batch_size=3, microbatch_size=1, ema_decay=0.0, **options):
    """`train_steps` of a network, with the empty store that `batch_of` does not read."""
    train_steps = make_train_steps(
        network,
        make_batch or (lambda store, first_step, step, indices: batch_of(step, indices, side)),
        losses=find_losses({'l1': 1.0}),
        optimizer=ADAM,
        batch_size=batch_size,
        stop_after_skipped=3,
        mesh=mesh,
        microbatch_size=microbatch_size,
        abstract=abstract_state(network, ADAM, mesh, ema_decay > 0),
        ema_decay=ema_decay,
        **options,
    )
    empty = ImageStore(np.zeros((1, 2, 2, 3), np.uint8), np.zeros((1, 1, 1, 3), np.uint8), np.ones((1, 2), np.int32))
    return train_steps, jax.device_put(empty, replicated(mesh))


def halve(step):
    return 1e-3 * 0.5 ** jnp.float32(step)


ADAM = find_optimizer('adam', halve)


@pytest.fixture(scope='module')
def setting():
    """A mesh, `train_steps`, the store, and a list that gets longer when `train_steps` is compiled."""
    mesh, compiled = make_mesh(data=-1, fsdp=1, batch_size=3), []

    def make_batch(store, first_step, step, indices):
        compiled.append(step)
        return batch_of(step, indices)

    return mesh, *program_of(mesh, NETWORK, make_batch), compiled


def test_steps_are_adam_on_the_l1_loss(setting):
    mesh, train_steps, store, _ = setting
    state, sums = train_steps(create_state(NETWORK, ADAM, mesh, 0), store, 3)

    params = create_state(NETWORK, ADAM, mesh, 0).params
    adam = optax.adam(halve)  # optax's own, which counts steps itself
    moments = adam.init(params)
    losses, psnrs = [], []

    @jax.jit
    def value_and_gradients(params, inputs, targets):
        def loss(params):
            error = NETWORK.apply({'params': params}, inputs) - targets
            return jnp.abs(error).mean(), jnp.square(error).mean()

        return jax.value_and_grad(loss, has_aux=True)(params)

    @jax.jit
    def update(params, gradients, moments):
        with jax.numpy_dtype_promotion('standard'):
            updates, moments = adam.update(gradients, moments)
        return optax.apply_updates(params, updates), moments

    for step in range(3):
        (loss, squared), gradients = value_and_gradients(params, *batch_of(step, jnp.arange(3)))
        params, moments = update(params, gradients, moments)
        losses.append(loss)
        psnrs.append(10 * np.log10(1 / squared))
    assert int(state.step) == 3
    np.testing.assert_allclose(sums['loss'], sum(losses), rtol=1e-5)
    np.testing.assert_allclose(sums['psnr'], sum(psnrs), rtol=1e-5)
    for ours, expected in zip(jax.tree.leaves(state.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-5)  # one step moves a weight by up to 1e-3


@pytest.mark.parametrize(('step', 'reach'), [(0, 0.25), (1, 0.5), (6, 1.0)])
def test_the_logits_of_gates_rise_in_the_first_steps(step, reach):
    mesh = make_mesh(data=-1, fsdp=1, batch_size=3)
    train_steps, store = program_of(mesh, NETWORK, gate_warmup_steps=4)
    state = create_state(NETWORK, ADAM, mesh, 0)
    _, sums = train_steps(dataclasses.replace(state, step=state.step + step), store, 1)

    network = NETWORK.clone(gate_scale=reach)

    @jax.jit
    def by_definition(params):
        inputs, targets = batch_of(step, jnp.arange(3))
        compare = lambda params: jnp.abs(network.apply({'params': params}, inputs) - targets).mean()  # noqa: E731
        return jax.value_and_grad(compare)(params)

    loss, gradients = by_definition(create_state(NETWORK, ADAM, mesh, 0).params)
    np.testing.assert_allclose(sums['loss'], loss, rtol=1e-5)
    np.testing.assert_allclose(sums['gradient_norm'], optax.tree.norm(gradients), rtol=1e-5)


def test_many_steps_in_one_call_are_the_same_steps(setting):
    mesh, train_steps, store, compiled = setting
    together, _ = train_steps(create_state(NETWORK, ADAM, mesh, 0), store, 4)
    apart, before = create_state(NETWORK, ADAM, mesh, 0), len(compiled)
    for count in (1, 3):
        apart, _ = train_steps(apart, store, count)
    assert len(compiled) == before  # another count needs no recompilation
    assert same(together, apart)


def test_a_step_that_is_not_finite_changes_nothing_and_too_many_end_the_run():
    mesh = make_mesh(data=-1, fsdp=1, batch_size=3)

    def make_batch(store, first_step, step, indices):
        inputs, targets = batch_of(step, indices)
        broken = (step == 1) | (step >= 3)
        return inputs, targets.at[0, 0, 0, 0].set(jnp.where(broken, jnp.inf, targets[0, 0, 0, 0]))

    train_steps, store = program_of(mesh, NETWORK, make_batch)
    take = lambda state, count: train_steps(jax.tree.map(jnp.copy, state), store, count)  # noqa: E731
    first, _ = take(create_state(NETWORK, ADAM, mesh, 0), 1)
    second, sums = take(first, 1)
    assert (int(second.step), int(second.skipped)) == (2, 1)
    assert {name: float(number) for name, number in sums.items()} == dict.fromkeys(sums, 0) | {'skipped': 1}
    assert same(second.params, first.params)
    assert same(second.optimizer, first.optimizer)

    third, sums = take(second, 1)
    assert (int(third.step), int(third.skipped)) == (3, 0)
    assert float(sums['loss']) > 0
    assert float(sums['gradient_norm']) > 0
    assert not same(third.params, second.params)

    last, sums = take(third, 10)  # the limit is three in a row
    assert (int(last.step), int(last.skipped), float(sums['skipped'])) == (6, 3, 3)
    assert same(last.params, third.params)
    assert int(take(last, 5)[0].step) == 6


def test_noise_is_a_function_of_its_key_and_the_step():
    mesh = make_mesh(data=-1, fsdp=1, batch_size=3)
    network = NETWORK.clone(groups=2, cardinality=2, gate='gumbel')
    make_batch = lambda store, first_step, step, indices: batch_of(0, indices)  # noqa: E731
    losses = {}
    for seed in (0, 1):
        train_steps, store = program_of(mesh, network, make_batch, noise_key=jax.random.key(seed, impl='rbg'))
        for step in (0, 0, 5):
            state = create_state(network, ADAM, mesh, 0)
            _, sums = train_steps(dataclasses.replace(state, step=state.step + step), store, 1)
            losses.setdefault((seed, step), set()).add(float(sums['loss']))
    assert [len(each) for each in losses.values()] == [1, 1, 1, 1]
    assert len(set.union(*losses.values())) == 4


def test_the_average_follows_the_weights_but_for_steps_that_are_skipped():
    mesh, decay = make_mesh(data=-1, fsdp=1, batch_size=3), 0.3  # the decay is smaller in steps 0 and 1

    def make_batch(store, first_step, step, indices):
        inputs, targets = batch_of(step, indices)
        return inputs, targets.at[0, 0, 0, 0].set(jnp.where(step == 3, jnp.inf, targets[0, 0, 0, 0]))

    train_steps, store = program_of(mesh, NETWORK, make_batch, ema_decay=decay)
    state = create_state(NETWORK, ADAM, mesh, 0, has_ema=True)
    assert same(state.ema, state.params)
    expected = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), state.params)
    for step in range(6):
        before = jax.tree.map(np.array, state.ema)
        state, _ = train_steps(state, store, 1)
        assert not same(state.ema, state.params)
        if step == 3:
            assert same(state.ema, before)
            continue
        kept = min(decay, (1 + step) / (10 + step))
        expected = jax.tree.map(lambda a, b, k=kept: k * a + (1 - k) * np.float64(b), expected, state.params)
        for ours, wanted in zip(jax.tree.leaves(state.ema), jax.tree.leaves(expected), strict=True):
            assert ours.dtype == np.float32
            np.testing.assert_allclose(ours, wanted, rtol=2e-6, atol=1e-7)
    assert int(state.skipped) == 0
    assert create_state(NETWORK, ADAM, mesh, 0).ema is None


def same(tree, other):
    return jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), tree, other))


@pytest.mark.slow
def test_remat_saves_memory():
    mesh = make_mesh(data=-1, fsdp=1, batch_size=3)
    bytes_needed = []
    for remat in (False, True):
        network = NETWORK.clone(num_blocks=4, width_multiplier=4, remat=remat)
        train_steps, store = program_of(mesh, network, side=40, microbatch_size=3)
        program = train_steps.lower(abstract_state(network, ADAM, mesh), store, 1).compile()
        bytes_needed.append(program.memory_analysis().temp_size_in_bytes)
    assert bytes_needed[1] < 0.85 * bytes_needed[0]


@functools.cache
def prepare(data, fsdp):
    """A mesh, its program, and images on it."""
    mesh = make_mesh(data, fsdp, 8)
    images = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), dtype=np.uint8)
    store = ImageStore(images, images[:, ::2, ::2], np.full((2, 2), 32, np.int32))
    sample = functools.partial(sample_patches, key=jax.random.key(0), scale=2, patch_size=12, margin=2)
    program, _ = program_of(
        mesh,
        NETWORK,
        lambda store, first_step, step, indices: sample(store, step=step, indices=indices),
        ema_decay=0.9,
        batch_size=8,
    )
    return mesh, program, replicate(store, mesh)


def take_five(state, program, images):
    losses = []
    for _ in range(5):
        state, sums = program(state, images, 1)
        losses.append(float(sums['loss']))
    return losses, state


def begin_on(shape, folder):
    """The losses of steps 0 to 4 on a mesh, which are saved."""
    mesh, program, images = prepare(*shape)
    losses, state = take_five(create_state(NETWORK, ADAM, mesh, 0, True), program, images)
    config = ml_collections.ConfigDict({'task': 'sr', 'model': MODEL})
    with contextlib.closing(Checkpoints(pathlib.Path(folder), keep=1)) as checkpoints:
        checkpoints.save(5, config, state.params, state.optimizer, averages={'ema': state.ema})
    return losses


def go_on_on(shape, folder):
    """The losses of steps 5 to 9 on a mesh, some numbers of the average, and which part of the state is on a device."""
    mesh, program, images = prepare(*shape)
    wanted = abstract_state(NETWORK, ADAM, mesh, True)
    step, none = replicate((np.int32(5), np.int32(0)), mesh)
    with contextlib.closing(Checkpoints(pathlib.Path(folder), keep=1)) as checkpoints:
        params, optimizer, ema = checkpoints.restore(5, wanted.params, wanted.optimizer, wanted.ema)
    losses, state = take_five(TrainState(step, params, optimizer, none, ema), program, images)
    trees = state.params, state.optimizer.mu, state.ema
    arrays = [tree['block_00']['conv_1']['direction'] for tree in trees]
    parts = [array.addressable_shards[0].data.size / array.size for array in arrays]
    return losses, np.asarray(arrays[2]).ravel()[:50].tolist(), parts


def follow_meshes(meshes, folder):
    return begin_on(meshes[0], folder), [go_on_on(mesh, folder) for mesh in meshes]


@pytest.mark.parametrize('meshes', [[(2, 2)], pytest.param([(1, 4), (4, 1), (2, 2)], marks=pytest.mark.slow)])
def test_every_mesh_gives_the_losses_of_one_device_and_goes_on_from_the_checkpoint_of_another(tmp_path, meshes):
    one, several = str(tmp_path / 'one'), str(tmp_path / 'several')
    first, (expected, expected_average, _) = begin_on((1, 1), one), go_on_on((1, 1), one)
    (answer,) = run_together(follow_meshes, 1, meshes, several, devices=4)
    np.testing.assert_allclose(answer.value[0], first, rtol=1e-5)
    found = [*answer.value[1], go_on_on((1, 1), several)]
    for (losses, average, parts), mesh in zip(found, [*meshes, (1, 1)], strict=True):
        np.testing.assert_allclose(losses, expected, rtol=1e-5, err_msg=mesh)
        np.testing.assert_allclose(average, expected_average, rtol=1e-4, atol=1e-6, err_msg=mesh)
        assert parts == [1 / mesh[1]] * 3  # the state is split over fsdp only
