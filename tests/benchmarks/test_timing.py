"""Taking turns: what is timed, in which order, what is dropped; and ratios of times that are known."""

import pytest

from benchmarks import timing
from benchmarks.timing import Candidate, Measurement, fastest, ratio, take_turns


class Clock:
    """Seconds that pass only where a test says so."""

    def __init__(self, monkeypatch):
        self.now, self.log = 0.0, []
        monkeypatch.setattr(timing.time, 'perf_counter', lambda: self.now)

    def candidate(self, name, durations, **fields):
        """Takes `durations[n]` seconds in its n-th run, and 100 to prepare each."""
        durations = iter(durations)

        def prepare(seed):
            self.now += 100
            return seed

        def run(seed):
            self.log.append((name, seed))
            self.now += next(durations) / 2
            return name, seed

        def wait(value):
            if isinstance(value, tuple):  # results, not arguments
                self.now += self.pending

        self.pending = 0.5
        return Candidate(name, 'group', prepare=prepare, run=run, wait=wait, **fields)


def measured(seconds, name='a', **fields):
    candidate = Candidate(name, 'group', prepare=None, run=None, wait=None, **fields)
    return Measurement(candidate, seconds=list(seconds))


def test_ratio_is_of_the_same_round():
    # The machine is ten times slower in the last rounds; the medians' ratio would be 4 / 4.
    ours, floor = measured([3, 4, 3, 30, 30]), measured([1, 4, 1, 10, 20])
    assert ratio(ours, floor) == timing.Spread(median=3, lowest=1, highest=3)
    assert ratio(floor, floor) == timing.Spread(1, 1, 1)
    with pytest.raises(ValueError):
        ratio(ours, measured([1, 2]))


def test_the_fastest_has_the_lowest_median_and_has_not_failed():
    noisy, steady, failed = measured([1, 9, 9]), measured([5, 5, 5]), measured([])
    assert fastest([noisy, failed, steady]) is steady
    assert fastest([failed]) is None


def test_compilation_is_what_the_first_run_took_longer():
    each = measured([2, 3, 4], calls=10)
    each.first_seconds = 37.0
    assert each.compile_seconds == 7
    each.first_seconds = 29.0
    assert each.compile_seconds == 0


def test_turns(monkeypatch):
    clock = Clock(monkeypatch)
    first = clock.candidate('first', [9, 1, 3, 5, 7])
    second = clock.candidate('second', [19, 2, 4, 6, 8], calls=4)
    measurements = take_turns([first, second], rounds=3)
    # Seeds are fresh each round, but for the checked 0.
    rounds = [clock.log[start : start + 2] for start in range(0, 10, 2)]
    assert [sorted(turns) for turns in rounds] == [
        [('first', seed), ('second', seed)] for seed in (0, 0, 1, 2, 3)
    ]  # fmt: skip
    # Half of each duration and the waiting for the device are timed; preparing is not.
    assert measurements[0].first_seconds == 5
    assert measurements[0].seconds == [2, 3, 4]
    assert measurements[1].first_seconds == 10
    assert measurements[1].seconds == [2.5 / 4, 3.5 / 4, 4.5 / 4]


def test_each_round_has_an_order_of_its_own(monkeypatch):
    clock = Clock(monkeypatch)
    take_turns([clock.candidate(name, [1] * 8) for name in 'abcde'], rounds=6)
    orders = [''.join(name for name, _ in clock.log[start : start + 5]) for start in range(0, 40, 5)]
    assert orders[:2] == ['abcde'] * 2  # compiled and warmed up
    assert len(set(orders)) > 4
    assert len({order[0] for order in orders}) > 2


def test_a_wrong_result_is_not_timed_and_the_others_go_on(monkeypatch):
    clock = Clock(monkeypatch)

    def refuse(results):
        raise ArithmeticError('wrong: by 3.0e-01')

    errors = iter([0.25, 0.125])
    right = clock.candidate('right', [1] * 5, check=lambda results: next(errors))
    measurements = take_turns([clock.candidate('wrong', [1], check=refuse), right], rounds=3)
    assert measurements[0].failure == 'ArithmeticError: wrong: by 3.0e-01'
    assert not measurements[0].seconds
    assert len(measurements[1].seconds) == 3
    assert measurements[1].error == 0.25
    assert clock.log.count(('wrong', 0)) == 1


def test_the_warm_up_is_checked_too(monkeypatch):
    clock = Clock(monkeypatch)
    answers = iter([0.0, ArithmeticError('garbage from the second run on')])

    def check(results):
        answer = next(answers)
        if isinstance(answer, ArithmeticError):
            raise answer
        return answer

    (each,) = take_turns([clock.candidate('late', [1, 1], check=check)], rounds=3)
    assert 'garbage' in each.failure
    assert not each.seconds


def test_a_candidate_that_cannot_run_is_named_and_a_defect_is_not_hidden(monkeypatch):
    clock = Clock(monkeypatch)

    def fail(error):
        def run(seed):
            raise error

        return Candidate('broken', 'group', prepare=int, run=run, wait=lambda value: None)

    broken = [fail(RuntimeError('out of\n memory')), fail(ValueError('channels must be multiples of 16'))]
    *broken, working = take_turns([*broken, clock.candidate('works', [1] * 5)], rounds=3)
    assert [each.failure for each in broken] == [
        'RuntimeError: out of memory',
        'ValueError: channels must be multiples of 16',
    ]
    assert len(working.seconds) == 3
    with pytest.raises(TypeError):
        take_turns([fail(TypeError('a mistake in the benchmark'))], rounds=3)
