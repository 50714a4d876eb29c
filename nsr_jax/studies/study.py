"""Read a sweep file: a config, seeds, and members, each of which overrides some fields of that config.

    from configs.base import check                          raises ValueError for a config that makes no sense

    CONFIG = 'configs/sr.py:scale=2,preset=edsr_s_nsr'      as for train.py's --config
    SEEDS = (0, 1, 2)                                       each member is trained once with each
    SHARED = {'num_steps': 2_500}                           overrides for all members; optional
    LAPTOP = {'num_steps': 500}                             overrides for all members with --scale=laptop; optional
    AXIS = 'model.cardinality'                              of the plot: a field, parameters or multi_adds; optional
    RANGES = {'learning_rate': ('log', 1e-4, 1e-2)}         what --search draws, as in ranges.py; optional

    def get_members():                                      the others are compared with the first one
        return [('softmax', {}), ('uniform', {'model.gate': 'uniform'})]

A member's own overrides come after SHARED and LAPTOP, and those of the command line after all others.
"""

import ast
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import re
import runpy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections

from nsr_jax import project
from nsr_jax.atomic_files import make_output_folder, write_atomically
from nsr_jax.errors import UserError
from nsr_jax.studies.ranges import Range, parse_ranges

RECORD = 'sweep.json'
# Sizes of a network, which may be the axis of a plot, with their labels.
SIZES = {'parameters': 'parameters', 'multi_adds': 'Multi-Adds for a 1280x720 output'}
_NAME = re.compile(r'\w[\w.+-]*')  # a member's name is also a folder's


@dataclasses.dataclass(frozen=True)
class StudyRun:
    """One member with one seed: an ordinary training run.

    Attributes:
        index: among the runs of the sweep.
        member: its name.
        seed: of weights and batches.
        config: the whole config.
    """

    index: int
    member: str
    seed: int
    config: ml_collections.ConfigDict

    def folder(self, workdir: pathlib.Path) -> pathlib.Path:
        """Its own workdir."""
        return workdir / self.member / f'seed_{self.seed}'

    def __str__(self) -> str:
        return f'{self.member}, seed {self.seed}'


@dataclasses.dataclass(frozen=True)
class Study:
    """A sweep file, with the overrides of the command line.

    Attributes:
        name: of the file, without its ending.
        config: its CONFIG.
        members: by name, a member's own overrides: fields with their values.
        all_changes: by name, all overrides of a member, with those of SHARED, LAPTOP and the command line.
        seeds: its SEEDS.
        runs: all members with the first seed, then all with the next, so that the first comparison is complete early.
        check: raises `ValueError` for a config that makes no sense.
        ranges: its RANGES, by field; empty if it has none.
        axis: its AXIS; '' if it has none.
    """

    name: str
    config: str
    members: Mapping[str, Mapping[str, Any]]
    all_changes: Mapping[str, Mapping[str, Any]]
    seeds: Sequence[int]
    runs: Sequence[StudyRun]
    check: Callable[[ml_collections.ConfigDict], None] = lambda config: None
    ranges: Mapping[str, Range] = dataclasses.field(default_factory=dict)
    axis: str = ''

    def value_of(self, member: str, field: str) -> Any:
        """The value of a field in the config of a member."""
        section: Any = next(run.config for run in self.runs if run.member == member)
        for part in field.split('.'):
            section = section[part]
        return section

    def trained_like(self, run: StudyRun) -> list[StudyRun]:
        """The other runs that are trained as `run` is: their configs differ in `evaluation` alone."""
        training = _training_fields(run.config)
        return [each for each in self.runs if each != run and _training_fields(each.config) == training]

    def changed(self, changes: Mapping[str, Any], where: str) -> ml_collections.ConfigDict:
        """The config of the first run with other values of some fields.

        Args:
            changes: fields with their values.
            where: they come from, for error messages.

        Raises:
            UserError: a field does not exist, or its value has the wrong type or makes no sense.
        """
        config = self.runs[0].config.copy_and_resolve_references().lock()
        for name, value in changes.items():
            _override(config, name, value, where)
        _check(self.check, config, where)
        return config


