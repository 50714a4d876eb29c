"""Optimizers against optax's own, and schedules against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from nsr_jax.errors import UserError
from nsr_jax.optimizers import OPTIMIZERS, averaged_weights, decayed, find_optimizer, find_schedule

RUN = {'num_steps': 600, 'drops': (2 / 3, 5 / 6), 'factor': 0.2}


@pytest.fixture(autouse=True)
def lenient_promotion():
    """Optax by itself, with which these tests compare, needs it."""
    with jax.numpy_dtype_promotion('standard'):
        yield


@pytest.fixture(scope='module')
def params():
    """Parameters named as in a network: of a plain convolution, and of a sparse one with 2 groups and cardinality 2."""
    shapes = {
        'head': {'direction': (3, 3, 1, 8), 'scale': (8,), 'bias': (8,)},
        'block_00': {
            'conv_1': {
                'direction': (3, 3, 8, 2, 2, 4),
                'scale': (2, 2, 4),
                'bias': (2, 2, 4),
                'gate': {'kernel': (8, 2, 2), 'bias': (2, 2)},
            }
        },
    }
    return gradients_of(jax.tree.map(np.zeros, shapes, is_leaf=lambda each: isinstance(each, tuple)), 99)


def gradients_of(params, step):
    leaves, structure = jax.tree.flatten(params)
    generator = np.random.default_rng(step)
    return jax.tree.unflatten(structure, [generator.normal(size=leaf.shape).astype(np.float32) for leaf in leaves])


def take(optimizer, params, count, *, is_told=True):
    update, state = jax.jit(optimizer.update), jax.jit(optimizer.init)(params)
    for step in range(count):
        more = {'step': jnp.int32(step)} if is_told else {}
        updates, state = update(gradients_of(params, step), state, params, **more)
        params = jax.jit(optax.apply_updates)(params, updates)
    return params, state


def assert_close(ours, theirs, rtol=1e-5, atol=1e-7):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), ours, theirs)


@pytest.mark.parametrize(
    ('name', 'options', 'reference'),
    [
        ('adam', {}, optax.adam(1e-3)),
        ('adam', {'b1': 0.8, 'b2': None}, optax.adam(1e-3, b1=0.8)),
        ('adamw', {'weight_decay': 0.1}, optax.adamw(1e-3, weight_decay=0.1, mask=decayed)),
        ('lion', {}, optax.lion(1e-3, weight_decay=1e-3, mask=decayed)),
    ],
)
def test_optimizers_are_those_of_optax(params, name, options, reference):
    ours, _ = take(find_optimizer(name, find_schedule('constant', 1e-3), options=options), params, 3)
    theirs, _ = take(reference, params, 3, is_told=False)
    assert_close(ours, theirs)


def test_schedule_free_is_that_of_optax_and_so_are_the_weights_to_use(params):
    optimizer = find_optimizer('schedule_free', find_schedule('constant', 1e-3), clip_norm=1e6, accumulate_steps=2)
    ours, state = take(optimizer, params, 6)
    reference = contrib.schedule_free_adamw(1e-3)
    update, theirs, their_state = jax.jit(reference.update), params, reference.init(params)
    for step in (0, 2, 4):
        mean = jax.tree.map(lambda a, b: (a + b) / 2, gradients_of(params, step), gradients_of(params, step + 1))
        updates, their_state = update(mean, their_state, theirs)
        theirs = jax.tree.map(np.add, theirs, updates)
    assert_close(ours, theirs, atol=1e-6)
    expected = contrib.schedule_free_eval_params(their_state, theirs)
    assert_close(averaged_weights(state, ours), expected, atol=1e-6)
    assert float(jnp.abs(ours['head']['bias'] - expected['head']['bias']).max()) > 1e-5
    assert averaged_weights(find_optimizer('adam', find_schedule('constant', 1e-3)).init(params), params) is None


def test_muon_makes_the_updates_of_kernels_orthogonal_and_those_of_the_rest_nadams(params):
    optimizer = find_optimizer('muon', find_schedule('constant', 1e-3))
    gradients = gradients_of(params, 0)
    updates, _ = jax.jit(optimizer.update)(gradients, optimizer.init(params), params, step=jnp.int32(0))
    bank = np.asarray(updates['block_00']['conv_1']['direction'])  # (3, 3, 8, k, d, 4): a matrix for each group
    for group in range(bank.shape[3]):
        values = np.linalg.svd(bank[:, :, :, group].reshape(72, 8), compute_uv=False)
        assert values.max() < 2 * values.min()
    nadams, _ = optax.nadam(1e-3).update(gradients, optax.nadam(1e-3).init(params))
    assert_close(updates['block_00']['conv_1']['gate'], nadams['block_00']['conv_1']['gate'])
    assert_close(updates['head']['scale'], nadams['head']['scale'])


def test_decay_spares_scales_biases_and_gates(params):
    spared = {
        jax.tree_util.keystr(path, simple=True, separator='/')
        for path, is_decayed in jax.tree_util.tree_leaves_with_path(decayed(params))
        if not is_decayed
    }
    gate = {f'block_00/conv_1/gate/{name}' for name in ('kernel', 'bias')}
    assert spared == {f'{conv}/{name}' for conv in ('head', 'block_00/conv_1') for name in ('scale', 'bias')} | gate


def test_clipping_scales_the_whole_gradient(params):
    clipped = find_optimizer('adam', find_schedule('constant', 1e-3), clip_norm=0.5)
    gradients = gradients_of(params, 0)
    _, state = jax.jit(clipped.update)(gradients, clipped.init(params), params, step=jnp.int32(0))
    assert jax.tree.structure(state) == jax.tree.structure(find_optimizer('adam', lambda step: 1e-3).init(params))
    (moments,) = (
        each for each in jax.tree.leaves(state, is_leaf=lambda each: hasattr(each, 'mu')) if hasattr(each, 'mu')
    )
    np.testing.assert_allclose(optax.tree.norm(moments.mu), 0.1 * 0.5, rtol=1e-5)


def test_gates_may_take_longer_steps(params):
    gradients = jax.tree.map(jnp.ones_like, params)
    usual, faster = (find_optimizer('adam', lambda step: 1e-3, gate_rate=rate) for rate in (1.0, 10.0))
    ours, theirs = (each.update(gradients, each.init(params), params, step=0)[0] for each in (faster, usual))
    ratios = jax.tree_util.tree_map_with_path(
        lambda path, a, b: (float(np.mean(a / b)), 'gate' in [each.key for each in path]), ours, theirs
    )
    found = jax.tree.leaves(ratios, is_leaf=lambda each: isinstance(each, tuple))
    assert {is_gate for _, is_gate in found} == {True, False}
    for ratio, is_gate in found:
        assert ratio == pytest.approx(10 if is_gate else 1)
    with pytest.raises(UserError, match='gate_rate must be 1 for schedule_free'):
        find_optimizer('schedule_free', lambda step: 1e-3, gate_rate=3.0)


def test_accumulation_steps_along_the_mean_gradient(params):
    optimizer = find_optimizer('adam', find_schedule('constant', 1e-3), accumulate_steps=2)
    update, state = jax.jit(optimizer.update), optimizer.init(params)
    first, second = gradients_of(params, 0), gradients_of(params, 1)
    updates, state = update(first, state, params, step=jnp.int32(0))
    assert optax.tree.norm(updates) == 0
    updates, _ = update(second, state, params, step=jnp.int32(1))
    mean = jax.tree.map(lambda a, b: (a + b) / 2, first, second)
    expected, _ = optax.adam(1e-3).update(mean, optax.adam(1e-3).init(params))
    assert_close(updates, expected)


def test_the_rate_is_that_of_the_step_that_is_told(params):
    """A skipped step counts, although the optimizer has not seen it."""
    optimizer = find_optimizer('adam', find_schedule('steps', 1e-3, **RUN))
    gradients = gradients_of(params, 0)
    early, late = (
        optimizer.update(gradients, optimizer.init(params), params, step=jnp.int32(step))[0] for step in (0, 599)
    )
    assert_close(late, jax.tree.map(lambda each: 0.04 * each, early))


@pytest.mark.parametrize(
    ('name', 'options', 'steps', 'expected'),
    [
        ('steps', {}, [0, 399, 400, 499, 500, 599], [1, 1, 0.2, 0.2, 0.04, 0.04]),
        ('cosine', {}, [0, 300, 600], [1, 0.5, 0]),
        ('constant', {}, [0, 599], [1, 1]),
        ('constant', {'warmup_steps': 10}, [0, 4, 9, 50], [0.1, 0.5, 1, 1]),
        ('cosine', {'warmup_steps': 10}, [0, 300], [0.1, 0.5]),
    ],
)
def test_schedules(name, options, steps, expected):
    schedule = find_schedule(name, 2e-3, **RUN, **options)
    rates = jax.vmap(schedule)(jnp.array(steps))
    np.testing.assert_allclose(rates, 2e-3 * np.array(expected), rtol=1e-4, atol=1e-8)
    assert rates.dtype == jnp.float32


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'name': 'adma'}, "unknown optimizer 'adma': adam, adamw, lion, muon, schedule_free are known"),
        ({'name': 'lion', 'options': {'eps': 1e-8}}, 'eps: lion takes no such option; it takes b1, b2, weight_decay'),
        ({'name': 'adam', 'options': {'weight_decay': 0.1}}, 'adam takes no such option; it takes b1, b2, eps'),
        ({'name': 'adam', 'options': {'b1': 1.0}}, 'config.optimizer.b1 must be a number from 0 and below 1, not 1.0'),
        ({'name': 'adam', 'clip_norm': -1.0}, 'clip_norm must be a number from 0, not -1.0'),
        ({'name': 'adam', 'clip_norm': float('nan')}, 'clip_norm must be a number from 0, not nan'),
        ({'name': 'adam', 'accumulate_steps': 0}, 'accumulate_steps must be a whole number from 1, not 0'),
    ],
)
def test_wrong_optimizers_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        find_optimizer(schedule=find_schedule('constant', 1e-3), **arguments)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(UserError, match="unknown schedule 'step': steps, cosine, constant are known"):
        find_schedule('step', 1e-3)


@pytest.mark.parametrize('name', list(OPTIMIZERS))
def test_every_optimizer_lowers_a_loss(params, name):
    """A parabola around other weights."""
    target = jax.tree.map(lambda leaf: leaf + 0.1, params)
    optimizer = find_optimizer(name, find_schedule('constant', 1e-2))

    def loss(at):
        return sum(jnp.sum(jnp.square(a - b)) for a, b in zip(*map(jax.tree.leaves, (at, target)), strict=True))

    @jax.jit
    def step(at, state, number):
        updates, state = optimizer.update(jax.grad(loss)(at), state, at, step=number)
        return optax.apply_updates(at, updates), state

    at, state = params, optimizer.init(params)
    for number in range(20):
        at, state = step(at, state, jnp.int32(number))
    assert loss(at) < 0.8 * loss(params)
