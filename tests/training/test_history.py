"""A run that goes on with other values of some fields: what is refused, what is written down, and what is trained."""

import json

import jax
import pytest

from nsr_jax.errors import UserError
from nsr_jax.trained import load_model, read_metadata
from nsr_jax.training import loop
from nsr_jax.training.history import config_at, find_differences, read_changes, record_changes, write_config
from nsr_jax.training.loop import train
from nsr_jax.training.replay import replay
from nsr_jax.training.run import check_changes, check_run


def same_weights(one, other, step):
    trees = [load_model(workdir / 'checkpoints' / str(step)).params for workdir in (one, other)]
    return jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), *trees))


# What differs, and what may.


def test_a_workdir_belongs_to_one_config(tmp_path, config):
    assert find_differences(tmp_path, config) is None
    write_config(tmp_path, config)
    check_changes(tmp_path, config, [])  # the run resumes
    config.log_every_steps = 1  # fields that change no number may change
    config.mesh.fsdp = 2
    config.validation.fraction = 0.0
    config.remat = True
    check_changes(tmp_path, config, [])
    config.compute_dtype = 'bfloat16'
    with pytest.raises(UserError, match=r'compute_dtype float32 there, bfloat16 now; --change=compute_dtype goes on'):
        check_changes(tmp_path, config, [])
    config.compute_dtype = 'float32'
    config.learning_rate = 0.5
    config.model.features = 16
    with pytest.raises(UserError, match=r'features 8 there, 16 now; learning_rate 0.001 there, 0.5 now'):
        check_changes(tmp_path, config, [])
    assert json.loads((tmp_path / 'config.json').read_text())['learning_rate'] == 0.001


@pytest.mark.parametrize('contents', [b'null', b'[]', b'{', b'{"a": "\xff"}', b'[' * 100_000, b'3'])
def test_a_config_that_is_none_is_named(tmp_path, config, contents):
    (tmp_path / 'config.json').write_bytes(contents)
    with pytest.raises(UserError, match=r'config\.json cannot be read as the config of a run: '):
        check_changes(tmp_path, config, [])


def test_a_config_that_cannot_be_read_is_named(tmp_path, config):
    (tmp_path / 'config.json').symlink_to(tmp_path / 'nowhere')
    with pytest.raises(UserError, match=r'config\.json cannot be read'):
        check_changes(tmp_path, config, [])


CHANGES = [
    b'3',
    b'{',
    b'[3]',
    b'[{"step": 3}]',
    b'[{"step": 3, "changes": {"a": 3}}]',
    b'[{"step": "3", "changes": {}}]',
]


@pytest.mark.parametrize('contents', CHANGES)
def test_changes_that_are_none_are_named(tmp_path, config, contents):
    write_config(tmp_path, config)
    (tmp_path / 'changes.json').write_bytes(contents)
    with pytest.raises(UserError, match=r'changes\.json cannot be read as the changes of a run: '):
        check_changes(tmp_path, config, [])


def test_a_run_from_before_there_were_fields_goes_on_with_what_it_did(tmp_path, config):
    config.unlock()
    old = json.loads(config.to_json())
    for name in ('loss', 'optimizer', 'learning_rate_schedule', 'warmup_steps', 'remat'):
        del old[name]
    for name in ('gate_noise', 'gate_scale', 'gate_pooling', 'threshold', 'pruning'):
        del old['model'][name]
    for name in ('shared_noise', 'subsampling'):
        del old['degradation'][name]
    (tmp_path / 'config.json').write_text(json.dumps(old))
    check_changes(tmp_path, config, [])
    config.optimizer.name, config.loss.fft = 'lion', 0.1
    with pytest.raises(UserError, match=r'loss.fft 0.0 there, 0.1 now; optimizer.name adam there, lion now'):
        check_changes(tmp_path, config, [])
    config.optimizer.name = 'adam'
    check_changes(tmp_path, config, ['loss.fft'])


FREE_TO_CHANGE = {
    'num_steps': 20, 'learning_rate': 0.5, 'learning_rate_schedule': 'cosine', 'learning_rate_drops': (0.5,),
    'batch_size': 8, 'seed': 3, 'compute_dtype': 'bfloat16', 'loss.fft': 0.1, 'optimizer.b1': 0.5,
    'optimizer.clip_norm': 1.0, 'optimizer.gate_rate': 10.0, 'data.patch_size': 8,
}  # fmt: skip
FIXED = {
    'task': 'denoise', 'warm_start': 'runs/x', 'model.num_blocks': 2, 'model.gate_scale': 2.0, 'model.gate': 'sigmoid',
    'optimizer.name': 'adamw', 'optimizer.accumulate_steps': 2, 'ema_decay': 0.9,
}  # fmt: skip