def read_study(path: str | os.PathLike, *, laptop: bool = False, changes: Sequence[str] = ()) -> Study:
    """Read a sweep file and make the config of each run.

    Args:
        path: of the file, whose code is run.
        laptop: whether the file's `LAPTOP` applies.
        changes: overrides for all members, each as 'NAME=VALUE'.

    Raises:
        UserError: the file does not exist, fails when it is run or lacks something; it overrides a field that does
            not exist, or with a value of the wrong type or that makes no sense; two members have the same name or the
            same config; it has no LAPTOP, and `laptop` is set.
    """
    definition = _run_file(path)
    for name in ('CONFIG', 'SEEDS', 'get_members', 'check'):
        if name not in definition:
            raise UserError(f'{path} is no sweep: it lacks {name}')
    if laptop and 'LAPTOP' not in definition:
        raise UserError(f'--scale=laptop: {path} has no LAPTOP, the overrides that it would apply')
    for name in ('SHARED', 'LAPTOP'):
        if not isinstance(definition.get(name, {}), dict):
            raise UserError(f'{path}: {name} is a dict of overrides, not {definition[name]!r}')
    ranges = parse_ranges(definition['RANGES'], f'{path}: RANGES') if 'RANGES' in definition else {}
    members = _check_members(path, _call(path, definition['get_members']))
    seeds = _check_seeds(path, definition['SEEDS'])
    shared = {**definition.get('SHARED', {}), **(definition.get('LAPTOP', {}) if laptop else {})}
    configs, all_changes = {}, {}
    for member, own in members.items():
        configs[member] = _make_config(definition['CONFIG'], f'{path}: CONFIG')
        given = {**shared, **own}
        for name, value in given.items():
            _override(configs[member], name, value, f'{path}, member {member}')
        for change in changes:
            name, value = _parse_change(configs[member], change)
            _override(configs[member], name, value, f'--set {change}')
            given[name] = value
        all_changes[member] = given
        _check(definition['check'], configs[member], f'{path}, member {member}')
    texts = {member: config.to_json(sort_keys=True) for member, config in configs.items()}
    for one, other in itertools.combinations(members, 2):
        if texts[one] == texts[other]:
            raise UserError(f'{path}: members {one} and {other} have the same config')
    runs = [
        StudyRun(index, member, seed, _with_seed(configs[member], seed))
        for index, (seed, member) in enumerate(itertools.product(seeds, members))
    ]
    return Study(
        name=pathlib.Path(path).stem,
        config=definition['CONFIG'],
        members=members,
        all_changes=all_changes,
        seeds=seeds,
        runs=runs,
        check=definition['check'],
        ranges=ranges,
        axis=_check_axis(path, definition.get('AXIS', ''), runs[0].config),
    )


def claim_workdir(workdir: pathlib.Path, study: Study, search: str = '') -> None:
    """Record in the workdir which sweep it holds. Members and seeds may be added later, but no member may change.

    Args:
        search: what is searched and how, in words; '' for a sweep over members.

    Raises:
        UserError: it holds another sweep, or cannot be written to.
    """
    path = make_output_folder(workdir) / RECORD
    members = {
        member: {'sha256': _digest([study.config, changes]), 'overrides': changes}
        for member, changes in study.all_changes.items()
    }
    held = read_record(path)
    if held is not None:
        if held['sweep'] != study.name:
            raise UserError(f'{workdir} holds the sweep {held["sweep"]}, not {study.name}: choose another --workdir')
        if (there := held.get('search', '')) != search:
            raise UserError(f'{workdir} holds {there or "no search"}, not {search or "a sweep over members"}')
        for member in study.members:
            known = held['members'].get(member)
            if known is not None and known['sha256'] != members[member]['sha256']:
                raise UserError(
                    f'{workdir} holds another sweep: its member {member} has {_words(known["overrides"])}, '
                    f'not {_words(study.all_changes[member])}'
                )
        members = {**held['members'], **members}
    record = {'sweep': study.name, 'members': members} | ({'search': search} if search else {})
    if record != held:
        write_atomically(path, json.dumps(record, indent=1) + '\n')


def read_record(path: pathlib.Path) -> dict[str, Any] | None:
    """The record that `claim_workdir` wrote; None if there is none. Raises `UserError` if it cannot be read."""
    try:
        record = json.loads(path.read_bytes())
        assert all(each['sha256'] and isinstance(each['overrides'], dict) for each in record['members'].values())
        assert isinstance(record['sweep'], str) and isinstance(record.get('search', ''), str)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError, RecursionError) as error:
        raise UserError(f'{path} cannot be read as the record of a sweep') from error
    return record


def _training_fields(config: ml_collections.ConfigDict) -> dict[str, Any]:
    return {name: value for name, value in config.to_dict().items() if name != 'evaluation'}


def _run_file(path: str | os.PathLike) -> dict[str, Any]:
    """The names that a file defines."""
    if not os.path.isfile(path):
        raise UserError(f'{path}: no such file; the sweeps of the project are in configs/sweeps/')
    return _call(path, runpy.run_path, os.fspath(path))


