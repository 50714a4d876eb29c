"""The networks of the paper, by name: Fan et al., NeurIPS 2020, section 4 and the authors' published table."""

PRESETS = {
    'edsr_s': {'num_blocks': 16, 'features': 64},
    'edsr_s_nsr': {'num_blocks': 16, 'features': 64, 'groups': 4, 'cardinality': 16},
    'edsr_l': {'num_blocks': 32, 'features': 256},
    'edsr_l_nsr': {'num_blocks': 32, 'features': 128, 'groups': 4, 'cardinality': 16},
    'wdsr_s': {'num_blocks': 16, 'features': 32, 'width_multiplier': 4},
    'wdsr_l': {'num_blocks': 32, 'features': 128, 'width_multiplier': 4},
    # Denoising and JPEG artifacts: the baseline, half its computation at its size, its computation at twice its size.
    'resnet': {'num_blocks': 16, 'features': 32, 'width_multiplier': 2},
    'resnet_nsr_efficient': {'num_blocks': 16, 'features': 32, 'groups': 2, 'cardinality': 16},
    'resnet_nsr_capacity': {
        'num_blocks': 16,
        'features': 32,
        'width_multiplier': 2,
        'groups': 2,
        'cardinality': 16,
    },
}


def preset(name: str) -> dict:
    """The fields of `config.model` that a preset sets.

    Raises:
        ValueError: an unknown name.
    """
    if name not in PRESETS:
        raise ValueError(f'unknown preset {name!r}: one of {", ".join(PRESETS)}')
    return PRESETS[name]
