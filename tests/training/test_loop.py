import dataclasses

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from nsr_jax.errors import UserError
from nsr_jax.trained import load_model
from nsr_jax.training import loop
from nsr_jax.training.loop import train
from nsr_jax.training.run import prepare_run


class StopError(Exception):
    pass


def test_a_validation_shows_samples_and_may_end_the_training(tmp_path, config, metrics_of):
    def after_validation(step, merit):
        told.append((step, merit))
        if stopping:
            raise StopError

    told, stopping = [], True
    options = {
        'evaluate': lambda params: (3.0, {'validation/psnr': 3.0}),
        'draw_samples': lambda params: {'sample': np.full((4, 12, 3), len(jax.tree.leaves(params)), np.uint8)},
        'after_validation': after_validation,
    }
    with pytest.raises(StopError):
        train(config, tmp_path, **options)
    assert told == [(8, 3.0)]
    assert metrics_of(tmp_path)[-1]['step'] == 8
    stopping = False
    train(config, tmp_path, **options)  # goes on from step 8, which is saved
    assert told == [(8, 3.0), (12, 3.0)]
    events = [path.read_bytes() for path in sorted((tmp_path / 'tensorboard').iterdir())]
    assert [each.count(b'\x89PNG') for each in events] == [1, 1]


@pytest.mark.parametrize(
    ('kind', 'words'), [('ema', 'EMA'), pytest.param('schedule_free', 'schedule-free average', marks=pytest.mark.slow)]
)
def test_a_run_and_its_average_are_scored_and_resumed_exactly(tmp_path, config, metrics_of, said, kind, words):
    def evaluate(params):
        if stopping:
            raise StopError
        seen.append(jax.tree.map(np.asarray, params))
        # The raw weights get better from step 8 to 12, their average gets worse.
        score = [1, 9, 2, 8][len(seen) - 1]
        return score, {'validation/psnr': score}

    if kind == 'ema':
        config.ema_decay = 0.9
    else:
        config.optimizer.name = 'schedule_free'
    seen, stopping = [], False
    train(config, tmp_path / 'whole', evaluate)
    raw, average = load_both(tmp_path / 'whole' / 'checkpoints' / '12', kind)
    assert not same(raw, average)
    assert same(seen[2], raw) and same(seen[3], average)
    assert load_model(tmp_path / 'whole').origin == f'step 8, {words}'
    lines = [line for line in metrics_of(tmp_path / 'whole') if 'validation/psnr' in line]
    assert [(line['validation/psnr'], line[f'{kind}/validation/psnr']) for line in lines] == [(1, 9), (2, 8)]
    assert [line['step'] for line in metrics_of(tmp_path / 'whole')] == [3, 5, 6, 8, 8, 9, 10, 12, 12]

    stopping = True
    with pytest.raises(StopError):
        train(config, tmp_path / 'parts', evaluate)  # at step 8, with the checkpoint of step 5
    seen, stopping = [], False
    train(config, tmp_path / 'parts', evaluate)
    assert metrics_of(tmp_path / 'parts') == metrics_of(tmp_path / 'whole')
    again = load_both(tmp_path / 'parts' / 'checkpoints' / '12', kind)
    assert same(again, (raw, average))

    said.clear()
    train(config, tmp_path / 'parts', evaluate)  # a finished run does nothing more
    best = tmp_path / 'parts' / 'checkpoints' / '8'
    assert any(line.startswith(f'this run is done: step 12; its best checkpoint is {best}; ') for line in said)
    assert metrics_of(tmp_path / 'parts') == metrics_of(tmp_path / 'whole')


def same(tree, other):
    return jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), tree, other))


def load_both(checkpoint, kind):
    """The raw weights of a checkpoint, and their average."""
    with ocp.StandardCheckpointer() as checkpointer:
        return tuple(checkpointer.restore(checkpoint / name) for name in ('params', kind))


def test_streamed_equals_resident(tmp_path, config, finished, metrics_of):
    def stop(params):
        raise StopError

    config.data.resident_megabytes = 0
    config.data.store_dir = str(tmp_path / 'stores')
    config.evaluate_every_steps = 9
    with pytest.raises(StopError):
        train(config, tmp_path / 'streamed', stop)  # at step 9, with the checkpoint of step 5
    train(config, tmp_path / 'streamed')
    assert [path.suffix for path in (tmp_path / 'stores').iterdir() if not path.name.startswith('.')] == ['.images']
    assert metrics_of(tmp_path / 'streamed') == metrics_of(finished)


class Watched:
    """Stands for a number on the device; records when the host reads it."""

    def __init__(self, value, said):
        self.value, self.said = value, said

    def __array__(self, *arguments, **named):
        self.said.append('look')
        return np.asarray(self.value)


