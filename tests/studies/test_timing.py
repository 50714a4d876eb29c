"""The times of a sweep's members: measured once for each config and kind of device."""

import pathlib

import pytest

from nsr_jax.errors import UserError
from nsr_jax.studies import timing
from nsr_jax.studies.study import read_study

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def study(monkeypatch):
    monkeypatch.chdir(ROOT)
    return lambda *changes: read_study('configs/sweeps/efficiency.py', changes=changes)


def test_no_member_is_timed_twice(study, tmp_path, monkeypatch):
    timed = []

    def fake(config):
        timed.append((config.model.groups, config.model.width_multiplier))
        return float(len(timed))

    monkeypatch.setattr(timing, 'seconds_per_step', fake)
    assert timing.time_members(study(), tmp_path) == {'plain': 1, 'half': 2, 'small': 3}
    assert timed == [(1, 2), (2, 1), (1, 1)]
    assert timing.time_members(study(), tmp_path) == {'plain': 1, 'half': 2, 'small': 3}
    assert timing.time_members(study('batch_size=8'), tmp_path) == {'plain': 4, 'half': 5, 'small': 6}
    assert timing.time_members(study(), None) == {'plain': 7, 'half': 8, 'small': 9}
    (tmp_path / timing.TIMES).write_text('[1]')
    with pytest.raises(UserError, match='remove it to time the members again'):
        timing.time_members(study(), tmp_path)


class Timed:
    """Stands for a run whose first call takes 100 s, for compiling, and each step half a second."""

    def __init__(self, clock):
        self.clock, self.calls, self.images = clock, [], self

    def create_state(self):
        return 0

    def open_feed(self, step):
        return self

    def take(self, count):
        return count

    def close(self):
        self.calls.append('closed')

    def train_steps(self, state, regions, count):
        assert regions == count and state == sum(self.calls)
        self.clock[0] += 0.5 * count + (0 if self.calls else 100)
        self.calls.append(int(count))
        return state + count, 0.0


@pytest.mark.parametrize(('steps_per_call', 'calls'), [(10, [1, 5, 'closed']), (2, [1, 2, 'closed'])])
def test_compiling_is_not_timed(study, monkeypatch, steps_per_call, calls):
    clock = [0.0]
    run = Timed(clock)
    monkeypatch.setattr(timing, 'prepare_run', lambda config: run)
    monkeypatch.setattr(timing.time, 'perf_counter', lambda: clock[0])
    config = study(f'steps_per_call={steps_per_call}').runs[0].config
    assert timing.seconds_per_step(config) == pytest.approx(0.5)
    assert run.calls == calls
