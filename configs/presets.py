"""The networks of the paper, by name: Fan et al., NeurIPS 2020, section 4 and the authors' published table."""

from ml_collections import ConfigDict

PRESETS = {
    'edsr_s': {'num_blocks': 16, 'features': 64},
    'edsr_s_nsr': {'num_blocks': 16, 'features': 64, 'groups': 4, 'cardinality': 16},
    'edsr_l': {'num_blocks': 32, 'features': 256},
    'edsr_l_nsr': {'num_blocks': 32, 'features': 128, 'groups': 4, 'cardinality': 16},
    'wdsr_s': {'num_blocks': 16, 'features': 32, 'width_multiplier': 4},
    'wdsr_l': {'num_blocks': 32, 'features': 128, 'width_multiplier': 4},
    # For noise and JPEG artifacts: the baseline, half its computation at its size, its computation at twice its size.
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

# Comparison networks: plain chains of convolutions, see nsr_jax/models/chain.py.
CHAINS = {
    'vdsr': {'kernel_sizes': (3,) * 20, 'features': (64,) * 19, 'adds_input': True},
    'dncnn': {'kernel_sizes': (3,) * 17, 'features': (64,) * 16, 'adds_input': True},
    'dncnn_blind': {'kernel_sizes': (3,) * 20, 'features': (64,) * 19, 'adds_input': True},
    'arcnn': {'kernel_sizes': (9, 7, 1, 5), 'features': (64, 32, 16), 'adds_input': False},
}


def set_model(config: ConfigDict, name: str, *, scale: int, channels: int) -> None:
    """Fill in `config.model` from a preset.

    Raises:
        ValueError: an unknown name.
    """
    if name in CHAINS:
        config.model = ConfigDict({'architecture': 'chain', 'scale': scale, 'channels': channels, **CHAINS[name]})
    elif name in PRESETS:
        config.model.update(PRESETS[name], scale=scale, channels=channels)
    else:
        raise ValueError(f'unknown preset {name!r}: one of {", ".join([*PRESETS, *CHAINS])}')
