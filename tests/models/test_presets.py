"""Parameter counts of every preset are those of the paper's tables."""

import pytest

from configs.presets import PRESETS
from nsr_jax.models.cost import count_parameters
from nsr_jax.models.residual import RestorationNetwork

# (preset, scale, channels): parameters, weight-norm scales and gates included.
COUNTS = {
    ('edsr_s', 2, 3): 1_193_460,
    ('edsr_s', 3, 3): 1_203_285,
    ('edsr_s', 4, 3): 1_217_040,
    ('edsr_s_nsr', 2, 3): 4_877_812,
    ('edsr_s_nsr', 3, 3): 4_887_637,
    ('edsr_s_nsr', 4, 3): 4_901_392,
    ('edsr_l_nsr', 2, 3): 38_361_140,
    ('edsr_l_nsr', 3, 3): 38_379_605,
    ('edsr_l_nsr', 4, 3): 38_405_456,
    ('wdsr_s', 4, 3): 1_203_312,
    ('wdsr_l', 2, 3): 37_808_180,
    ('wdsr_l', 3, 3): 37_826_645,
    ('wdsr_l', 4, 3): 37_852_496,
    ('resnet', 1, 1): 593_538,
    ('resnet_nsr_efficient', 1, 1): 628_354,
    ('resnet_nsr_capacity', 1, 1): 1_236_610,
}


def count(scale, channels, **architecture):
    return count_parameters(RestorationNetwork(scale=scale, channels=channels, **architecture))


@pytest.mark.parametrize(('preset', 'scale', 'channels'), COUNTS)
def test_parameter_count(preset, scale, channels):
    assert count(scale, channels, **PRESETS[preset]) == COUNTS[preset, scale, channels]


def test_every_preset_is_counted():
    # The paper prints no count of edsr_l: EDSR's own 32 blocks of 256 features.
    assert set(PRESETS) - {'edsr_l'} == {preset for preset, *_ in COUNTS}
    assert PRESETS['edsr_l'] == {'num_blocks': 32, 'features': 256}


def test_gray_denoiser_of_four_groups():
    assert count(1, 1, **(PRESETS['resnet_nsr_efficient'] | {'groups': 4})) == 1_256_066
