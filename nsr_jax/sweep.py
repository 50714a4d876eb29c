"""Train and compare the members of a sweep, each with several seeds.

    python -m nsr_jax.sweep configs/sweeps/gates.py --workdir=runs/gates

Each member with each seed is a training run like train.py's in WORKDIR/MEMBER/seed_N, scored on the validation images
at its end. Runs that are done are not repeated, and a run that was stopped resumes. If a run fails, the others go on;
the failed one is named at the end, and the exit code is 1. At the end, and whenever --collect is given,
table.{md,html,csv,json}, scores.png and differences.png show the results so far. `--index=3` starts the fourth run
only, as a task of a Slurm array does. `--list` prints the members and their costs, and with --timed the hours that they
would take here.

    python -m nsr_jax.sweep configs/sweeps/search_rate.py --workdir=runs/rate --search=halving --trials=30

A search trains trials instead of the members: the first member, with values drawn from the RANGES of the file. The same
command goes on with a search, and several of them may share a workdir. `--search=halving` stops trials whose
validations are not among the better ones. table.{md,html,csv,json} and trials.png show all trials.
"""

import pathlib
import sys
from collections.abc import Mapping, Sequence

from absl import flags, logging

from nsr_jax import command_line, markdown, project, streams
from nsr_jax.errors import UserError, listed
from nsr_jax.evaluation.validation import open_held_out
from nsr_jax.models.build import build_network
from nsr_jax.models.cost import count_multi_adds, count_parameters
from nsr_jax.paths import local_path
from nsr_jax.studies.collecting import collect
from nsr_jax.studies.launching import SweepProgress, run_all, run_jobs
from nsr_jax.studies.one_run import stopped_by_sigterm, train_and_score
from nsr_jax.studies.search import METHODS, Search, check_search
from nsr_jax.studies.search_results import collect_search, count_done, count_ended
from nsr_jax.studies.study import RECORD, Study, StudyRun, claim_workdir, describe, read_study
from nsr_jax.studies.timing import time_members
from nsr_jax.training.run import check_names

WORKDIR = flags.DEFINE_string('workdir', None, 'Folder for all runs of the sweep, and for its tables.')
INDEX = flags.DEFINE_integer('index', None, 'Start one run only, in this process: its number in --list.')
JOBS = flags.DEFINE_integer('jobs', 1, 'How many runs this machine trains at a time.', lower_bound=1)
LIST = flags.DEFINE_bool('list', False, 'Print the members of the sweep, and run nothing.')
TIMED = flags.DEFINE_bool('timed', False, 'With --list: time a few steps of each member, and print expected hours.')
COLLECT = flags.DEFINE_bool('collect', False, 'Write the tables of the finished runs, and run nothing.')
SCALE = flags.DEFINE_enum('scale', 'full', ['full', 'laptop'], "laptop: apply the sweep's LAPTOP overrides.")
SEARCH = flags.DEFINE_enum(
    'search', None, METHODS, 'Search over the RANGES of the sweep; halving stops poor trials early.'
)
TRIALS = flags.DEFINE_integer('trials', None, 'With --search: number of trials in the workdir.', lower_bound=1)
SET = flags.DEFINE_multi_string('set', [], 'NAME=VALUE: override a field of the configs of all members.')


def main(argv: Sequence[str]) -> int | None:
    """Check everything, then do what the flags say."""
    if len(argv) != 2:
        raise UserError(f'name one sweep, such as configs/sweeps/gates.py, not {" ".join(argv[1:]) or "none"}')
    if sum((INDEX.value is not None, LIST.value, COLLECT.value)) > 1:
        raise UserError('--index, --list and --collect exclude one another')
    if TIMED.value and (not LIST.value or SEARCH.value is not None):
        raise UserError('--timed needs --list, without --search')
    if TRIALS.value is not None and SEARCH.value is None:
        raise UserError(f'--trials={TRIALS.value} needs --search={" or --search=".join(METHODS)}')
    path = local_path(project.find_config(argv[1], project.SWEEPS), 'the sweep')
    study = read_study(path, laptop=SCALE.value == 'laptop', changes=SET.value)
    for run in study.runs[: len(study.members)]:
        _check(run, path)
    workdir = None if WORKDIR.value is None else pathlib.Path(local_path(WORKDIR.value, '--workdir'))
    if SEARCH.value is not None:
        return _search(study, workdir, SEARCH.value, path)
    if LIST.value:
        streams.print_text(_list(study, time_members(study, workdir) if TIMED.value else {}))
        return None
    if workdir is None:
        raise UserError('--workdir must be given')
    if COLLECT.value:
        logging.info('%s', collect(study, workdir))
        return None
    if INDEX.value is not None:
        if not 0 <= INDEX.value < len(study.runs):
            raise UserError(f'--index={INDEX.value}: the runs of this sweep are 0 to {len(study.runs) - 1}')
        claim_workdir(workdir, study)
        with stopped_by_sigterm():
            run = study.runs[INDEX.value]
            train_and_score(run, workdir, trained_like=study.trained_like(run))
        return None
    open_held_out(study.runs[0].config)  # raises now if its images are missing
    claim_workdir(workdir, study)
    failures = run_all(study.runs, workdir, _command, jobs=JOBS.value)
    logging.info('written to %s\n\n%s', workdir, collect(study, workdir))
    if failures:
        logging.error('%s', listed(failures, 'runs failed'))
    return 1 if failures else None


