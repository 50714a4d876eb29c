"""Ways to make hidden layers sparse, at the same computation (Fan et al., table 1).

    python -m nsr_jax.sweep configs/sweeps/constraints.py --workdir=runs/constraints
    python -m nsr_jax.sweep configs/sweeps/constraints.py --workdir=runs/constraints_laptop --scale=laptop

EDSR-S whose layers hold 4 groups of filters. A gate weighs them (`softmax`, `sigmoid`) or chooses one (`gumbel`,
`hard`) for each input; they are averaged (`uniform`), or one is kept for all inputs (`pruned_…`, by the magnitude of
the weights of the moment, as all start alike). With a single group, `se` weighs the channels, and `relu` and
`soft_threshold` have thresholds alone. `softmax_far` is softmax whose logits reach ten times as far (docs/studies.md).
The paper: softmax beats the others. With --scale=laptop, 4 blocks of 32 features learn from 379 photographs for 1,200
steps of 8 patches.
"""

from typing import Any

from configs.base import check
from configs.sweep_scales import LAPTOP, SHARED

CONFIG = 'configs/sr.py:scale=2,preset=edsr_s_nsr'
SEEDS = (0, 1, 2)
ONE_GROUP = {'model.groups': 1, 'model.cardinality': 1}


def get_members() -> list[tuple[str, dict[str, Any]]]:
    """The paper's gate, other gates, fixed choices, and networks with a single group."""
    return [
        ('softmax', {}),
        ('softmax_far', {'model.gate_pooling': 'rms', 'model.gate_scale': 10.0}),
        *((gate, {'model.gate': gate}) for gate in ('sigmoid', 'gumbel', 'hard', 'uniform')),
        *((f'pruned_{name}', {'model.pruning': name}) for name in ('random', 'magnitude')),
        ('se', ONE_GROUP | {'model.gate': 'se'}),
        ('relu', ONE_GROUP),
        ('soft_threshold', ONE_GROUP | {'model.threshold': 'soft'}),
    ]
