"""Removal of JPEG artifacts on the images that ARCNN was trained on: 400 of BSDS500, in Y.

    python train.py --config=configs/same_data/jpeg.py:network=resnet_nsr_capacity \\
        --workdir=runs/same_data/jpeg_capacity

One network is for qualities 10 to 40, where ARCNN has one for each quality. It should reach ARCNN's published PSNR at
10, 20, 30, 40: LIVE1 28.96 31.29 32.67 33.63, Classic5 29.03 31.15 32.51 33.34 dB. The goal is DnCNN-3's, which is one
network as well but trained on other images: LIVE1 29.19 31.59 32.98 33.96, Classic5 29.40 31.63 32.91 33.77.

Data: `bsds400`, 399 images: the published 400 without 302003, which Set5 holds.
The training takes 100,000 steps; how long they take has not been measured. `steps=` sets another number, by which the
learning rate's drops, the validations and the checkpoints are scaled.
"""

from ml_collections import ConfigDict

from configs.base import parse_arg
from configs.same_data.recipe import STEPS, get_comparison


def get_config(arg: str | None = None) -> ConfigDict:
    """A comparison; `arg` takes network (a name in presets.py) and steps."""
    options = parse_arg(arg, network='resnet_nsr_capacity', steps=STEPS)
    config = get_comparison('jpeg', options.network, scale=1, channels=1, source='bsds400', steps=options.steps)
    config.degradation.quality = (10, 40)
    config.batch_size = 32
    config.evaluation.datasets = 'classic5'
    config.evaluation.protocol = config.validation.protocol = 'jpeg-y'
    config.evaluation.levels = config.validation.levels = (10, 20, 30, 40)
    return config.lock()
