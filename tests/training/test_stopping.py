import jax
import pytest

from nsr_jax.errors import StoppedError, UserError
from nsr_jax.training import loop
from nsr_jax.training.checkpoints import load_model
from nsr_jax.training.loop import train
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


def test_a_run_saves_and_ends_when_its_budget_is_used_up(tmp_path, config, monkeypatch):
    seconds = iter(range(100))  # the clock advances with each call of the step
    monkeypatch.setattr(loop, 'StopRequest', lambda mesh, after: StopRequest(mesh, after, lambda: next(seconds)))
    config.update(steps_per_call=1)
    with pytest.raises(StoppedError, match='at step 5, which is saved: the same command goes on'):
        train(config, tmp_path, stop_after=3)
    assert load_model(tmp_path).step == 5
