"""Every field of a config, with its unit, default and accepted values; the configs of tasks fill in the rest."""

import math
from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_base() -> ConfigDict:
    """A config with every field; it trains nothing until a task's config has filled it in."""
    config = ConfigDict()
    config.task = ''  # sr, denoise, jpeg, pairs, or a plug-in's
    config.seed = 0  # of the initial weights and of every batch

    config.model = ConfigDict()
    config.model.architecture = 'residual'  # residual: the paper's network; chain: VDSR, DnCNN, ARCNN
    config.model.scale = 1  # size of the output over size of the input
    config.model.channels = 3  # 3 RGB, 1 gray
    config.model.num_blocks = 16  # residual blocks
    config.model.features = 64  # channels between blocks
    config.model.width_multiplier = 1  # hidden channels of a block over features
    config.model.groups = 1  # k sparsity groups; 1 = plain convolutions
    config.model.cardinality = 1  # d cardinal positions: parts of the channels that choose their groups independently
    config.model.gate = 'softmax'  # softmax, sigmoid, gumbel, hard (both straight-through), uniform; se for groups 1
    config.model.gate_pooling = 'mean'  # input of a gate: mean, normalized_mean, rms, mean_and_deviation
    config.model.gate_scale = 1.0  # factor of the gates' logits, 1 over their temperature
    config.model.gate_noise = 1.0  # factor of the noise that gumbel adds to them in training
    config.model.pruning = ''  # random, magnitude: keep one of the groups at each channel, for all inputs; '' = gates
    config.model.threshold = 'relu'  # in a block: relu, soft (soft-thresholding with trained thresholds)
    config.warm_start = ''  # run or checkpoint for the initial weights; tail and skip stay new if its scale differs
    config.compute_dtype = 'float32'  # of the convolutions: float32 or bfloat16; parameters are float32
    config.remat = False  # recompute each block in the backward pass: less memory, more time

    config.data = ConfigDict()
    config.data.source = 'div2k'  # div2k, div2k/bicubic_x2 (…x3, …x4), photos, or a folder of images or pairs
    config.data.split = 'train'  # of the source
    config.data.data_dir = ''  # folder of benchmark sets; '' = $NSR_DATA_DIR
    config.data.tfds_dir = ''  # folder of prepared datasets; '' = $TFDS_DATA_DIR or ~/tensorflow_datasets
    config.data.resident_megabytes = 16_000  # more images are streamed from a file; fewer are kept on each device
    config.data.store_dir = ''  # folder of that file; '' = image_stores in the folder of prepared datasets
    config.data.patch_size = 48  # side of an input patch, in input (for SR: low-resolution) pixels
    config.data.margin = 2  # input pixels at the image's border that are never sampled

    config.degradation = ConfigDict()  # of clean images; each task has its own fields
    config.degradation.sigma = (25.0, 25.0)  # denoise: lowest and highest standard deviation of the noise, of 255
    config.degradation.shared_noise = 0.0  # denoise: fraction of samples whose channels share noise, wholly or in part
    config.degradation.quality = (10, 10)  # jpeg: lowest and highest quality, by libjpeg's rule
    config.degradation.subsampling = ('4:2:0',)  # jpeg in RGB: chroma, 4:2:0 (half), 4:4:4 (full), or both

    config.batch_size = 16  # patches a step, over all devices
    config.microbatch_size = 0  # patches that a device computes at once; 0 = 1 on a CPU, elsewhere its whole part
    config.num_steps = 1_500_000  # of the optimizer
    config.loss = ConfigDict()  # weights of the terms, on images with a range of 1; terms of weight 0 are not computed
    config.loss.l1 = 1.0  # mean absolute error
    config.loss.l2 = 0.0  # mean squared error
    config.loss.charbonnier = 0.0  # L1 that is smooth at zero
    config.loss.fft = 0.0  # L1 of the 2-D spectrum
    config.loss.ms_ssim = 0.0  # 1 - multi-scale structural similarity

    config.optimizer = ConfigDict()
    config.optimizer.name = 'adam'  # adam, adamw, lion, muon, schedule_free
    config.optimizer.b1 = placeholder(float)  # decay of the mean gradient; None: the optimizer's default, as below
    config.optimizer.b2 = placeholder(float)  # decay of the mean squared gradient
    config.optimizer.eps = placeholder(float)  # added to the denominator
    config.optimizer.momentum = placeholder(float)  # of muon
    config.optimizer.weight_decay = placeholder(float)  # of kernels; scales, biases and gates have none
    config.optimizer.gate_rate = 1.0  # factor of the gates' learning rate
    config.optimizer.clip_norm = 0.0  # larger gradients are scaled down to this norm; 0 = never
    config.optimizer.accumulate_steps = 1  # steps whose gradients are averaged before the weights change
    config.learning_rate = 1e-3  # of the optimizer, at the start
    config.learning_rate_schedule = 'steps'  # steps, cosine (to 0), constant
    config.warmup_steps = 0  # over which the rate first rises from 0
    config.gate_warmup_steps = 0  # over which the gates' logits first rise from 0: their temperature falls
    config.learning_rate_drops = (2 / 3, 5 / 6)  # fractions of num_steps after which the rate of `steps` drops
    config.learning_rate_factor = 0.2  # by which it drops
    config.ema_decay = 0.0  # such as 0.999, of an average of the weights, which then replaces them; 0 = no average
    config.stop_after_skipped = 10  # non-finite steps in a row, after which training stops; each alone is skipped

    config.mesh = ConfigDict()
    config.mesh.data = -1  # devices that share the batch and hold the same parameters; -1 = all remaining ones
    config.mesh.fsdp = 1  # devices that share the batch and split the parameters among them

    config.trackers = ''  # beside metrics.jsonl and TensorBoard: wandb, mlflow, or both with a comma
    config.steps_per_call = 10  # limit of the steps in one call of the compiled function
    config.log_every_steps = 100  # steps between lines of metrics
    config.evaluate_every_steps = 50_000  # steps between validations, each with a checkpoint
    config.checkpoint_every_steps = 10_000  # steps between checkpoints: a killed run loses no more
    config.checkpoints_to_keep = 3  # the last ones, and the best one besides

    config.validation = ConfigDict()  # chooses the best checkpoint; its images are not trained on
    config.validation.source = ''  # '' = held-out training images, or DIV2K's own validation set
    config.validation.split = ''  # of that source; '' = the one for evaluation
    config.validation.fraction = 0.05  # of the training images, chosen by name; at least one; 0 = none
    config.validation.images = ()  # names of the held-out images, instead of a fraction
    config.validation.protocol = 'sr-y'  # how a prediction is scored
    config.validation.levels = ()  # sigmas or JPEG qualities to average over; none for super-resolution
    config.validation.metric = 'psnr'  # chooses the best checkpoint
    config.validation.samples = 2  # images whose middle is shown as input, prediction and truth by TensorBoard
    config.validation.test_sets = ''  # names or folders to score during training, too; they choose nothing

    config.evaluation = ConfigDict()  # defaults of eval.py
    config.evaluation.datasets = 'div2k'  # names or folders, separated by commas
    config.evaluation.protocol = 'sr-y'  # how a prediction is scored
    config.evaluation.metrics = 'psnr,ssim'  # of psnr, ssim, ms_ssim, mae
    config.evaluation.levels = ()  # sigmas or JPEG qualities to score at; none for super-resolution
    config.evaluation.tiling = 'feathered'  # feathered tiles; authors: their patches above 192 pixels; whole image
    config.evaluation.tile = 96  # side of a feathered tile, in input pixels
    config.evaluation.overlap = 16  # input pixels that neighbouring tiles share at least
    return config


