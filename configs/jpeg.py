"""Removal of JPEG artifacts on DIV2K, by the paper's recipe.

    python train.py --config=configs/jpeg.py:quality=10,preset=resnet_nsr_capacity --workdir=runs/jpeg10
    python train.py --config=configs/jpeg.py:quality=10,blind=true --workdir=runs/jpeg_blind

Published tables use quality 10, 20, 30 or 40; `blind` draws it from the given one to 40. A network of one channel is
trained on the images' Y, by which the tables are scored.
"""

from ml_collections import ConfigDict

from configs.base import get_base, parse_arg
from configs.presets import set_model


def get_config(arg: str | None = None) -> ConfigDict:
    """JPEG artifacts; `arg` takes quality (1 to 100), blind, channels (1 or 3) and preset (a name in presets.py)."""
    options = parse_arg(arg, quality=10, blind=False, channels=1, preset='resnet_nsr_capacity')
    if options.channels not in (1, 3):
        raise ValueError(f'channels must be 1 or 3, not {options.channels}')
    config = get_base()
    config.task = 'jpeg'
    set_model(config, options.preset, scale=1, channels=options.channels)
    config.degradation.quality = (options.quality, max(options.quality, 40) if options.blind else options.quality)
    config.evaluation.datasets = 'live1'
    config.evaluation.protocol = config.validation.protocol = 'jpeg-y' if options.channels == 1 else 'jpeg-rgb'
    config.evaluation.levels = config.validation.levels = (10, 20, 30, 40) if options.blind else (options.quality,)
    return config.lock()
