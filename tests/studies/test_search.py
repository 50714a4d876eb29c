"""Searches: which trials there are, who runs them, and what becomes of them; merits are made up, nothing is trained."""

import csv
import json
import math
import os
import pathlib
import sys

import numpy as np
import pytest

from nsr_jax.errors import UserError
from nsr_jax.studies import search as search_module
from nsr_jax.studies.collecting import collect
from nsr_jax.studies.launching import SweepProgress, run_jobs
from nsr_jax.studies.one_run import FAILURE, RESULT
from nsr_jax.studies.search import STORAGE, Search, check_search
from nsr_jax.studies.search_results import collect_search, count_done
from nsr_jax.studies.study import claim_workdir, read_study

pytest.importorskip('optuna', reason='the extra `search` is not installed')
ROOT = pathlib.Path(__file__).parents[2]
SWEEP = """
from configs.base import check
CONFIG = 'configs/sr.py:scale=2,preset=edsr_s_nsr'
SEEDS = (4, 2)
SHARED = {'num_steps': 90, 'evaluate_every_steps': 10}
RANGES = {
    'learning_rate': ('log', 1e-4, 1e-2),
    'optimizer.gate_rate': ('uniform', 1, 3),
    'model.num_blocks': ('int', 2, 4),
    'model.gate': ('choice', 'softmax', 'uniform'),
}
def get_members():
    return [('paper', {})]
"""


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def read(tmp_path):
    """Reads the sweep with one text of it replaced by another."""

    def read_changed(old='', new=''):
        assert old in SWEEP
        (tmp_path / 'sweep.py').write_text(SWEEP.replace(old, new, 1) if old else SWEEP)
        return read_study(tmp_path / 'sweep.py')

    return read_changed


@pytest.fixture
def fake(monkeypatch):
    """Training whose merit at each validation is `merit(config, step)`."""

    def set_merit(merit):
        def train_and_score(run, workdir, after_validation):
            folder = run.folder(workdir)
            try:
                for step in range(run.config.evaluate_every_steps, run.config.num_steps + 1, 10):
                    after_validation(step, merit(run.config, step))
            except UserError as error:
                (folder / FAILURE).write_text(str(error))
                raise
            last = merit(run.config, run.config.num_steps)
            result = {'parameters': 1, 'multi_adds': 2, 'steps': 90, 'merit': last, 'scores': {'psnr': last}}
            (folder / RESULT).write_text(json.dumps(result))

        monkeypatch.setattr(search_module, 'train_and_score', train_and_score)

    return set_merit


def run(search, most):
    """Run trials one after another, as `launching.run_jobs` does in processes."""
    for job in search.take(most, lambda run: []):
        failure = None
        try:
            search.train(job.run.index)
        except UserError as error:
            failure = str(error)
        assert job.is_done() == (failure is None)
        search.record(job, failure)


def rate(config, step):
    return -abs(math.log10(config.learning_rate) + 3) + step / 1000


def values_of(search):
    return [trial.params for trial in search.trials()]


def test_values_are_in_their_ranges_and_depend_on_seed_and_number_alone(read, fake, tmp_path):
    fake(rate)
    first, again = (Search(read(), tmp_path / name, 'random') for name in ('first', 'again'))
    run(first, 7)
    run(again, 2)
    again = Search(read(), tmp_path / 'again', 'random')
    run(again, 3)  # goes on
    run(again, 3)  # is done
    values = values_of(first)
    assert values[:3] == values_of(again)
    assert all(1e-4 <= each['learning_rate'] <= 1e-2 and 1 <= each['optimizer.gate_rate'] <= 3 for each in values)
    assert {2, 3} <= {each['model.num_blocks'] for each in values} <= {2, 3, 4}
    assert {each['model.gate'] for each in values} == {'softmax', 'uniform'}
    assert len({each['learning_rate'] for each in values}) == 7
    assert np.median([each['learning_rate'] for each in values]) < 3e-3  # by its logarithm
    other = Search(read('SEEDS = (4', 'SEEDS = (5'), tmp_path / 'other', 'random')
    run(other, 1)
    assert values_of(other)[0] != values[0]
    config = first.run_of(3, values[3]).config
    assert (config.learning_rate, config.model.gate) == (values[3]['learning_rate'], values[3]['model.gate'])
    assert config.seed == 4 and config.num_steps == 90
    assert {trial.state.name for trial in first.trials()} == {'COMPLETE'}
    assert [trial.value for trial in first.trials()] == pytest.approx(
        [0.09 - abs(math.log10(each['learning_rate']) + 3) for each in values]
    )