def complete(config: ConfigDict) -> ConfigDict:
    """A config of an earlier version, with the defaults of fields that it does not have; it can be changed."""
    with get_base().unlocked() as whole:
        whole.update(config)
    return whole


def check(config: ConfigDict) -> None:
    """Check all fields that can be checked alone; names and sections of options are checked where they are used.

    Raises:
        ValueError: a value makes no sense; the line names it and what would be accepted.
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


# For each field: whether a value is accepted, and the accepted values in words; in the order of the fields.
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
    ('gate_warmup_steps', *FROM_0),
    ('learning_rate_drops', _are_fractions, 'numbers from 0 to 1'),
    ('learning_rate_factor', _is_number, 'a number from 0'),
    ('ema_decay', lambda value: _is_number(value) and value < 1, 'a number from 0 and below 1'),
    ('stop_after_skipped', *COUNT),
    ('steps_per_call', *COUNT),
    ('log_every_steps', *COUNT),
    ('evaluate_every_steps', *COUNT),
    ('checkpoint_every_steps', *COUNT),
    ('checkpoints_to_keep', *COUNT),
    ('validation.samples', *FROM_0),
    ('validation.fraction', lambda value: _is_number(value) and value < 1, 'a number from 0 and below 1'),
)


def parse_arg(arg: str | None, **defaults: int | float | str | bool) -> ConfigDict:
    """Read `name=value,name=value` after the colon of `--config=configs/sr.py:…`.

    Args:
        arg: the text after the colon; None or '' for all defaults.
        **defaults: every accepted name with its default, whose type the value must have.

    Raises:
        ValueError: a name is unknown or given twice, an `=` is missing, or a value has another type.
    """
    options = ConfigDict(defaults)
    read = set()
    for item in (arg or '').split(','):
        if not item:
            continue
        name, equals, text = item.partition('=')
        if name in read:
            raise ValueError(f'{name} is given twice after the colon')
        read.add(name)
        if name not in defaults or not equals:
            raise ValueError(f'cannot read {item!r} after the colon: give name=value with {", ".join(defaults)}')
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
