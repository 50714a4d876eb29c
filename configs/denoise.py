"""Gray and colour denoising on DIV2K, by the paper's recipe.

    python train.py --config=configs/denoise.py:sigma=25,channels=1,preset=resnet_nsr_capacity --workdir=runs/gray25
    python train.py --config=configs/denoise.py:sigma=50,blind=true,channels=3 --workdir=runs/colour_blind

The paper compares `resnet`, `resnet_nsr_efficient` (half the computation at its size) and `resnet_nsr_capacity` (its
computation at twice the size) at sigma 15, 25 and 50. `blind` draws sigma from 0 to the given one. A network of one
channel is trained on gray images, converted as by MATLAB's rgb2gray.
"""

from ml_collections import ConfigDict

from configs.base import get_base, parse_arg
from configs.presets import set_model


def get_config(arg: str | None = None) -> ConfigDict:
    """Denoising; `arg` takes sigma (of 255), blind, channels (1 or 3) and preset (a name in presets.py)."""
    options = parse_arg(arg, sigma=25.0, blind=False, channels=1, preset='resnet_nsr_capacity')
    if options.channels not in (1, 3):
        raise ValueError(f'channels must be 1 or 3, not {options.channels}')
    config = get_base()
    config.task = 'denoise'
    set_model(config, options.preset, scale=1, channels=options.channels)
    config.degradation.sigma = (0.0 if options.blind else options.sigma, options.sigma)
    config.evaluation.datasets = 'bsd68' if options.channels == 1 else 'cbsd68'
    config.evaluation.protocol = config.validation.protocol = 'denoise'
    config.evaluation.levels = config.validation.levels = (15.0, 25.0, 50.0) if options.blind else (options.sigma,)
    return config.lock()
