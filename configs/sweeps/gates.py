"""What makes gates choose: their input, their reach and the length of their steps, on a small network.

    python -m nsr_jax.sweep configs/sweeps/gates.py --workdir=runs/gates

The paper's gate reads the mean of each feature. Mean features are small beside their spread over an image, so that the
logits hardly depend on the input: each member changes what is read, or how far a logit or a step reaches. The
temperature of `falling` comes down to that of `rms_scale_10` in the first half. `uniform` has no choice at all and is
the floor.
"""

from typing import Any

from configs.base import check
from configs.sweep_scales import SMALL

CONFIG = 'configs/sr.py:scale=2,preset=edsr_s_nsr'
SEEDS = (0, 1, 2)
SHARED = {
    **SMALL,
    'num_steps': 2_500,
    'learning_rate_schedule': 'steps',
    'validation.fraction': 0.05,
    'evaluate_every_steps': 2_500,
    'checkpoint_every_steps': 500,
}


def get_members() -> list[tuple[str, dict[str, Any]]]:
    """The paper's gate, and others."""
    return [
        ('paper', {}),
        ('scale_10', {'model.gate_scale': 10.0}),
        ('normalized_mean', {'model.gate_pooling': 'normalized_mean'}),
        ('rms', {'model.gate_pooling': 'rms'}),
        ('mean_and_deviation', {'model.gate_pooling': 'mean_and_deviation'}),
        ('rate_3', {'optimizer.gate_rate': 3.0}),
        ('rate_10', {'optimizer.gate_rate': 10.0}),
        ('rate_30', {'optimizer.gate_rate': 30.0}),
        ('rms_scale_10', {'model.gate_pooling': 'rms', 'model.gate_scale': 10.0}),
        ('falling', {'model.gate_pooling': 'rms', 'model.gate_scale': 10.0, 'gate_warmup_steps': 1_250}),
        ('uniform', {'model.gate': 'uniform'}),
    ]
