"""The same size at half of the computation (Fan et al., table 2).

    python -m nsr_jax.sweep configs/sweeps/efficiency.py --workdir=runs/efficiency
    python -m nsr_jax.sweep configs/sweeps/efficiency.py --workdir=runs/efficiency_laptop --scale=laptop

A denoising network with plain convolutions, `plain`; with blocks of half its width but 2 groups, `half`, which has its
size; and with blocks of half its width alone, `small`. The paper: `half` loses nothing. For other sizes, set another
number of features for all members, in another workdir:

    python -m nsr_jax.sweep configs/sweeps/efficiency.py --workdir=runs/efficiency_64 --set=model.features=64

With --scale=laptop, 4 blocks of 32 features learn from 379 photographs for 1,200 steps of 8 patches.
"""

from typing import Any

from configs.base import check
from configs.sweep_scales import LAPTOP, SHARED

CONFIG = 'configs/denoise.py:sigma=25,channels=1,preset=resnet'
SEEDS = (0, 1, 2)
AXIS = 'multi_adds'


def get_members() -> list[tuple[str, dict[str, Any]]]:
    """Plain blocks, and two kinds of blocks of half their width."""
    half = {'model.width_multiplier': 1}
    return [('plain', {}), ('half', half | {'model.groups': 2, 'model.cardinality': 16}), ('small', half)]