def test_the_host_looks_at_the_device_only_to_log(tmp_path, config, monkeypatch):
    said = []

    def prepare_watched(config):
        run = prepare_run(config)

        def train_steps(state, store, count):
            said.append(f'{count} steps')
            state, sums = run.train_steps(state, store, count)
            return state, {name: Watched(value, said) for name, value in sums.items()}

        return dataclasses.replace(run, train_steps=train_steps)

    monkeypatch.setattr(loop, 'prepare_run', prepare_watched)
    config.update(num_steps=9, log_every_steps=5, evaluate_every_steps=100, checkpoint_every_steps=100)
    train(config, tmp_path)
    order = [word for index, word in enumerate(said) if word != 'look' or said[index - 1] != 'look']
    assert order == ['2 steps', '2 steps', '1 steps', 'look', '2 steps', '2 steps', 'look']


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'task': 'colouring'}, "unknown task 'colouring': one of sr, denoise, jpeg"),
        ({'task': 'denoise'}, 'scale must be 1 for task denoise, not 2'),
        ({'compute_dtype': 'float8'}, "unknown compute_dtype 'float8': one of float32, bfloat16"),
        ({'model.gate': 'maybe'}, "unknown gate 'maybe': one of softmax"),
        ({'model.cardinality': 3}, 'features 8 must be a multiple of cardinality 3'),
        ({'data.patch_size': 64}, r'0.png is too small to train on.* 60 pixels.* need 136'),
        ({'data.source': 'nowhere/at/all'}, 'nowhere/at/all: there is no such folder'),
        ({'mesh.data': 5}, 'needs 5 devices'),
        ({'gate_warmup_steps': 12}, r'gate_warmup_steps must be below the 12 of config\.num_steps, not 12'),
        ({'ema_decay': 0.9, 'optimizer.name': 'schedule_free'}, 'schedule_free keeps an average of the weights itself'),
    ],
)
def test_bad_configs_are_refused_before_training(tmp_path, config, changes, message):
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=message):
        train(config, tmp_path / 'run')
    assert {path.name for path in tmp_path.glob('run/*')} <= {'.lock'}  # nothing that binds a corrected run


@pytest.mark.parametrize(
    ('task', 'channels', 'limits', 'least'),
    # The noisy input scores 20 log10(255 / 25) = 20.2 dB; both runs reached 2 dB more than is required.
    [
        ('denoise', 1, {'sigma': (25.0, 25.0)}, 27.5),
        pytest.param('jpeg', 3, {'quality': (40, 40)}, 29.0, marks=pytest.mark.slow),
    ],
)
def test_other_tasks_are_learnt(tmp_path, config, metrics_of, task, channels, limits, least):
    config.task = task
    config.model.update(scale=1, channels=channels)
    config.degradation.update(limits)
    config.update(num_steps=90, log_every_steps=30, learning_rate=5e-3)
    config.compute_dtype = 'bfloat16' if task == 'jpeg' else 'float32'
    train(config, tmp_path / 'run')
    numbers = metrics_of(tmp_path / 'run')
    assert numbers[-1]['psnr'] > least
    assert load_model(tmp_path / 'run').config.task == task


def test_training_that_cannot_go_on_stops_and_keeps_what_it_has(tmp_path, config, metrics_of):
    config.update(num_steps=100, learning_rate=1e-3, stop_after_skipped=4, checkpoint_every_steps=2, log_every_steps=2)
    config.learning_rate_drops, config.learning_rate_factor = (0.045,), 1e30  # from step 4 on no loss is finite
    with pytest.raises(
        UserError, match=r'not finite in 4 steps in a row, in batches 5 to 8: .*--replay_step=5'
    ) as stop:
        train(config, tmp_path)
    assert 'the last checkpoint, of step 4, is from before' in str(stop.value)
    assert [(line['step'], line['skipped']) for line in metrics_of(tmp_path)] == [(2, 0), (4, 0), (6, 1), (8, 2)]
    assert load_model(tmp_path).step == 4


def test_bad_degradations_are_refused(tmp_path, config):
    config.task = 'denoise'
    with pytest.raises(UserError, match='scale must be 1 for task denoise, not 2'):
        train(config, tmp_path / 'run')
    config.model.scale = 1
    config.degradation.sigma = (50.0, 25.0)
    with pytest.raises(UserError, match='range of sigma must go from low to high, not from 50'):
        train(config, tmp_path / 'run')
    config.task = 'jpeg'
    config.degradation.quality = (0, 10)
    with pytest.raises(UserError, match='JPEG quality must be a whole number from 1 to 100, not 0'):
        train(config, tmp_path / 'run')
