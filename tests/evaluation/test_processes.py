"""Evaluation by several processes: it gives the scores of one process, written once, and none waits for a failed one.

Functions whose names end in `_in_job` run in each process of the job.
"""

import dataclasses
import functools
import math
import pathlib

import jax
import numpy as np
import pytest

from nsr_jax.data.sources import Example
from nsr_jax.errors import UserError
from nsr_jax.evaluation import cells, largest_gains, scoring, tables
from nsr_jax.evaluation.cells import baseline_contenders, network_contenders, run_sweep
from nsr_jax.inference.tiling import Tiling
from nsr_jax.metrics import find_metrics
from nsr_jax.models.cost import parameter_shapes
from nsr_jax.models.residual import RestorationNetwork
from nsr_jax.ops.imresize import imresize
from nsr_jax.tasks import Degradation, find_protocols
from tests.processes import run_together

X2 = Degradation('sr', 2)
PROTOCOLS = find_protocols('sr', ['sr-y', 'sr-rgb'])
METRICS = find_metrics(['psnr', 'ssim'])


class Images(list):
    """A source of five images, one of which is predicted perfectly and scores infinity."""

    name, fingerprint = 'noise', ''

    def __init__(self):
        random = np.random.default_rng(0)
        images = [random.integers(0, 256, (48, 44, 3), np.uint8) for _ in range(4)] + [
            np.full((48, 44, 3), 7, np.uint8)
        ]
        super().__init__(Example(f'{i}.png', image, imresize(image, 0.5)) for i, image in enumerate(images))
        self.names = [example.name for example in self]


def contenders():
    network = RestorationNetwork(scale=2, channels=3, num_blocks=1, features=4, groups=2, cardinality=2)
    random = np.random.RandomState(3)
    params = jax.tree.map(lambda leaf: random.normal(0, 0.3, leaf.shape).astype('f'), parameter_shapes(network))
    networks = network_contenders('network', network, params, 7, [Tiling('feathered', 16, 4)], [1])
    return [*baseline_contenders(['bicubic'], [X2]), *networks]


def sweep_of(contenders, images):
    return cells.Sweep(contenders, [images], PROTOCOLS, [X2], METRICS)


def score(output):
    return run_sweep(sweep_of(contenders(), Images()), pathlib.Path(output))


def message_of(function, *arguments, **options):
    try:
        function(*arguments, **options)
    except Exception as error:
        return f'{type(error).__name__}: {error}'
    return None


def evaluate_in_job(output):
    """Score images as a sweep does, then make mistakes that only one process sees."""
    output, written, seen = pathlib.Path(output), [], []
    for module in (cells, tables):
        write = module.write_atomically
        module.write_atomically = lambda path, text, write=write: written.append(path.name) or write(path, text)
    answers = {'scores': [dataclasses.astuple(each) for each in score(output)]}

    def predictor(failure, image):
        seen.append(image)
        if failure and (image == Images()[3].lr).all():
            raise failure
        return imresize(image, 2) / 255

    failures = {'mistake': UserError('a predictor fails'), 'defect': TypeError('a predictor fails'), 'nothing': None}
    for name, failure in failures.items():
        seen.clear()
        predictors = [functools.partial(predictor, failure)]
        answers[name] = message_of(scoring.evaluate, predictors, Images(), PROTOCOLS, X2, METRICS, model='m')
    answers['predicted'] = len(seen)

    def refuse(image):
        raise AssertionError('was scored before')

    again = [dataclasses.replace(each, predictors=lambda degradation: [refuse]) for each in contenders()]
    scores = run_sweep(sweep_of(again, Images()), output)
    answers['kept'] = [dataclasses.astuple(each) for each in scores]
    largest_gains.show(sweep_of(contenders(), Images()), scores, output)
    answers['written'] = written
    other = Images()
    other.fingerprint = f'images {jax.process_index()}'
    answers['images'] = message_of(run_sweep, sweep_of(contenders()[:1], other), output)
    for cell in (output / 'cells').iterdir() if jax.process_index() == 0 else ():
        cell.write_text('{')
    answers['broken'] = message_of(score, output)
    return answers


@pytest.mark.parametrize('count', [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_score_as_one(tmp_path, count):
    (tmp_path / 'one').mkdir()
    (tmp_path / 'several').mkdir()
    alone = score(tmp_path / 'one')
    assert alone[8].values['psnr'] == math.inf and all(math.isfinite(each.values['psnr']) for each in alone[:8])
    answers = [answer.value for answer in run_together(evaluate_in_job, count, str(tmp_path / 'several'), devices=2)]
    for answer in answers:
        for name in ('scores', 'kept'):  # bit for bit
            assert [tuple(each) for each in answer[name]] == [dataclasses.astuple(each) for each in alone]
        assert answer['mistake'] == 'UserError: noise, 3.png: a predictor fails'
        assert answer['images'] == (
            'UserError: the processes of the job must be started alike: '
            "dataset.noise is 'images 0' in process 0, 'images 1' in process 1"
        )
        assert answer['broken'].startswith('UserError: ')
        assert answer['broken'].endswith('remove it to score this cell again')
    assert [answer['predicted'] for answer in answers] == [len(range(index, 5, count)) for index in range(count)]
    failing = 3 % count
    defects = [f'RuntimeError: process {failing} failed: a predictor fails'] * count
    defects[failing] = 'TypeError: a predictor fails'
    assert [answer['defect'] for answer in answers] == defects
    assert not any(answer['written'] for answer in answers[1:])
    assert answers[0]['written'].count('scores.json') == 4 and len(answers[0]['written']) == 14
    for path in (tmp_path / 'one').glob('scores.*'):
        assert (tmp_path / 'several' / path.name).read_bytes() == path.read_bytes()
    assert len(list((tmp_path / 'several' / 'pictures').iterdir())) == 1
