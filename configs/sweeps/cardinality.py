"""More cardinality at the same number of groups and the same computation (Fan et al., figure 4).

    python -m nsr_jax.sweep configs/sweeps/cardinality.py --workdir=runs/cardinality
    python -m nsr_jax.sweep configs/sweeps/cardinality.py --workdir=runs/cardinality_laptop --scale=laptop

EDSR-S with 4 sparsity groups, whose channels are split into d parts that choose on their own; `se` weighs the channels
of a single group. The paper: the larger d, the better, and `se` is worse. With --scale=laptop, 4 blocks of 32 features
learn from 379 photographs for 1,200 steps of 8 patches.
"""

from typing import Any

from configs.base import check
from configs.sweep_scales import LAPTOP, SHARED

CONFIG = 'configs/sr.py:scale=2,preset=edsr_s_nsr'
SEEDS = (0, 1, 2)
AXIS = 'model.cardinality'


def get_members() -> list[tuple[str, dict[str, Any]]]:
    """One part to 32, each a divisor of the features at both scales, and squeeze-and-excitation."""
    cardinalities = [(f'd_{parts}', {'model.cardinality': parts}) for parts in (1, 2, 4, 8, 16, 32)]
    return [*cardinalities, ('se', {'model.groups': 1, 'model.cardinality': 1, 'model.gate': 'se'})]
