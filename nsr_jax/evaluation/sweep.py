"""Many models on many datasets at many levels: each cell is scored once, kept, and never scored again."""

import dataclasses
import functools
import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging

import nsr_jax
from nsr_jax import agreement
from nsr_jax.atomic_files import make_output_folder, write_atomically
from nsr_jax.data.sources import Source
from nsr_jax.errors import UserError
from nsr_jax.evaluation.scoring import Score, device_predictors, evaluate
from nsr_jax.evaluation.tables import from_json, to_json, write_tables
from nsr_jax.inference.tiling import Tiling
from nsr_jax.models.build import Network
from nsr_jax.tasks import Degradation, find_baselines
from nsr_jax.tasks.task import Predictor, Protocol

CELLS = 'cells'


@dataclasses.dataclass(frozen=True)
class Contender:
    """A network in one way of applying it, or a baseline.

    Attributes:
        name: in tables.
        identity: all that its predictions depend on; a cell that was scored under it is not scored again.
        predictors: for a degradation, the same predictor on each device.
        weights: a network and its parameters; None for a baseline.
    """

    name: str
    identity: str
    predictors: Callable[[Degradation], Sequence[Predictor]]
    weights: tuple[Network, dict] | None = None


def network_contenders(
    name: str,
    network: Network,
    params: dict,
    tilings: Sequence[Tiling],
    ensembles: Sequence[bool],
    form: str = '{}, {}',
) -> list[Contender]:
    """A network in each way of applying it, with its weights on every local device.

    Args:
        name: of the weights, in tables.
        network: what they belong to.
        params: arrays that this process holds in full.
        tilings: what the network sees at once.
        ensembles: whether the eight orientations of what the network sees at once are averaged.
        form: of a name in tables: places for `name` and for the way of applying it.
    """
    weights = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(params):
        leaf = np.asarray(leaf)
        weights.update(f'{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}\n'.encode() + leaf.tobytes())
    contenders = []
    for tiling, ensemble in itertools.product(tilings, ensembles):
        words = f'tiling {tiling}' + ', x8 ensemble' * ensemble
        predictors = device_predictors(network, params, tiling, ensemble=ensemble)
        identity = f'{network} {weights.hexdigest()} {words}' + ' of each tile' * ensemble
        same = functools.partial(_whatever, predictors)
        contenders.append(Contender(form.format(name, words), identity, same, (network, params)))
    return contenders


def _whatever(predictors: Sequence[Predictor], degradation: Degradation) -> Sequence[Predictor]:
    """The same predictors for every degradation."""
    del degradation
    return predictors


def parse_ensembles(numbers: Sequence[str]) -> list[bool]:
    """Whether the eight orientations are averaged, of '1' (no) and '8' (yes).

    Raises:
        UserError: another number.
    """
    for number in numbers:
        if number not in ('1', '8'):
            raise UserError(f'predictions are averaged over 1 or 8 orientations, not {number!r}')
    return [number == '8' for number in numbers]


def baseline_contenders(names: Sequence[str], degradations: Sequence[Degradation]) -> list[Contender]:
    """Baselines by name.

    Raises:
        UserError: as in `find_baselines`, for any of the degradations.
    """
    for degradation in degradations:
        find_baselines(names, degradation)

    def predictors(name: str, degradation: Degradation) -> Sequence[Predictor]:
        return [find_baselines([name], degradation)[name]]

    return [Contender(name, name, functools.partial(predictors, name)) for name in names]


def run_sweep(
    contenders: Sequence[Contender],
    sources: Sequence[Source],
    protocols: Sequence[Protocol],
    degradations: Sequence[Degradation],
    output: pathlib.Path,
) -> list[Score]:
    """Score every contender on every source at every degradation; go on where an earlier call was stopped.

    A cell is written to `output/cells` when it is done, with all that it depends on; one that is not what was written,
    or was put in the place of another, is refused. The tables of all cells of this call are written after each. All
    processes of a job must call this alike; the first one says what is done already, and writes.

    Args:
        contenders: with different names.
        sources: opened at the degradations' scale, with different names.
        protocols: how to score.
        degradations: what is to be undone; of one task and scale.
        output: an existing folder.

    Raises:
        UserError: two contenders or sources of one name, an image that cannot be scored, a cell that is damaged or
            another's, a file that cannot be written.
    """
    for kind, names in (
        ('datasets', [source.name for source in sources]),
        ('models', [contender.name for contender in contenders]),
    ):
        for name in names:
            if names.count(name) > 1:
                raise UserError(f'two {kind} are called {name}: their scores could not be told apart')
    agreement.by_first(lambda: os.fspath(make_output_folder(output / CELLS)))
    agreement.check_alike(
        {
            'dataset': {source.name: source.fingerprint for source in sources},
            'model': {each.name: hashlib.sha256(each.identity.encode()).hexdigest() for each in contenders},
            'protocols': [protocol.name for protocol in protocols],
            'degradations': [str(degradation) for degradation in degradations],
        }
    )
    scores: list[Score] = []
    for source in sources:
        for degradation in degradations:
            for contender in contenders:
                scores += _score_cell(contender, source, protocols, degradation, output)
                agreement.by_first(functools.partial(write_tables, output, scores))
    return scores


def _score_cell(
    contender: Contender,
    source: Source,
    protocols: Sequence[Protocol],
    degradation: Degradation,
    output: pathlib.Path,
) -> list[Score]:
    key = {
        'model': [contender.name, contender.identity],
        'dataset': [source.name, source.fingerprint],
        'degradation': [degradation.task, degradation.level],
        'protocols': [[protocol.name, protocol.description] for protocol in protocols],
        'nsr_jax_version': nsr_jax.__version__,
    }
    path = output / CELLS / f'{_digest(key)[:24]}.json'
    what = f'{contender.name} on {source.name}, {degradation}'
    if (kept := agreement.by_first(functools.partial(_read_cell, path, key))) is not None:
        logging.info('%s: scored before', what)
        return from_json(kept)
    scores = evaluate(contender.predictors(degradation), source, protocols, degradation, model=contender.name)
    agreement.by_first(functools.partial(_write_cell, path, key, scores))
    logging.info('%s: %d images scored', what, len(source))
    return scores


def _read_cell(path: pathlib.Path, key: dict[str, Any]) -> str | None:
    """The scores that an earlier call wrote, as JSON; None where it wrote nothing."""
    try:
        cell = json.loads(path.read_bytes())
        digest = cell.pop('sha256')
        if digest != _digest(cell):
            raise UserError('damaged: its SHA-256 is not the one that it gives')
        if cell['key'] != key:
            names = [name for name in key if cell['key'].get(name) != key[name]]
            raise UserError(f'the cell of another score, which has another {", ".join(names)}')
        text = json.dumps(cell)
        from_json(text)
        return text
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f'{path}: cannot be read: {error.strerror}') from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = error if isinstance(error, UserError) else f'damaged: {error}'
        raise UserError(f'{path}: {reason}; remove it to score this cell again') from error


def _write_cell(path: pathlib.Path, key: dict[str, Any], scores: Sequence[Score]) -> None:
    cell = {'key': key} | json.loads(to_json(scores))
    write_atomically(path, json.dumps(cell | {'sha256': _digest(cell)}, indent=1) + '\n')


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