@pytest.mark.parametrize('name', FREE_TO_CHANGE)
def test_a_field_that_keeps_the_state_may_change_if_it_is_named(tmp_path, config, name):
    write_config(tmp_path, config)
    config.update_from_flattened_dict({name: FREE_TO_CHANGE[name]})
    with pytest.raises(UserError, match=f'now; --change={name} goes on with the new value$'):
        check_changes(tmp_path, config, [])
    check_changes(tmp_path, config, [name, 'learning_rate_factor'])


@pytest.mark.parametrize('name', FIXED)
def test_a_field_that_changes_network_or_state_may_not(tmp_path, config, name):
    write_config(tmp_path, config)
    config.update_from_flattened_dict({name: FIXED[name]})
    with pytest.raises(UserError, match=f'{name} .* there, .*; {name} cannot change within a run: give another --work'):
        check_changes(tmp_path, config, [name])


def test_an_option_of_another_optimizer_is_told_with_it(tmp_path, config):
    config.optimizer.name, config.optimizer.momentum = 'muon', 0.9
    write_config(tmp_path, config)
    config.optimizer.name, config.optimizer.momentum = 'adam', None
    with pytest.raises(UserError, match=r'optimizer\.name, optimizer\.momentum cannot change within a run'):
        check_changes(tmp_path, config, ['optimizer.momentum'])


def test_the_rate_of_an_average_may_change_but_not_whether_there_is_one(tmp_path, config):
    config.ema_decay = 0.9
    write_config(tmp_path, config)
    config.ema_decay = 0.99
    check_changes(tmp_path, config, ['ema_decay'])


@pytest.mark.parametrize(
    ('named', 'message'),
    [
        (['num_step'], r"--change=num_step: a config has no field 'num_step', such as num_steps or optimizer\.b1"),
        (['optimizer'], r"--change=optimizer: a config has no field 'optimizer'"),
        (['num_steps'], r'--change=num_steps: workdir .* holds no run that could be changed'),
    ],
)
def test_a_name_that_changes_nothing_that_is_there_is_refused(tmp_path, config, named, message):
    with pytest.raises(UserError, match=message):
        check_changes(tmp_path, config, named)
    assert not list(tmp_path.iterdir())


def test_every_change_that_is_needed_is_suggested(tmp_path, config):
    write_config(tmp_path, config)
    config.num_steps, config.learning_rate = 20, 0.5
    with pytest.raises(UserError, match=r'; --change=num_steps,learning_rate goes on with the new values$'):
        check_changes(tmp_path, config, ['num_steps'])


# What is written down.


def test_changes_are_kept_with_their_steps(tmp_path, config, said):
    write_config(tmp_path, config)
    assert record_changes(tmp_path, config, ['num_steps', 'remat'], 3) == []
    assert said == ['--change=num_steps: it is 12 already', '--change=remat: it may differ unnamed']
    assert not (tmp_path / 'changes.json').exists()
    config.num_steps, config.learning_rate_drops = 20, (0.5,)
    record_changes(tmp_path, config, ['num_steps'], 12)
    config.num_steps = 30
    changes = record_changes(tmp_path, config, ['num_steps'], 20)
    assert said[-1] == 'changed from step 20 on: num_steps 30 (before: 20)'
    assert changes == read_changes(tmp_path)
    assert [(each['step'], each['changes']['num_steps']) for each in changes] == [
        (12, {'from': 12, 'to': 20}),
        (20, {'from': 20, 'to': 30}),
    ]
    assert find_differences(tmp_path, config) == {}
    assert [config_at(config, changes, step).num_steps for step in (0, 11, 12, 19, 20, 25)] == [12, 12, 20, 20, 30, 30]
    assert config_at(config, changes, 0).learning_rate_drops == (2 / 3, 5 / 6)
    assert config_at(config, changes, 0).to_json() == (config_at(config, changes, 11)).to_json()


def test_a_change_of_which_no_checkpoint_is_left_begins_where_the_run_goes_on(tmp_path, config):
    write_config(tmp_path, config)
    config.num_steps = 20
    record_changes(tmp_path, config, ['num_steps'], 12)
    config.learning_rate = 0.5
    record_changes(tmp_path, config, ['learning_rate'], 15)
    config.num_steps = 30
    changes = record_changes(tmp_path, config, ['num_steps'], 10)
    both = {'num_steps': {'from': 12, 'to': 30}, 'learning_rate': {'from': 0.001, 'to': 0.5}}
    assert changes == read_changes(tmp_path) == [{'step': 10, 'changes': both}]


