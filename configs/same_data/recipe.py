"""What all comparisons with published networks on the same training data have in common."""

from ml_collections import ConfigDict

from configs.base import get_base
from configs.presets import PRESETS, set_model

STEPS = 100_000


def get_comparison(task: str, network: str, *, scale: int, channels: int, source: str, steps: int) -> ConfigDict:
    """A config of `task` that trains in bfloat16 on `source`, is validated ten times and saved twenty times.

    The weights to report are those that score best on held-out training images; no test image is used before that.

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
