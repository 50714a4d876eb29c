"""Gray denoising on the images that DnCNN was trained on: 400 of 180x180 pixels.

    python train.py --config=configs/same_data/denoise.py:sigma=25,network=resnet_nsr_capacity \\
        --workdir=runs/same_data/denoise_25_capacity

Sigma 25 comes first, with `resnet`, `resnet_nsr_efficient` (half the FLOPs of `resnet`) and `resnet_nsr_capacity`; then
15 and 50. The goal is DnCNN-S's published PSNR at 15, 25, 50: BSD68 31.73 29.23 26.23, Set12 32.86 30.44 27.18 dB. The
efficient network should score at least as much as `resnet`, the one with more capacity more.

Data: `train400`, which shares no image with Set12 or BSD68.
The training takes 100,000 steps; how long they take has not been measured. `steps=` sets another number, by which the
learning rate's drops, the validations and the checkpoints are scaled.
"""

from ml_collections import ConfigDict

from configs.base import parse_arg
from configs.same_data.recipe import STEPS, get_comparison


def get_config(arg: str | None = None) -> ConfigDict:
    """A comparison; `arg` takes sigma (of 255), network (a name in presets.py) and steps."""
    options = parse_arg(arg, sigma=25.0, network='resnet_nsr_capacity', steps=STEPS)
    config = get_comparison('denoise', options.network, scale=1, channels=1, source='train400', steps=options.steps)
    config.degradation.sigma = (options.sigma, options.sigma)
    config.batch_size = 32
    config.evaluation.datasets = 'set12'
    config.evaluation.protocol = config.validation.protocol = 'denoise'
    config.evaluation.levels = config.validation.levels = (options.sigma,)
    return config.lock()
