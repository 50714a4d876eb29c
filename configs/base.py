"""Every field of a config, with its unit, its default and what is accepted; the task's config fills in the rest."""

import math
from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_base() -> ConfigDict:
    """A config with every field there is; it trains nothing until a task's config has filled it in."""
    config = ConfigDict()
    config.task = ''  # what is undone: sr, denoise, jpeg, pairs, or a plug-in's
    config.seed = 0  # of the initial weights and of every batch

    config.model = ConfigDict()
    config.model.architecture = 'residual'  # residual: the paper's network; chain: VDSR, DnCNN, ARCNN
    config.model.scale = 1  # of the output to the input
    config.model.channels = 3  # 3 RGB, 1 gray
    config.model.num_blocks = 16  # residual blocks
    config.model.features = 64  # channels between blocks
    config.model.width_multiplier = 1  # hidden channels of a block over features
    config.model.groups = 1  # k sparsity groups; 1 = plain convolutions
    config.model.cardinality = 1  # d parts of the channels that choose on their own
    config.model.gate = 'softmax'  # softmax, sigmoid, uniform (no adaptivity), hard (inference only)
    config.model.gate_pooling = 'mean'  # what a gate reads: mean, normalized_mean, rms, mean_and_deviation
    config.model.gate_scale = 1.0  # what the gates' logits are multiplied by
    config.warm_start = ''  # run or checkpoint whose weights a new run begins with; of another scale: tail and skip new
    config.compute_dtype = 'float32'  # of the convolutions: float32 or bfloat16; parameters are float32
    config.remat = False  # compute each block again in the backward pass: less memory, more time

    config.data = ConfigDict()
    config.data.source = 'div2k'  # div2k, div2k/bicubic_x2 (…x3, …x4), photos, or a folder of images or pairs
    config.data.split = 'train'  # of the source
    config.data.data_dir = ''  # folder of benchmark sets; '' = $NSR_DATA_DIR
    config.data.tfds_dir = ''  # where prepared datasets are kept; '' = $TFDS_DATA_DIR or ~/tensorflow_datasets
    config.data.resident_megabytes = 16_000  # images up to this lie on each device; more are streamed from a file
    config.data.store_dir = ''  # where that file is kept; '' = image_stores in the folder of prepared datasets
    config.data.patch_size = 48  # side of an input patch, in input (for SR: low-resolution) pixels
    config.data.margin = 2  # input pixels at the image's border that are never sampled

    config.degradation = ConfigDict()  # what a task makes of clean images, by its own names
    config.degradation.sigma = (25.0, 25.0)  # denoise: lowest and highest standard deviation of the noise, of 255
    config.degradation.quality = (10, 10)  # jpeg: lowest and highest quality, by libjpeg's rule

    config.batch_size = 16  # patches a step, over all devices
    config.microbatch_size = 0  # patches that a device computes at once; 0 = 1 on a CPU, elsewhere all of its part
    config.num_steps = 1_500_000  # of the optimizer
    config.loss = ConfigDict()  # weights of what is minimised, on images of a range of 1; 0: it is left out
    config.loss.l1 = 1.0  # mean absolute error
    config.loss.l2 = 0.0  # mean squared error
    config.loss.charbonnier = 0.0  # L1 that is smooth at zero
    config.loss.fft = 0.0  # L1 of the 2-D spectrum
    config.loss.ms_ssim = 0.0  # 1 - multi-scale structural similarity

    config.optimizer = ConfigDict()
    config.optimizer.name = 'adam'  # adam, adamw, lion, muon, schedule_free
    config.optimizer.b1 = placeholder(float)  # decay of the mean gradient; None, here and below: the optimizer's own
    config.optimizer.b2 = placeholder(float)  # decay of the mean squared gradient
    config.optimizer.eps = placeholder(float)  # added to what is divided by
    config.optimizer.momentum = placeholder(float)  # of muon
    config.optimizer.weight_decay = placeholder(float)  # of kernels; scales, biases and gates have none
    config.optimizer.gate_rate = 1.0  # of the gates' steps, by which they are longer than those of other weights
    config.optimizer.clip_norm = 0.0  # gradients with a larger norm are scaled down to it; 0 = never
    config.optimizer.accumulate_steps = 1  # steps whose gradients are averaged before the weights change
    config.learning_rate = 1e-3  # of the optimizer, at the start
    config.learning_rate_schedule = 'steps'  # steps, cosine (to 0), constant
    config.warmup_steps = 0  # over which the rate rises from 0 first
    config.learning_rate_drops = (2 / 3, 5 / 6)  # fractions of num_steps after which the rate of `steps` drops
    config.learning_rate_factor = 0.2  # by which it drops
    config.ema_decay = 0.0  # of a moving average of the weights, such as 0.999, which is then what is used; 0 = none
    config.stop_after_skipped = 10  # steps in a row whose loss or gradient is not finite; each alone is skipped

    config.mesh = ConfigDict()
    config.mesh.data = -1  # devices that share the batch and hold the same parameters; -1 = all that are left
    config.mesh.fsdp = 1  # devices that share the batch and split the parameters among them

    config.steps_per_call = 10  # at most so many steps in one call of the compiled function
    config.log_every_steps = 100  # a line of metrics
    config.evaluate_every_steps = 50_000  # scores of the validation images, and a checkpoint
    config.checkpoint_every_steps = 10_000  # what a stopped run loses at most
    config.checkpoints_to_keep = 3  # the last ones; the best one is kept beside them

    config.validation = ConfigDict()  # chooses the best checkpoint; its images are not trained on
    config.validation.source = ''  # '': of the training images, those of DIV2K's own validation set or held-out ones
    config.validation.split = ''  # of that source; '': the one for evaluation
    config.validation.fraction = 0.05  # of the training images, by their names; at least one; 0: none
    config.validation.images = ()  # names of those that are held out, instead of a fraction
    config.validation.protocol = 'sr-y'  # how a prediction is scored
    config.validation.levels = ()  # sigmas or JPEG qualities to score at, of which the mean counts; none for scales
    config.validation.metric = 'psnr'  # which of the scores chooses
    config.validation.test_sets = ''  # names or folders, scored on the way as well: they choose nothing

    config.evaluation = ConfigDict()  # what eval.py does by default
    config.evaluation.datasets = 'div2k'  # names or folders with commas between
    config.evaluation.protocol = 'sr-y'  # how a prediction is scored
    config.evaluation.metrics = 'psnr,ssim'  # numbers to score by: psnr, ssim, ms_ssim, mae
    config.evaluation.levels = ()  # sigmas or JPEG qualities to score at; none for super-resolution
    config.evaluation.tiling = 'feathered'  # feathered tiles; authors: their patches above 192 pixels; whole image
    config.evaluation.tile = 96  # side of a feathered tile, in input pixels
    config.evaluation.overlap = 16  # input pixels that neighbouring tiles share at least
    return config


