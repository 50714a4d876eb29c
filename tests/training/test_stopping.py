import contextlib
import json

import jax
import pytest

from nsr_jax.errors import StoppedError, UserError
from nsr_jax.training import loop
from nsr_jax.training.checkpoints import Checkpoints, load_model
from nsr_jax.training.loop import train
from nsr_jax.training.run import prepare_run
from nsr_jax.training.sharding import make_mesh
from nsr_jax.training.stopping import StopRequest, parse_duration, seconds_since_start


@pytest.mark.parametrize(('text', 'seconds'), [('90s', 90), ('9m', 540), ('2h', 7200), ('1h30m', 5400), ('1m1s', 61)])
def test_durations(text, seconds):
    assert parse_duration(text, '--stop_after') == seconds


@pytest.mark.parametrize('text', ['', '9', 'm', '0s', '0h0m', '-9m', '1.5h', '30m1h', '9 m', '9M', '٩m', '9m\n'])
def test_what_is_no_duration(text):
    with pytest.raises(UserError, match=r'^--stop_after=.* must be a time above zero, such as 90s, 9m, 2h or 1h30m'):
        parse_duration(text, '--stop_after')


def test_the_clock_starts_before_the_first_import():
    assert 0.2 < seconds_since_start() < 86400


def test_a_budget_asks_to_stop_once_it_is_used_up():
    now = 0.0
    request = StopRequest(make_mesh(-1, 1, jax.device_count()), 540, clock=lambda: now)
    with request:
        assert [request.agreed() for _ in range(3)] == [False] * 3
        now = 540.0
        assert not request.agreed()  # the answer is the one of the call before
        assert request.agreed()
        now = 0.0
        assert request.agreed()


def test_a_request_to_stop_in_the_last_steps_costs_no_validation(tmp_path, config, monkeypatch):
    monkeypatch.setattr(loop, 'StopRequest', lambda mesh, after: StopRequest(mesh, after, lambda: 9))
    config.update(num_steps=2, steps_per_call=1)
    train(config, tmp_path, stop_after=3, evaluate=lambda params: (30.0, {'validation/psnr': 30.0}))
    metrics = json.loads((tmp_path / 'checkpoints' / '2' / 'metrics' / 'metrics').read_text())
    assert metrics['merit'] == 30.0


def test_a_stop_while_a_checkpoint_is_read_does_not_break_it(tmp_path, config):
    config.num_steps = 5
    train(config, tmp_path)
    run = prepare_run(config)

    def stop(*args, **options):
        raise StoppedError('now')

    with contextlib.closing(Checkpoints(tmp_path, keep=1)) as checkpoints:
        checkpoints._manager.restore = stop
        with pytest.raises(StoppedError):
            loop.first_state(config, run, checkpoints)
    assert load_model(tmp_path).step == 5
    assert not (tmp_path / 'broken_checkpoints').exists()


def test_a_run_saves_and_ends_when_its_budget_is_used_up(tmp_path, config, monkeypatch):
    seconds = iter(range(100))  # the clock advances with each call of the step
    monkeypatch.setattr(loop, 'StopRequest', lambda mesh, after: StopRequest(mesh, after, lambda: next(seconds)))
    config.update(steps_per_call=1)
    with pytest.raises(StoppedError, match='at step 5, which is saved: the same command goes on'):
        train(config, tmp_path, stop_after=3)
    assert load_model(tmp_path).step == 5
