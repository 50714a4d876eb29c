"""Super-resolution x2 in minutes on a laptop's CPU, on photographs that come with scikit-image.

    make quickstart

The network has 6 blocks of 24 features with 4 sparsity groups; 2 CPU cores take less than three minutes. On the two
held-out photographs, chelsea and coffee, it gains at least 0.8 dB over MATLAB's bicubic in Y-PSNR.
"""

from ml_collections import ConfigDict

from configs.base import get_base


def get_config() -> ConfigDict:
    """The quickstart; no argument."""
    config = get_base()
    config.task = 'sr'
    config.model.update(scale=2, num_blocks=6, features=24, groups=4, cardinality=8)
    config.data.source = 'PHOTOS'  # in capitals: a folder called photos may be here
    config.data.tfds_dir = 'runs/datasets'
    config.num_steps = 1_000
    config.log_every_steps = 50
    config.evaluate_every_steps = 500
    config.checkpoint_every_steps = 500
    config.validation.images = ('rocket.jpg',)
    config.evaluation.datasets = 'PHOTOS'
    return config.lock()