def test_halving_stops_all_but_the_better_third_at_each_rung(read, fake, tmp_path):
    fake(rate)
    search = Search(read(), tmp_path, 'halving')
    run(search, 9)
    rungs = {step: [] for step in (10, 30)}
    for trial in search.trials():  # successive halving, written down once more
        values, goes_on = trial.intermediate_values, True
        for step, before in rungs.items():
            if goes_on:
                before.append(values[step])
                best = sorted(before, reverse=True)[: max(1, len(before) // 3)]
                goes_on = values[step] in best
                if not goes_on:
                    assert max(values) == step
        assert (trial.state.name == 'COMPLETE') == goes_on
        assert goes_on == (
            (trial.number, RESULT) in {(trial.number, path.name) for path in search.folder(trial.number).iterdir()}
        )
    states = [trial.state.name for trial in search.trials()]
    assert states.count('PRUNED') > 3 and states.count('COMPLETE') >= 1


def test_what_becomes_of_trials_is_in_the_tables(read, fake, tmp_path):
    def merit(config, step):
        return math.nan if config.model.gate == 'uniform' and step > 30 else rate(config, step)

    fake(merit)
    search = Search(read(), tmp_path, 'halving')
    run(search, 8)
    unfinished = next(search.take(9, lambda run: []))
    text = collect_search(search)
    assert text == (tmp_path / 'table.md').read_text(encoding='utf-8')
    contents = json.loads((tmp_path / 'table.json').read_text(), parse_constant=pytest.fail)
    trials = {each['trial']: each for each in contents['trials']}
    outcomes = [each['outcome'] for each in contents['trials']]
    assert outcomes == sorted(outcomes, key=['done', 'stopped', 'failed', 'not done yet'].index)
    assert set(outcomes) == {'done', 'stopped', 'failed', 'not done yet'}
    assert trials[unfinished.run.member]['outcome'] == 'not done yet'
    merits = [each['merit'] for each in contents['trials'] if each['outcome'] == 'done']
    assert merits == sorted(merits, reverse=True) and len(merits) == count_done(search)
    assert '| failed: it diverged: the validation of step 40 gives no number | 30 |' in text
    assert f'| {trials["trial_0"]["values"]["learning_rate"]:.4g} |' in text
    rows = {row['trial']: row for row in csv.DictReader((tmp_path / 'table.csv').open())}
    assert rows.keys() == trials.keys()
    assert float(rows['trial_0']['learning_rate']) == trials['trial_0']['values']['learning_rate']
    assert (tmp_path / 'trials.png').read_bytes().startswith(b'\x89PNG')
    assert (tmp_path / 'table.html').read_text().count('<img ') == 1


def test_launchers_share_a_workdir_and_take_over_from_a_dead_one(read, fake, tmp_path):
    fake(rate)
    one, other = (Search(read(), tmp_path, 'random') for _ in range(2))
    first = next(one.take(3, lambda run: []))
    second = next(other.take(3, lambda run: []))
    assert (first.run.index, second.run.index) == (0, 1)
    (claim,) = first.keeps_open
    inherited = os.dup(claim)  # as by its process
    one._claims[0].close()  # the launcher dies
    assert next(other.take(3, lambda run: [])).run.index == 2
    assert next(other.take(3, lambda run: []), None) is None
    os.close(inherited)  # its process dies
    assert next(other.take(3, lambda run: [])).run.index == 0


def test_a_trial_that_was_killed_while_it_was_drawn_gets_the_same_values(read, fake, tmp_path):
    fake(rate)
    expected = Search(read(), tmp_path / 'expected', 'random')
    run(expected, 1)
    search = Search(read(), tmp_path / 'killed', 'random')
    search._trials.ask().suggest_float('learning_rate', 1e-4, 1e-2, log=True)
    run(search, 1)
    found, wanted = values_of(search)[0], values_of(expected)[0]
    assert found.keys() == wanted.keys()
    assert all(found[name] == wanted[name] for name in found if name != 'learning_rate')


def test_values_that_do_not_fit_together_are_a_row(read, fake, tmp_path):
    fake(rate)
    search = Search(
        read("'model.num_blocks': ('int', 2, 4)", "'model.features': ('choice', 64, 24)"), tmp_path, 'random'
    )
    check_search(read("'model.num_blocks': ('int', 2, 4)", "'model.cardinality': ('int', 1, 2)"), 'random', 'sweep.py')
    run(search, 4)
    failed = [trial for trial in search.trials() if trial.state.name == 'FAIL']
    assert {trial.params['model.features'] for trial in failed} == {24}  # which 16 parts do not divide
    assert 'features' in (search.folder(failed[0].number) / FAILURE).read_text()


CHILD = """
import json, sys, pathlib
workdir, number = pathlib.Path(sys.argv[1]), int(sys.argv[2])
if number == 1:
    sys.exit(3)
from nsr_jax.studies import search
from nsr_jax.studies.study import read_study
def fake(run, workdir, after_validation):
    after_validation(10, 1.0)
    result = {'parameters': 1, 'multi_adds': 2, 'steps': 90, 'merit': 5.0, 'scores': {}}
    (run.folder(workdir) / 'result.json').write_text(json.dumps(result))
search.train_and_score = fake
search.Search(read_study(workdir.parent / 'sweep.py'), workdir, 'random').train(number)
"""


def test_processes_that_crash_are_failures(read, tmp_path):
    workdir = tmp_path / 'a {run} #1'
    search = Search(read(), workdir, 'random')
    jobs = search.take(2, lambda run: [sys.executable, '-c', CHILD, str(workdir), str(run.index)])
    failures = run_jobs(jobs, workdir, SweepProgress(2, 180, 2, 180), at_a_time=2, ended=search.record)
    assert failures == [f'trial_1, seed 4: it ended with exit code 3; {workdir}/trial_1/seed_4/log.txt says more']
    assert [trial.state.name for trial in search.trials()] == ['COMPLETE', 'FAIL']
    assert search.trials()[0].value == 5
    assert not search._claims


@pytest.mark.parametrize(
    ('old', 'new', 'message'),
    [
        ("('log', 1e-4, 1e-2)", "('log', 1e-2, 1e-4)", 'learning_rate: 0.01 must be below 0.0001'),
        ("('log', 1e-4, 1e-2)", "('log', 0, 1e-2)", 'learning_rate: a range of logarithms begins above 0, not at 0.0'),
        ("('log', 1e-4, 1e-2)", "('normal', 0, 1)", "learning_rate must be ('uniform', low, high), ('log', low, high)"),
        ("('log', 1e-4, 1e-2)", "('log', 1e-4)", 'learning_rate must be'),
        ("('log', 1e-4, 1e-2)", '1e-4', 'learning_rate must be'),
        ("('log', 1e-4, 1e-2)", "('log', 1e-4, float('inf'))", 'log takes finite numbers'),
        ("('int', 2, 4)", "('int', 2, 4.5)", 'int takes whole numbers'),
        ("('choice', 'softmax', 'uniform')", "('choice',)", 'a choice is of numbers, texts or booleans, at least one'),
        ("('choice', 'softmax', 'uniform')", "('choice', (1,))", 'a choice is of numbers, texts or booleans'),
        ("    'learning_rate'", "    'rate'", "a config has no field 'rate'"),
        ("    'learning_rate'", "    'seed'", 'seed is no field to override'),
        ("('log', 1e-4, 1e-2)", "('uniform', -1, 1)", 'learning_rate -1.0: config.learning_rate must be a'),
        ("('int', 2, 4)", "('uniform', 2, 4)", 'model.num_blocks cannot be 2.0'),
        ("('choice', 'softmax', 'uniform')", "('choice', 'softmax', 'soft')", 'soft'),
        ("'evaluate_every_steps': 10", "'evaluate_every_steps': 90", 'evaluate_every_steps 90 must be below num_steps'),
        ('RANGES', 'RANGE', 'has no RANGES, the fields to search over'),
        ("RANGES = {", "RANGES = {}\nOTHER = {", 'RANGES must be a dict of fields, at least one'),
    ],
)  # fmt: skip
def test_a_search_that_makes_no_sense_gets_one_line(read, old, new, message):
    with pytest.raises(UserError) as caught:
        check_search(read(old, new), 'halving', 'sweep.py')
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_workdir_holds_one_search(read, tmp_path):
    search, sweep = tmp_path / 'search', tmp_path / 'members'
    Search(read(), search, 'random')
    claim_workdir(sweep, read())
    changed = read("('int', 2, 4)", "('int', 2, 5)")
    for study, workdir, method, message in (
        (read(), search, 'halving', 'holds a search by random from paper .* not a search by halving'),
        (changed, search, 'random', 'model.num_blocks int 2 to 4.* not .*model.num_blocks int 2 to 5'),
        (read("'num_steps': 90", "'num_steps': 80"), search, 'random', 'holds another sweep: its member paper has'),
        (read(), sweep, 'random', 'holds no search, not a search by random'),
    ):
        with pytest.raises(UserError, match=message):
            Search(study, workdir, method)
    with pytest.raises(UserError, match=r'holds a search by random .* not a sweep over members'):
        claim_workdir(search, read())
    with pytest.raises(UserError, match=r'holds a search by random .*: give its --search with --collect'):
        collect(read(), search)
    assert not (sweep / STORAGE).exists()


def test_a_claim_that_cannot_be_locked_is_named(read, tmp_path):
    search = Search(read(), tmp_path, 'random')
    (search.folder(0) / '.claim').mkdir(parents=True)
    with pytest.raises(UserError, match=r'trial_0/seed_4/\.claim cannot be locked: Is a directory'):
        next(search.take(1, lambda run: []))


def test_damaged_trials_are_named(read, tmp_path):
    Search(read(), tmp_path / 'run', 'random')
    (tmp_path / 'run' / STORAGE).write_bytes(b'no database' * 1000)
    with pytest.raises(UserError, match=r'search.sqlite3 cannot be read or written as the trials of a search: '):
        Search(read(), tmp_path / 'run', 'random')


def test_a_trial_that_is_not_there(read, fake, tmp_path):
    fake(rate)
    search = Search(read(), tmp_path, 'random')
    run(search, 1)
    search.train(0)  # has ended before
    with pytest.raises(UserError, match='--index=1: the 1 trials of this search so far begin with 0'):
        search.train(1)


def test_optuna_is_an_extra(read, monkeypatch):
    monkeypatch.setitem(sys.modules, 'optuna', None)
    with pytest.raises(UserError, match=r'--search needs the package optuna: pip install "nsr-jax\[search\]"'):
        check_search(read(), 'random', 'sweep.py')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--search=random'], '--search=random needs --trials'),
        (['--trials=3'], '--trials=3 needs --search=random or --search=halving'),
        (['--search=random', '--trials=3', '--timed'], '--timed needs --list, without --search'),
        (['--search=random', '--collect'], 'holds no search'),
        (['--search=random', '--index=0'], 'holds no search'),
        (['--search=random', '--trials=3', '--workdir='], '--workdir is empty'),
        (['--search=tpe', '--trials=3'], 'one of <random|halving>'),
    ],
)
def test_the_command_refuses_mistakes_before_anything_starts(read, commands, tmp_path, arguments, message):
    read()
    code, error, output = commands('nsr_jax.sweep', tmp_path / 'sweep.py', f'--workdir={tmp_path / "new"}', *arguments)
    assert (code, output) == (2, b'') and message in error.splitlines()[-1]
    assert not (tmp_path / 'new').exists()