def _search(study: Study, workdir: pathlib.Path | None, method: str, path: str) -> int | None:
    """Do what the flags say with trials in the place of members."""
    check_search(study, method, path)
    if LIST.value:
        streams.print_text(_list_ranges(study))
        return None
    if workdir is None:
        raise UserError('--workdir must be given')
    if (COLLECT.value or INDEX.value is not None) and not (workdir / RECORD).exists():
        raise UserError(f'{workdir} holds no search')
    if COLLECT.value:
        logging.info('%s', collect_search(Search(study, workdir, method)))
        return None
    if INDEX.value is not None:
        with stopped_by_sigterm():
            Search(study, workdir, method).train(INDEX.value)
        return None
    if TRIALS.value is None:
        raise UserError(f'--search={method} needs --trials, such as --trials=30')
    if open_held_out(study.runs[0].config) is None:
        raise UserError('there are no validation images to compare trials by: see config.validation')
    search = Search(study, workdir, method)
    steps, left = study.runs[0].config.num_steps, TRIALS.value - count_ended(search)
    progress = SweepProgress(TRIALS.value, TRIALS.value * steps, max(left, 0), max(left, 0) * steps)
    jobs = search.take(TRIALS.value, _command)
    failures = run_jobs(jobs, workdir, progress, at_a_time=JOBS.value, ended=search.record)
    logging.info('written to %s\n\n%s', workdir, collect_search(search))
    if failures:
        logging.warning('%s', listed(failures, 'trials failed'))
    return 1 if count_ended(search) and not count_done(search) else None


def _check(run: StudyRun, path: str) -> None:
    try:
        check_names(run.config)
    except UserError as error:
        raise UserError(f'{path}, member {run.member}: {error}') from error


def _command(run: StudyRun) -> list[str]:
    """This command, for one run only."""
    return [sys.executable, '-m', 'nsr_jax.sweep', *sys.argv[1:], f'--index={run.index}']


def _list(study: Study, seconds: Mapping[str, float]) -> str:
    """The members, with the hours that they train for if the seconds of their steps are known."""
    rows, total = [], 0.0
    for run in study.runs[: len(study.members)]:
        network = build_network(run.config.model)
        multi_adds = f'{count_multi_adds(network).total / 1e9:.2f}'
        size = f'{count_parameters(network):,}', multi_adds, f'{run.config.num_steps:,}'
        numbers = [str(index) for index, other in enumerate(study.runs) if other.member == run.member]
        hours = [seconds[run.member] * run.config.num_steps / 3600] if seconds else []
        total += sum(hours) * len(study.seeds)
        cells = [*size, *(f'{each:.3g}' for each in hours), ' '.join(numbers)]
        rows.append([run.member, describe(study.members[run.member]), *cells])
    columns = ['parameters', 'G Multi-Adds', 'steps', *(['hours a seed'] if seconds else []), '--index by seed']
    text = markdown.table(['member', 'overrides', *columns], rows, left=2)
    return text + (f'\nAll {len(study.runs)} runs train for about {total:.3g} hours here.\n' if seconds else '')


def _list_ranges(study: Study) -> str:
    """The fields of a search, with the values of the first member."""
    first, config = next(iter(study.members)), study.runs[0].config
    network = build_network(config.model)
    rows = [[name, each, study.value_of(first, name)] for name, each in study.ranges.items()]
    return (
        markdown.table(['field', 'range', first], rows, left=3)
        + f'\n{first} has {count_parameters(network):,} parameters and {count_multi_adds(network).total / 1e9:.2f} G '
        f'Multi-Adds, and takes {config.num_steps:,} steps, with seed {config.seed}; so does each trial.\n'
    )


def start() -> None:
    """Run this command. Only with --index or --timed does this process compute."""
    command_line.run(main, computes=lambda: INDEX.value is not None or TIMED.value)


if __name__ == '__main__':
    start()
