"""Super-resolution x2, x3, x4 on DIV2K, by the paper's recipe.

    python train.py --config=configs/sr.py:scale=2,preset=edsr_s_nsr --workdir=runs/x2

The training takes 1.5 million steps of 16 patches of 48x48 low-resolution pixels: the paper's 30 epochs of 50,000. The
published Y-PSNR of `edsr_s_nsr` on Set5 is 38.11 (x2), 34.50 (x3) and 32.26 dB (x4).
"""

from ml_collections import ConfigDict

from configs.base import get_base, parse_arg
from configs.presets import CHAINS, set_model


def get_config(arg: str | None = None) -> ConfigDict:
    """Super-resolution; `arg` takes scale (2, 3 or 4) and preset (a name in presets.py)."""
    options = parse_arg(arg, scale=2, preset='edsr_s_nsr')
    if options.scale not in (2, 3, 4):
        raise ValueError(f'scale must be 2, 3 or 4, not {options.scale}')
    config = get_base()
    config.task = 'sr'
    is_chain = options.preset in CHAINS  # VDSR restores Y alone
    set_model(config, options.preset, scale=options.scale, channels=1 if is_chain else 3)
    config.evaluation.protocol = config.validation.protocol = 'sr-luma' if is_chain else 'sr-y'
    return config.lock()
