"""The small networks that come with the package: each trains in about half an hour on two idle CPU cores.

    python train.py --config=configs/shipped.py:model=sr_x2 --workdir=runs/sr_x2
    python train.py --config=configs/shipped.py:model=sr_x4 --workdir=runs/sr_x4 --config.warm_start=runs/sr_x2

They have 8 blocks of 32 features with 4 sparsity groups (1/20 of EDSR-S's computation), and are trained on the 399
images of BSDS500's train and test splits, which hold no image of the test sets. `restore` uses them;
`nsr_jax/weights/README.md` lists their scores.
"""

from ml_collections import ConfigDict

from configs.base import get_base, parse_arg

NAMES = ('sr_x2', 'sr_x3', 'sr_x4', 'denoise_gray', 'denoise_colour', 'jpeg')


def get_config(arg: str | None = None) -> ConfigDict:
    """A shipped network; `arg` takes model, one of NAMES."""
    name = parse_arg(arg, model='sr_x2').model
    if name not in NAMES:
        raise ValueError(f'model must be one of {", ".join(NAMES)}, not {name!r}')
    task = name.partition('_')[0]
    config = get_base()
    config.task = task
    config.model.update(num_blocks=8, features=32, groups=4, cardinality=8)
    config.data.source = 'bsds500'
    config.checkpoint_every_steps = config.evaluate_every_steps = 1_000
    if task == 'sr':
        config.model.scale = int(name[-1])
        config.data.patch_size = 32
        config.num_steps = {2: 20_000, 3: 4_000, 4: 8_000}[config.model.scale]
        config.evaluation.datasets = 'set5'
        config.evaluation.protocol = config.validation.protocol = 'sr-y'
        if name != 'sr_x3':
            # Gates that choose (docs/studies.md), a rate that falls to 0, and averaged weights.
            config.model.update(gate_pooling='rms', gate_scale=10.0)
            config.learning_rate_schedule = 'cosine'
            config.ema_decay = 0.999
            config.evaluate_every_steps = 2_500
    elif task == 'denoise':
        config.model.channels = 1 if name == 'denoise_gray' else 3
        config.num_steps = 6_000 if name == 'denoise_gray' else 4_000
        config.degradation.sigma = (0.0, 50.0)
        if name == 'denoise_colour':
            config.degradation.shared_noise = 0.5  # photographs in black and white, sepia, or with monochrome grain
        config.evaluation.datasets = 'set12' if name == 'denoise_gray' else 'cbsd68'
        config.evaluation.protocol = config.validation.protocol = 'denoise'
        config.evaluation.levels = config.validation.levels = (25.0,)
    else:
        config.model.channels = 1
        config.num_steps = 6_000
        config.degradation.quality = (10, 40)
        config.evaluation.datasets = 'classic5'
        config.evaluation.protocol = config.validation.protocol = 'jpeg-y'
        config.evaluation.levels = config.validation.levels = (10,)
    return config.lock()
