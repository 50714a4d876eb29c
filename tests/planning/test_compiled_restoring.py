"""The plan of an exported network, with this machine's CPU in the place of chips that are not there."""

import json

import jax
import pytest

from nsr_jax.exporting.stablehlo import export_network
from nsr_jax.models.residual import RestorationNetwork
from nsr_jax.planning import compiled_restoring
from nsr_jax.planning.chips import Chip
from nsr_jax.planning.compiled_restoring import plan_restoring
from nsr_jax.planning.description import describe_restoring
from nsr_jax.planning.target import Target


@pytest.fixture(scope='module')
def exported():
    network = RestorationNetwork(scale=2, channels=3, num_blocks=1, features=4)
    params = network.init(jax.random.key(0), jax.numpy.zeros((1, 8, 8, 3)))['params']
    return network, export_network(network, params)


def plan(monkeypatch, exported, memory):
    chip = Chip(memory, 1e9, 1e12, 1e8, 'a made-up data sheet')
    target = Target('v5e:2x2', 'v5e', chip, jax.devices()[:1], 1, 1)
    monkeypatch.setattr(compiled_restoring, 'find_target', lambda name: target)
    return plan_restoring(*exported, (3, 10, 20), 'v5e:2x2')


def test_a_plan_counts_the_call_and_its_memory(monkeypatch, exported):
    found = plan(monkeypatch, exported, 1e9)
    assert found['memory']['images'] == 3 * 10 * 20 * 3 * 4
    assert found['memory']['restored'] == 4 * found['memory']['images']
    parts = ('images', 'restored', 'temporaries', 'program')
    assert found['memory']['peak'] == sum(found['memory'][part] for part in parts)
    # 2 for each Multi-Add of head, two convolutions, tail and the 5x5 skip, at each input pixel.
    assert found['call']['flops'] == 2 * 3 * 200 * (9 * (3 * 4 + 4 * 4 + 4 * 4 + 4 * 12) + 25 * 3 * 12)
    assert found['call']['moved_bytes'] > found['memory']['images'] + found['memory']['restored']
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    text = describe_restoring(found)
    assert '3 at once of 20x10 pixels' in text and 'It fits.' in text and 'Nothing was run or measured' in text


def test_a_call_that_needs_more_memory_than_there_is(monkeypatch, exported):
    found = plan(monkeypatch, exported, 1e3)
    assert not found['fits'] and '**It does not fit.**' in describe_restoring(found)
