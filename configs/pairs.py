"""Restoration learnt from pairs of real images in two folders, `input/` and `target/`, with the same file names.

    python train.py --config=configs/pairs.py:source=photos/deblur --workdir=runs/deblur
    python train.py --config=configs/pairs.py:source=photos/zoom,scale=2,channels=3 --workdir=runs/zoom

Examples are blurred and sharp photographs, or scans of a print and of its negative; at scale 2 the targets are twice as
large. A twentieth of the pairs, chosen by name, is held out for validation.
"""

from ml_collections import ConfigDict

from configs.base import get_base, parse_arg
from configs.presets import set_model


def get_config(arg: str | None = None) -> ConfigDict:
    """Pairs; `arg` takes source (a folder), scale (from 1), channels (1 or 3) and preset (a name in presets.py)."""
    options = parse_arg(arg, source='', scale=1, channels=3, preset='resnet_nsr_capacity')
    if options.channels not in (1, 3):
        raise ValueError(f'channels must be 1 or 3, not {options.channels}')
    config = get_base()
    config.task = 'pairs'
    set_model(config, options.preset, scale=options.scale, channels=options.channels)
    config.data.source = config.evaluation.datasets = options.source
    config.evaluation.protocol = config.validation.protocol = 'pairs-rgb'
    return config.lock()