# What is trained.


@pytest.fixture
def short(config):
    config.learning_rate_schedule = 'constant'
    return config


def test_a_finished_run_is_made_longer(tmp_path, short, metrics_of, said):
    """And equals one that was as long from the beginning, although it is killed before its first new checkpoint."""
    train(short, tmp_path / 'run')
    hint = '; --change=num_steps with a larger --config.num_steps makes it longer'
    assert any(line.startswith('this run is done: step 12; ') and line.endswith(hint) for line in said)
    short.num_steps = 20
    with pytest.raises(UserError, match=r'num_steps 12 there, 20 now; --change=num_steps goes on with the new value$'):
        train(short, tmp_path / 'run')
    assert not (tmp_path / 'run' / 'changes.json').exists()

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, 'MetricsWriter', interrupt)
        train(short, tmp_path / 'run', change=['num_steps'])
    change = {'step': 12, 'changes': {'num_steps': {'from': 12, 'to': 20}}}
    assert read_changes(tmp_path / 'run') == [change]
    assert max(int(path.name) for path in (tmp_path / 'run' / 'checkpoints').iterdir()) == 12
    train(short, tmp_path / 'run', change=['num_steps'])  # the same command
    assert '--change=num_steps: it is 20 already' in said
    train(short, tmp_path / 'run')  # needs no flag

    train(short, tmp_path / 'whole')
    assert metrics_of(tmp_path / 'run') == metrics_of(tmp_path / 'whole')
    assert same_weights(tmp_path / 'run', tmp_path / 'whole', 20)
    assert json.loads((tmp_path / 'run' / 'config.json').read_text())['num_steps'] == 12
    metadata = [read_metadata(tmp_path / 'run' / 'checkpoints' / step) for step in ('12', '20')]
    assert [(each['config']['num_steps'], each['changes']) for each in metadata] == [(12, []), (20, [change])]


def interrupt(*arguments):
    raise KeyboardInterrupt


def test_a_learning_rate_is_changed_from_its_step_on(tmp_path, short, metrics_of):
    train(short, tmp_path / 'run')
    short.num_steps, short.learning_rate = 20, 0.002
    train(short, tmp_path / 'run', change=['num_steps', 'learning_rate'])
    rates = [(line['step'], line['learning_rate']) for line in metrics_of(tmp_path / 'run')]
    assert [rate for step, rate in rates if step <= 12] == [pytest.approx(0.001)] * sum(step <= 12 for step, _ in rates)
    assert [rate for step, rate in rates if step > 12] == [pytest.approx(0.002)] * sum(step > 12 for step, _ in rates)

    # The same by a schedule: the rate is doubled at step 12 of 20.
    short.learning_rate, short.learning_rate_schedule = 0.001, 'steps'
    short.learning_rate_drops, short.learning_rate_factor = (0.6,), 2.0
    train(short, tmp_path / 'by_schedule')
    assert metrics_of(tmp_path / 'run') == metrics_of(tmp_path / 'by_schedule')
    assert same_weights(tmp_path / 'run', tmp_path / 'by_schedule', 20)


def test_a_change_for_which_no_step_is_left_is_refused(tmp_path, short, metrics_of):
    train(short, tmp_path)
    before = metrics_of(tmp_path)
    short.learning_rate = 0.5
    with pytest.raises(UserError, match=r'this run has taken 12 steps of 12, so no change has an effect: --change=num'):
        train(short, tmp_path, change=['learning_rate'])
    short.learning_rate, short.num_steps = 0.001, 10
    with pytest.raises(UserError, match=r'this run has taken 12 steps of 10'):
        train(short, tmp_path, change=['num_steps'])
    assert not (tmp_path / 'changes.json').exists()
    assert metrics_of(tmp_path) == before


@pytest.mark.slow
def test_gradients_are_clipped_from_a_step_on_and_batches_replayed_by_the_config_of_their_step(
    tmp_path, short, metrics_of
):
    short.update(num_steps=6, checkpoint_every_steps=3, log_every_steps=1)
    train(short, tmp_path)
    short.num_steps, short.batch_size, short.optimizer.clip_norm = 9, 8, 1e-3
    train(short, tmp_path, change=['num_steps', 'batch_size', 'optimizer.clip_norm'])
    check_run(short, tmp_path)
    lines = metrics_of(tmp_path)
    for batch, samples in ((4, 4), (7, 8)):
        table = replay(short, tmp_path, batch).splitlines()
        assert f'Loss {lines[batch]["loss"]:.5g}, ' in table[0]
        assert sum(line.startswith(tuple(f'| {index} |' for index in range(9))) for line in table) == samples
