"""What all comparisons on the training data of published networks share."""

from ml_collections import ConfigDict

from configs.base import get_base
from configs.presets import PRESETS, set_model

STEPS = 100_000


def get_comparison(task: str, network: str, *, scale: int, channels: int, source: str, steps: int) -> ConfigDict:
    """A config of `task` that trains in bfloat16 on `source`, validated ten times on the way, saved twenty times.

    The weights to report are those that do best on held-out training images; no test image is looked at before.

    Raises:
        ValueError: `network` is not one of the paper's.
    """
    if network not in PRESETS:
        raise ValueError(f'network must be one of {", ".join(PRESETS)}, not {network!r}')
    config = get_base()
    config.task = task
    set_model(config, network, scale=scale, channels=channels)
    config.compute_dtype = 'bfloat16'
    config.data.source = source
    config.num_steps = steps
    config.steps_per_call = 100
    config.evaluate_every_steps = max(1, steps // 10)
    config.checkpoint_every_steps = max(1, steps // 20)
    return config
