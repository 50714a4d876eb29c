"""The comparisons and their configs: each makes sense before a machine is lent for it."""

import pytest

from configs import base
from configs.same_data import denoise, jpeg, sr
from experiments.comparisons import COMPARISONS, find_comparison
from nsr_jax.data.training_sets import find_training_set
from nsr_jax.errors import UserError
from nsr_jax.models.build import build_network
from nsr_jax.tasks import TASKS, find_degradations
from nsr_jax.training.preparation import check_run

# The shorter side of each set's smallest image, in pixels; measured in tests/data/test_training_sets.py.
SMALLEST = {'t91_bsds200': 105, 'train400': 180, 'bsds400': 321}


@pytest.mark.parametrize('run', COMPARISONS, ids=lambda run: run.name)
def test_each_can_be_trained_and_has_a_rival(run, tmp_path):
    config = run.config()
    assert config.to_dict().keys() == base.get_base().to_dict().keys()
    check_run(config, tmp_path)
    assert config.data.source in SMALLEST
    assert find_training_set(config.data.source)
    side = config.data.patch_size + 2 * config.data.margin
    if config.task == 'jpeg':
        side += 14  # a random position on JPEG's grid of 8x8, on both sides
    assert side <= SMALLEST[config.data.source] // config.model.scale
    assert config.num_steps == 100_000
    assert run.config(30).num_steps == 30
    assert run.config(30).evaluate_every_steps == 3
    assert run.config(7).checkpoint_every_steps == 1
    degradations = find_degradations(config.task, config.model.scale, config.evaluation.levels)
    for degradation in degradations:
        found = [
            row
            for task in TASKS.values()
            for row in task.published
            if row.model in run.rivals and row.degradation == str(degradation)
        ]
        assert {row.dataset.lower() for row in found} >= set(run.datasets)


def test_patches_of_a_step_hold_about_as_many_pixels_at_each_scale():
    pixels = [side**2 * batch_size for side, _, batch_size in sr.PATCHES.values()]
    assert max(pixels) < 1.2 * min(pixels)


def test_the_order_and_the_warm_starts():
    assert [run.rank for run in COMPARISONS] == sorted(run.rank for run in COMPARISONS)
    names = [run.name for run in COMPARISONS]
    assert len(set(names)) == len(names)
    for run in COMPARISONS:
        if run.warm_start:
            first = find_comparison(run.warm_start)
            assert names.index(first.name) < names.index(run.name)
            models = [each.config().model.to_dict() | {'scale': 0} for each in (first, run)]
            assert models[0] == models[1]
            assert f'--config.warm_start=runs/same_data/{first.name}' in run.train_arguments()


def test_the_networks_that_are_compared_are_the_papers():
    multi = {name: find_comparison(name).config().model for name in ('denoise_25', 'denoise_25_efficient')}
    assert [build_network(model).width_multiplier for model in multi.values()] == [2, 1]
    assert find_comparison('denoise_25_capacity').config().degradation.sigma == (25.0, 25.0)
    assert find_comparison('jpeg_capacity').config().degradation.quality == (10, 40)
    with pytest.raises(UserError, match="unknown run 'sr_x5': one of sr_x2_nsr, sr_x2, "):
        find_comparison('sr_x5')


@pytest.mark.parametrize(
    ('config', 'arg', 'message'),
    [
        (sr, 'scale=5', 'scale must be 2, 3 or 4, not 5'),
        (sr, 'network=vdsr', "network must be one of edsr_s, .*, not 'vdsr'"),
        (denoise, 'network=dncnn', "not 'dncnn'"),
        (denoise, 'sigma=low', 'sigma must be of type float'),
        (jpeg, 'quality=10', "'quality=10'.*network, steps"),
    ],
)
def test_wrong_arguments_are_named(config, arg, message):
    with pytest.raises(ValueError, match=message):
        config.get_config(arg)
