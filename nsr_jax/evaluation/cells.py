"""Scores many models on many datasets at many levels; each combination is kept as a cell and never scored again."""

import dataclasses
import functools
import hashlib
import itertools
import json
import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging

import nsr_jax
from nsr_jax import agreement
from nsr_jax.atomic_files import make_output_folder, write_atomically
from nsr_jax.data.sources import Source
from nsr_jax.errors import UserError
from nsr_jax.evaluation.scores import Score
from nsr_jax.evaluation.scoring import device_predictors, evaluate
from nsr_jax.evaluation.tables import read_record, to_record, write_tables
from nsr_jax.inference.tiling import Tiling
from nsr_jax.metrics import Metric
from nsr_jax.models.build import Network
from nsr_jax.nn.gates import GATES
from nsr_jax.tasks import Degradation, find_baselines
from nsr_jax.tasks.task import Predictor, Protocol
from nsr_jax.trained import digest

CELLS = 'cells'


@dataclasses.dataclass(frozen=True)
class Contender:
    """A network in one way of applying it, or a baseline.

    Attributes:
        name: in tables.
        identity: everything that its predictions depend on, which identifies its cells.
        predictors: takes a degradation and returns the same predictor for each device.
        network: a network and its parameters; None for a baseline.
        applied: entries of a network in scores.json: the digest of its 'weights', the optimizer's 'step', 'tiling', and
            'ensemble', the number of orientations that are averaged; empty for a baseline.
        label: a short name; '' for that in tables. Several may have the same.
    """

    name: str
    identity: str
    predictors: Callable[[Degradation], Sequence[Predictor]]
    network: tuple[Network, dict] | None = None
    applied: Mapping[str, str | int] = dataclasses.field(default_factory=dict)
    label: str = ''


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Every contender on every source at every degradation, to be scored by every protocol and metric.

    Attributes:
        contenders: with different names.
        sources: opened at the degradations' scale, with different names.
        protocols: the first one chooses the pictures.
        degradations: of one task and scale.
        metrics: as from `find_metrics`; the first one chooses the pictures.

    Raises:
        UserError: two contenders or sources have one name.
    """

    contenders: Sequence[Contender]
    sources: Sequence[Source]
    protocols: Sequence[Protocol]
    degradations: Sequence[Degradation]
    metrics: Mapping[str, Metric]

    def __post_init__(self):
        for kind, named in (('datasets', self.sources), ('models', self.contenders)):
            names = [each.name for each in named]
            for name in names:
                if names.count(name) > 1:
                    raise UserError(f'two {kind} are called {name}: their scores could not be told apart')

    @property
    def networks(self) -> list[Contender]:
        """The contenders that are not baselines."""
        return [each for each in self.contenders if each.network]


def name_in_tables(name: str, tiling: str, ensemble: int) -> str:
    """A network's name in tables, with its application: 'sr_x2 (tiling feathered 96/16, x8 ensemble)'."""
    return f'{name} (tiling {tiling}{", x8 ensemble" if ensemble == 8 else ""})'


def digest_weights(params: Mapping[str, Any]) -> str:
    """SHA-256 of the names, types, shapes and values of a network's parameters."""
    weights = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(params):
        leaf = np.asarray(leaf)
        weights.update(f'{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}\n'.encode() + leaf.tobytes())
    return weights.hexdigest()


def network_contenders(
    name: str,
    network: Network,
    params: dict,
    step: int,
    tilings: Sequence[Tiling],
    ensembles: Sequence[int],
    label: str = '',
) -> list[Contender]:
    """A network with each of several tilings and ensembles, with its weights on every local device.

    Args:
        params: its parameters, which this process holds in full.
        ensembles: over how many orientations predictions are averaged, 1 or 8.
        label: a short name.
    """
    weights = digest_weights(params)
    contenders = []
    for tiling, ensemble in itertools.product(tilings, ensembles):
        predictors = device_predictors(network, params, tiling, ensemble=ensemble == 8)
        contenders.append(
            Contender(
                name_in_tables(name, str(tiling), ensemble),
                f'{network} {weights} {tiling} {ensemble}',
                lambda degradation, predictors=predictors: predictors,
                (network, params),
                {'weights': weights, 'step': step, 'tiling': str(tiling), 'ensemble': ensemble},
                label,
            )
        )
    return contenders


def parse_ensembles(numbers: Sequence[str]) -> list[int]:
    """Numbers of orientations, each 1 or 8; raises `UserError` for others."""
    for number in numbers:
        if number not in ('1', '8'):
            raise UserError(f'predictions are averaged over 1 or 8 orientations, not {number!r}')
    return [int(number) for number in numbers]


def baseline_contenders(names: Sequence[str], degradations: Sequence[Degradation]) -> list[Contender]:
    """Baselines by name; raises `UserError` if `find_baselines` refuses one for any of the degradations."""
    for degradation in degradations:
        find_baselines(names, degradation)

    def predictors(name: str, degradation: Degradation) -> Sequence[Predictor]:
        return [find_baselines([name], degradation)[name]]

    return [Contender(name, name, functools.partial(predictors, name)) for name in names]


