"""More sparsity groups, and so more parameters, at the same computation (Fan et al., table 3).

    python -m nsr_jax.sweep configs/sweeps/capacity.py --workdir=runs/capacity
    python -m nsr_jax.sweep configs/sweeps/capacity.py --workdir=runs/capacity_laptop --scale=laptop

EDSR-S with banks of k kernels in place of each; `k_1` is the plain network. The paper: accuracy rises up to 16 groups.
With --scale=laptop, 4 blocks of 32 features learn from 379 photographs for 1,200 steps of 8 patches.
"""

from typing import Any

from configs.base import check
from configs.sweep_scales import LAPTOP, SHARED

CONFIG = 'configs/sr.py:scale=2,preset=edsr_s'
SEEDS = (0, 1, 2)
AXIS = 'model.groups'


def get_members() -> list[tuple[str, dict[str, Any]]]:
    """Plain convolutions, then 2 to 16 groups."""
    sparse = [(f'k_{groups}', {'model.groups': groups, 'model.cardinality': 16}) for groups in (2, 4, 8, 16)]
    return [('k_1', {}), *sparse]
