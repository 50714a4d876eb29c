"""Removal of JPEG artifacts on DIV2K, by the paper's recipe.

    python train.py --config=configs/jpeg.py:quality=10,preset=resnet_nsr_capacity --workdir=runs/jpeg10
    python train.py --config=configs/jpeg.py:quality=10,blind=true --workdir=runs/jpeg_blind
    python train.py --config=configs/jpeg.py:quality=10,blind=true,channels=3 --workdir=runs/jpeg_colour

A network of one channel is trained on the images' Y, by which published tables are scored, at quality 10, 20, 30 or 40;
`blind` draws it from the given one to 40. One of three channels restores colours too: of photographs as they are found,
so `blind` draws its qualities up to 95, and chroma that is stored at half the resolution as well as at the full one.
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
    in_colour = options.channels == 3
    config.degradation.quality = (options.quality, options.quality)
    levels = (options.quality,)
    if options.blind:
        config.degradation.quality = (options.quality, max(options.quality, 95 if in_colour else 40))
        levels = (10, 20, 40, 80) if in_colour else (10, 20, 30, 40)
        config.degradation.subsampling = ('4:2:0', '4:4:4') if in_colour else ('4:2:0',)
    config.evaluation.datasets = 'live1'
    config.evaluation.protocol = config.validation.protocol = 'jpeg-rgb' if in_colour else 'jpeg-y'
    config.evaluation.levels = config.validation.levels = levels
    return config.lock()