def run_sweep(sweep: Sweep, output: pathlib.Path) -> list[Score]:
    """Score all cells that are not scored yet; a call that was stopped is resumed in this way.

    A cell (a contender on a source at a degradation) is written to `output/cells` when it is done, with everything that
    it depends on; a cell that is damaged or in another's place is refused. A cell keeps every metric that was ever
    asked for, and only missing ones are computed. The tables of all cells of this call are written after each cell. All
    processes of a job must call this alike; the first one reads and writes the cells.

    Raises:
        UserError: an image cannot be scored, a cell is damaged or another's, or a file cannot be written.
    """
    agreement.by_first(lambda: os.fspath(make_output_folder(output / CELLS)))
    agreement.check_alike(
        {
            'dataset': {source.name: source.fingerprint for source in sweep.sources},
            'model': {each.name: hashlib.sha256(each.identity.encode()).hexdigest() for each in sweep.contenders},
            'protocols': [protocol.name for protocol in sweep.protocols],
            'degradations': [str(degradation) for degradation in sweep.degradations],
            'metrics': list(sweep.metrics),
        }
    )
    models = {contender.name: contender.applied for contender in sweep.contenders}
    scores: list[Score] = []
    for source, degradation, contender in itertools.product(sweep.sources, sweep.degradations, sweep.contenders):
        scores += _score_cell(sweep, contender, source, degradation, output)
        agreement.by_first(functools.partial(write_tables, output, scores, models))
    return scores


def _score_cell(
    sweep: Sweep, contender: Contender, source: Source, degradation: Degradation, output: pathlib.Path
) -> list[Score]:
    key = {
        'model': [contender.name, contender.identity],
        'dataset': [source.name, source.fingerprint],
        'degradation': [degradation.task, degradation.level],
        'protocols': [[protocol.name, protocol.description] for protocol in sweep.protocols],
        'version': nsr_jax.__version__,
        'code': sorted({*_codes_of_network(contender), *(code_of(each.network_input) for each in sweep.protocols)}),
    }
    path = output / CELLS / f'{digest(key)[:24]}.json'
    what = f'{contender.name} on {source.name}, {degradation}'
    kept = agreement.by_first(functools.partial(_read_cell, path, key))
    codes, scores = kept['metrics'], [read_record(record) for record in kept['scores']]
    missing = {name: metric for name, metric in sweep.metrics.items() if codes.get(name) != code_of(metric.function)}
    if missing:
        logging.info('%s: scoring %d images', what, len(source))
        found = evaluate(
            contender.predictors(degradation), source, sweep.protocols, degradation, missing, model=contender.name
        )
        scores = [
            dataclasses.replace(new, values={**old.values, **new.values})
            for old, new in zip(scores or found, found, strict=True)
        ]
        codes = {**codes, **{name: code_of(metric.function) for name, metric in missing.items()}}
        agreement.by_first(functools.partial(_write_cell, path, key, codes, scores))
        logging.info('%s: %d images scored by %s', what, len(source), ', '.join(missing))
    else:
        logging.info('%s: scored before', what)
    return [dataclasses.replace(score, values={name: score.values[name] for name in sweep.metrics}) for score in scores]


def _codes_of_network(contender: Contender) -> list[str]:
    if contender.network is None:
        return []
    network, _ = contender.network
    return [code_of(type(network)), code_of(GATES.get(getattr(network, 'gate', '')))]


def code_of(function: Any) -> str:
    """Digest of the file of a user's own function or class, to notice changes; '' for this package's."""
    name = getattr(function, '__module__', '') or ''
    path = getattr(sys.modules.get(name), '__file__', None)
    if path is None or name.startswith('nsr_jax.'):
        return ''
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def _read_cell(path: pathlib.Path, key: dict[str, Any]) -> dict[str, Any]:
    """The scores that an earlier call wrote, as records, and their metrics; both are empty if there are none."""
    try:
        cell = json.loads(path.read_bytes())
        if cell.pop('sha256') != digest(cell):
            raise UserError('damaged: its SHA-256 is not the one in it')
        if cell['key'] != key:
            names = [name for name in key if cell['key'].get(name) != key[name]]
            raise UserError(f'the cell of another score, with another {", ".join(names)}')
        return {'metrics': cell['metrics'], 'scores': cell['scores']}
    except FileNotFoundError:
        return {'metrics': {}, 'scores': []}
    except OSError as error:
        raise UserError(f'{path}: cannot be read: {error.strerror}') from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = error if isinstance(error, UserError) else f'damaged: {error}'
        raise UserError(f'{path}: {reason}; remove it to score this cell again') from error


def _write_cell(path: pathlib.Path, key: dict[str, Any], codes: Mapping[str, str], scores: Sequence[Score]) -> None:
    cell = {'key': key, 'metrics': codes, 'scores': [to_record(score) for score in scores]}
    write_atomically(path, json.dumps(cell | {'sha256': digest(cell)}, indent=1) + '\n')