def check(config: ConfigDict) -> None:
    """Check the values of fields that stand for themselves; whoever reads a name or a section of options checks that.

    Raises:
        ValueError: a value that makes no sense; the line names it and what would be accepted.
    """
    for name, accepts, wanted in CHECKS:
        value = config
        for part in name.split('.'):
            value = value[part]
        if not accepts(value):
            raise ValueError(f'config.{name} must be {wanted}, not {value!r}')


def _is_whole(value: object, least: int, below: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < below


def _is_count(value: object) -> bool:
    return _is_whole(value, 1, 2**31)


def _is_whole_from_0(value: object) -> bool:
    return _is_whole(value, 0, 2**31)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _are_fractions(values: Iterable[Any]) -> bool:
    return all(_is_number(value) and value <= 1 for value in values)


# By field: whether a value is accepted, and which are, in words. In the order of the fields.
COUNT = (_is_count, 'a whole number from 1, and below 2^31')
FROM_0 = (_is_whole_from_0, 'a whole number from 0')
CHECKS = (
    ('seed', lambda value: _is_whole(value, 0, 2**32), 'a whole number from 0, and below 2^32'),
    ('data.resident_megabytes', _is_number, 'from 0'),
    ('data.patch_size', *COUNT),
    ('data.margin', *FROM_0),
    ('batch_size', *COUNT),
    ('microbatch_size', *FROM_0),
    ('num_steps', *COUNT),
    ('learning_rate', lambda value: _is_number(value) and value > 0, 'a number above 0'),
    ('warmup_steps', *FROM_0),
    ('learning_rate_drops', _are_fractions, 'numbers from 0 to 1'),
    ('learning_rate_factor', _is_number, 'a number from 0'),
    ('ema_decay', lambda value: _is_number(value) and value < 1, 'a number from 0 and below 1'),
    ('stop_after_skipped', *COUNT),
    ('steps_per_call', *COUNT),
    ('log_every_steps', *COUNT),
    ('evaluate_every_steps', *COUNT),
    ('checkpoint_every_steps', *COUNT),
    ('checkpoints_to_keep', *COUNT),
    ('validation.fraction', lambda value: _is_number(value) and value < 1, 'a number from 0 and below 1'),
)


def parse_arg(arg: str | None, **defaults: int | float | str | bool) -> ConfigDict:
    """Read `name=value,name=value` behind the colon of `--config=configs/sr.py:…`.

    Args:
        arg: the text behind the colon; None or '' for all defaults.
        **defaults: every accepted name with its default, whose type the value is read as.

    Raises:
        ValueError: an unknown name, a text without `=`, or a value of another type.
    """
    options = ConfigDict(defaults)
    read = set()
    for item in (arg or '').split(','):
        if not item:
            continue
        name, equals, text = item.partition('=')
        if name in read:
            raise ValueError(f'{name} is given twice behind the colon')
        read.add(name)
        if name not in defaults or not equals:
            raise ValueError(f'cannot read {item!r} behind the colon: give name=value with {", ".join(defaults)}')
        kind = type(defaults[name])
        if kind is bool:
            if text.lower() not in ('true', 'false'):
                raise ValueError(f'{name} must be true or false, not {text!r}')
            options[name] = text.lower() == 'true'
            continue
        try:
            options[name] = kind(text)
        except ValueError as error:
            raise ValueError(f'{name} must be of type {kind.__name__}, not {text!r}') from error
    return options
