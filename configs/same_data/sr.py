"""Super-resolution on the images that VDSR and DRRN were trained on: 91 of Yang et al., and 200 of BSDS500.

    python train.py --config=configs/same_data/sr.py:scale=2,network=edsr_s_nsr --workdir=runs/same_data/sr_x2_nsr
    python train.py --config=configs/same_data/sr.py:scale=2,network=edsr_s --workdir=runs/same_data/sr_x2
    python train.py --config=configs/same_data/sr.py:scale=4,network=edsr_s_nsr --workdir=runs/same_data/sr_x4_nsr \\
        --config.warm_start=runs/same_data/sr_x2_nsr

Networks of x3 and x4 begin with the body of the x2 network. The goal is DRRN's published Y-PSNR on Set5, Set14, BSD100:
x2 37.74 33.23 32.05, x3 34.03 29.96 28.95, x4 31.68 28.21 27.38 dB; and `edsr_s_nsr` should score more than `edsr_s`
after the same steps with the same seed.

Data: `t91_bsds200`, 289 images: the published 291 without BSDS500's 302003, which is Set5's woman, and without T91's
t20 of 78x78 pixels. The smallest image left is 105 pixels wide, so 48 input pixels and a margin of 2 fit into it
at x2, 32 and 1 at x3, and 24 and 1 at x4. The smaller the patches, the more of them are in a step.
The training takes 100,000 steps; how long they take has not been measured. `steps=` sets another number, by which the
learning rate's drops, the validations and the checkpoints are scaled.
"""

from ml_collections import ConfigDict

from configs.base import parse_arg
from configs.same_data.recipe import STEPS, get_comparison

# By scale: side of a patch in input pixels, margin, patches in a step.
PATCHES = {2: (48, 2, 16), 3: (32, 1, 32), 4: (24, 1, 64)}


def get_config(arg: str | None = None) -> ConfigDict:
    """A comparison; `arg` takes scale (2, 3 or 4), network (a name in presets.py) and steps."""
    options = parse_arg(arg, scale=2, network='edsr_s_nsr', steps=STEPS)
    if options.scale not in PATCHES:
        raise ValueError(f'scale must be 2, 3 or 4, not {options.scale}')
    config = get_comparison(
        'sr', options.network, scale=options.scale, channels=3, source='t91_bsds200', steps=options.steps
    )
    config.data.patch_size, config.data.margin, config.batch_size = PATCHES[options.scale]
    config.evaluation.datasets = 'set5'
    config.evaluation.protocol = config.validation.protocol = 'sr-y'
    return config.lock()