def _call(path: str | os.PathLike, function: Any, *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except Exception as error:  # of the user's own code
        raise UserError(f'{path}: {type(error).__name__}: {error}') from error


def _make_config(text: Any, where: str) -> ml_collections.ConfigDict:
    try:
        path, _, argument = project.find_config(str(text)).partition(':')
    except UserError as error:
        raise UserError(f'{where}: {error}') from error
    if not os.path.isfile(path):
        raise UserError(f'{where}: {path}: no such file; the configs of the project are in configs/')
    try:
        function = runpy.run_path(path)['get_config']
        config = function(argument) if argument else function()
        return ml_collections.ConfigDict(config).lock()
    except Exception as error:
        raise UserError(f'{where} {text}: {type(error).__name__}: {error}') from error


def _with_seed(config: ml_collections.ConfigDict, seed: int) -> ml_collections.ConfigDict:
    config = config.copy_and_resolve_references()
    config.seed = seed
    return config.lock()


def _check(check: Callable[[ml_collections.ConfigDict], None], config: ml_collections.ConfigDict, where: str) -> None:
    try:
        check(config)
    except (ValueError, TypeError) as error:
        raise UserError(f'{where}: {error}') from error


def _check_members(path: str | os.PathLike, pairs: Any) -> dict[str, dict[str, Any]]:
    members: dict[str, dict[str, Any]] = {}
    for pair in pairs if isinstance(pairs, list | tuple) else ():
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[1], dict)):
            raise UserError(f'{path}: a member is a pair of a name and a dict of overrides, not {pair!r}')
        name, overrides = pair
        if not (isinstance(name, str) and _NAME.fullmatch(name)):
            raise UserError(f'{path}: a member is called by letters, digits, _ . + and -, not {name!r}')
        if name in members:
            raise UserError(f'{path}: two members are called {name}')
        members[name] = overrides
    if not members:
        raise UserError(f'{path}: get_members() must return a list of pairs, name and overrides; not {pairs!r}')
    return members


def _check_seeds(path: str | os.PathLike, seeds: Any) -> tuple[int, ...]:
    is_list = isinstance(seeds, list | tuple) and bool(seeds)
    if (
        not is_list
        or any(type(seed) is not int or not 0 <= seed < 2**32 for seed in seeds)
        or len(set(seeds)) < len(seeds)
    ):
        raise UserError(
            f'{path}: SEEDS must be different whole numbers from 0 and below 2^32, at least one, not {seeds!r}'
        )
    return tuple(seeds)


def _check_axis(path: str | os.PathLike, axis: Any, config: ml_collections.ConfigDict) -> str:
    if axis not in ('', *SIZES):
        section, field = _find(config, axis, f'{path}: AXIS is a field, {" or ".join(SIZES)}')
        if isinstance(section[field], bool) or not isinstance(section[field], int | float):
            raise UserError(f'{path}: AXIS {axis} must be a field that holds a number, not {section[field]!r}')
    return axis


def _override(config: ml_collections.ConfigDict, name: str, value: Any, where: str) -> None:
    section, field = _find(config, name, where)
    try:
        section[field] = value
    except (TypeError, ValueError) as error:
        raise UserError(f'{where}: {name} cannot be {value!r}: {error}') from error


def _find(config: ml_collections.ConfigDict, name: str, where: str) -> tuple[ml_collections.ConfigDict, str]:
    """The section that holds a field, and the field's own name."""
    *sections, field = str(name).split('.')
    found: Any = config
    for section in sections:
        found = found.get(section) if isinstance(found, ml_collections.ConfigDict) else None
    if not isinstance(found, ml_collections.ConfigDict) or field not in found:
        raise UserError(f'{where}: a config has no field {name!r}')
    if name == 'seed':
        raise UserError(f'{where}: seed is no field to override: the SEEDS of a sweep are its seeds')
    if isinstance(found[field], ml_collections.ConfigDict):
        raise UserError(f'{where}: {name} is a section: override its fields, one by one')
    return found, field


def _parse_change(config: ml_collections.ConfigDict, change: str) -> tuple[str, Any]:
    """The name and the value of 'NAME=VALUE': a text if the field holds one, otherwise a Python literal."""
    name, equals, text = change.partition('=')
    if not equals:
        raise UserError(f'--set {change}: give NAME=VALUE')
    section, field = _find(config, name, f'--set {change}')
    if isinstance(section[field], str):
        return name, text
    try:
        return name, ast.literal_eval(text.capitalize() if isinstance(section[field], bool) else text)
    except (ValueError, SyntaxError) as error:
        raise UserError(f'--set {change}: {text!r} is no value of {name}, which is {section[field]!r}') from error


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _words(overrides: Mapping[str, Any]) -> str:
    return describe(overrides) or 'no overrides'


def describe(overrides: Mapping[str, Any]) -> str:
    """Overrides in one line: 'model.gate uniform, num_steps 100'."""
    return ', '.join(f'{name} {value}' for name, value in overrides.items())
