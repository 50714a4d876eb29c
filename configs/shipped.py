"""The small networks that come with the package, which train on two CPU cores in half an hour to two hours.

    python train.py --config=configs/shipped.py:model=sr_x2 --workdir=runs/sr_x2
    python train.py --config=configs/shipped.py:model=sr_x4 --workdir=runs/sr_x4 --config.warm_start=runs/sr_x2

They have 8 blocks of 32 features with 4 sparsity groups (at x2 an eighth of EDSR-S's computation), and are trained on
the 399 images of BSDS500's train and test splits, which hold no image of the test sets. `restore` uses them;
`nsr_jax/weights/README.md` lists their scores. `jpeg_colour` does not come with the package yet.
"""

from ml_collections import ConfigDict

from configs.base import get_base, parse_arg

NAMES = ('sr_x2', 'sr_x3', 'sr_x4', 'denoise_gray', 'denoise_colour', 'jpeg_gray', 'jpeg_colour')


def get_config(arg: str | None = None) -> ConfigDict:
    """A shipped network; `arg` takes model, one of NAMES."""
    name = parse_arg(arg, model='sr_x2').model
    if name not in NAMES:
        raise ValueError(f'model must be one of {", ".join(NAMES)}, not {name!r}')
    task, in_colour = name.partition('_')[0], name.endswith('_colour')
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
        config.model.channels = 3 if in_colour else 1
        config.num_steps = 4_000 if in_colour else 6_000
        config.degradation.sigma = (0.0, 50.0)
        if in_colour:
            config.degradation.shared_noise = 0.5  # photographs in black and white, sepia, or with monochrome grain
        config.evaluation.datasets = 'cbsd68' if in_colour else 'set12'
        config.evaluation.protocol = config.validation.protocol = 'denoise'
        config.evaluation.levels = config.validation.levels = (25.0,)
    else:
        config.model.channels = 3 if in_colour else 1
        config.num_steps = 6_000
        config.degradation.quality = (10, 95) if in_colour else (10, 40)
        if in_colour:
            config.degradation.subsampling = ('4:2:0', '4:4:4')
        config.evaluation.datasets = 'live1' if in_colour else 'classic5'
        config.evaluation.protocol = config.validation.protocol = 'jpeg-rgb' if in_colour else 'jpeg-y'
        config.evaluation.levels = config.validation.levels = (10, 40, 80) if in_colour else (10,)
    return config.lock()
