"""A search for the learning rates of a small network, and for how many patches a step takes.

    python -m nsr_jax.sweep configs/sweeps/search_rate.py --workdir=runs/rate --search=halving --trials=30

Every trial learns from 379 photographs with the first seed. By `halving` a trial goes on after 1 and 3 of its 9
validations only if it is among the better third. `python -m nsr_jax.sweep configs/sweeps/search_rate.py --list
--search=halving` prints the ranges. To prove a winner, make it a member of a sweep with several seeds.
"""

from typing import Any

from configs.base import check

CONFIG = 'configs/sr.py:scale=2,preset=edsr_s_nsr'
SEEDS = (0, 1, 2)
SHARED = {
    'model.num_blocks': 4,
    'model.features': 32,
    'data.source': 'bsds400',
    'data.patch_size': 32,
    'num_steps': 1_800,
    'evaluate_every_steps': 200,
    'checkpoint_every_steps': 200,
}
RANGES = {
    'learning_rate': ('log', 1e-4, 1e-2),
    'optimizer.gate_rate': ('log', 1.0, 100.0),
    'batch_size': ('choice', 8, 16),
}


def get_members() -> list[tuple[str, dict[str, Any]]]:
    """The paper's learning rate, which trials change."""
    return [('paper', {})]
