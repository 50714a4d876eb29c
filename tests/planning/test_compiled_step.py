"""The plan of a tiny run, with this machine's CPU in the place of chips that are not there."""

import json

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType

from configs import sr
from nsr_jax.errors import UserError
from nsr_jax.planning import compiled_step
from nsr_jax.planning.chips import Chip
from nsr_jax.planning.compiled_step import make_plan
from nsr_jax.planning.description import describe
from nsr_jax.planning.images import plan_images
from nsr_jax.planning.target import Target
from nsr_jax.training.run import prepare_run
from nsr_jax.training.sharding import BATCH_AXES, make_mesh
from tests.training.conftest import image_folder, make_config, tfds_dir  # noqa: F401  fixtures

CHIP = Chip(1e9, 1e9, 1e12, 1e8, 'a made-up data sheet')


@pytest.fixture
def config(make_config):  # noqa: F811
    return make_config()


@pytest.fixture
def target(monkeypatch):
    """Replace the chips that `make_plan` finds by this machine's first device."""

    def replace(chip=CHIP):
        found = Target('v5e:2x2', 'v5e', chip, jax.devices()[:1], 1, 1)
        monkeypatch.setattr(compiled_step, 'find_target', lambda name: found)

    replace()
    return replace


@pytest.mark.parametrize('megabytes', [100, 0], ids=['resident', 'streamed'])
def test_the_planned_images_are_those_of_training(config, megabytes):
    config.data.resident_megabytes = megabytes
    run = prepare_run(config)
    planned = plan_images(config, run.mesh)
    feed = run.images.open_feed(0)
    given = feed.take(1)
    feed.close()
    assert planned.is_streamed == run.images.is_streamed == (megabytes == 0)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), planned.shapes) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), given
    )
    for shape, array in zip(jax.tree.leaves(planned.shapes), jax.tree.leaves(given), strict=True):
        assert array.sharding.is_equivalent_to(shape.sharding, array.ndim)
    assert planned.nbytes == sum(leaf.addressable_data(0).nbytes for leaf in jax.tree.leaves(given))


def test_devices_share_the_regions_of_a_call(config):
    config.data.resident_megabytes = 0
    one, two = (
        plan_images(config, AbstractMesh((size, 1), BATCH_AXES, axis_types=(AxisType.Auto,) * 2)) for size in (1, 2)
    )
    assert one.nbytes == 2 * two.nbytes > 0


def test_div2k_is_planned_without_having_it():
    config = sr.get_config('scale=3,preset=edsr_s')
    planned = plan_images(config, make_mesh(1, 1, 16, jax.devices()[:1]))
    assert planned.shapes.targets.shape == (800, 2040, 2040, 3)
    assert planned.shapes.inputs.shape == (800, 680, 680, 3)
    assert planned.nbytes == 800 * 3 * (2040**2 + 680**2) + 800 * 2 * 4


def test_missing_images_are_a_mistake():
    config = sr.get_config('scale=2,preset=edsr_s')
    with config.unlocked():
        config.data.source = 'nowhere'
    with pytest.raises(UserError, match="unknown source 'nowhere'"):
        plan_images(config, make_mesh(1, 1, 16, jax.devices()[:1]))


def test_a_plan(config, target, monkeypatch):
    compiled = []

    def compile_fast(program, images):
        lowered = program.train_steps.lower(program.abstract, images, jax.ShapeDtypeStruct((), np.int32))
        compiled.append(lowered.compile({'xla_backend_optimization_level': '0'}))
        return compiled[0]

    monkeypatch.setattr(compiled_step, 'compile_anew', compile_fast)
    plan = make_plan(config, 'v5e:2x2')
    assert plan['mesh'] == {'data': 1, 'fsdp': 1} and plan['batch_size'] == 4
    memory = plan['memory']
    assert memory['optimizer_and_averages'] == 2 * memory['parameters'] + 3 * 4  # Adam's moments and three counters
    parts = ('parameters', 'optimizer_and_averages', 'images', 'padding', 'temporaries', 'program')
    assert memory['peak'] == sum(memory[part] for part in parts)
    assert memory['padding'] >= 0 and memory['temporaries'] > 0
    assert plan['fits'] and plan['advice'] == []
    step = plan['step']
    assert step['seconds_at_least_by']['flops'] == step['flops'] / 1e12
    assert step['collectives'] == {}
    assert json.loads(json.dumps(plan, allow_nan=False)) == plan
    text = describe(plan)
    assert 'Nothing was run or measured' in text and 'It fits.' in text

    # The same plan for a chip with less memory than its images take.
    target(Chip(1e5, 1e9, 1e12, 1e8, ''))
    monkeypatch.setattr(compiled_step, 'compile_anew', lambda program, images: compiled[0])
    plan = make_plan(config, 'v5e:2x2')
    assert not plan['fits']
    assert '**It does not fit.**' in describe(plan) and '- --config.data.resident_megabytes=0' in describe(plan)


def test_a_program_that_the_compiler_refuses_gives_a_plan_too(config, target, monkeypatch):
    def refuse(program, images):
        raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Ran out of memory on HBM: 21G of 15.75G\nmore')

    monkeypatch.setattr(compiled_step, 'compile_anew', refuse)
    target(Chip(1e5, 1e9, 1e12, 1e8, ''))
    plan = make_plan(config, 'v5e:2x2')
    assert not plan['fits'] and 'step' not in plan and 'peak' not in plan['memory']
    text = describe(plan)
    assert '**It does not fit.** RESOURCE_EXHAUSTED: Ran out of memory on HBM: 21G of 15.75G\n' in text
    assert '- --config.data.resident_megabytes=0' in text
