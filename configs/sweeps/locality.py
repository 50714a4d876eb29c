"""Over what a gate pools, in training and in evaluation.

    python -m nsr_jax.sweep configs/sweeps/locality.py --workdir=runs/locality
    python -m nsr_jax.sweep configs/sweeps/locality.py --workdir=runs/locality_laptop --scale=laptop

A gate pools over all that the network is given: patches in training, tiles or the whole image in evaluation. The names
of members give both, in input pixels. Every training sees as many pixels a step, a fourth of the paper's: larger
patches are fewer. Members that differ in the evaluation alone share one training. A convolution does not see past its
tile either, so the `plain` members, which have no gates, show how much of a difference comes from that alone. With
--scale=laptop, 4 blocks of 32 features learn from 379 photographs for 600 steps.
"""

from typing import Any

from configs import sweep_scales
from configs.base import check
from configs.sweep_scales import SHARED

CONFIG = 'configs/sr.py:scale=2,preset=edsr_s_nsr'
SEEDS = (0, 1, 2)
LAPTOP = {**sweep_scales.LAPTOP, 'num_steps': 600, 'evaluate_every_steps': 600}
PLAIN = {'model.groups': 1, 'model.cardinality': 1}


def over(patch: int, tile: int | None) -> dict[str, Any]:
    """Training on patches of one side, evaluation on tiles of another; None: on whole images."""
    training = {'data.patch_size': patch, 'batch_size': 4 * 48**2 // patch**2}
    if tile is None:
        return training | {'evaluation.tiling': 'whole'}
    return training | {'evaluation.tile': tile, 'evaluation.overlap': 8}


def get_members() -> list[tuple[str, dict[str, Any]]]:
    """The paper's patches with every evaluation, then other patches, then networks without gates."""
    pairs = [(48, 48), (48, 24), (48, 96), (48, None), (24, 24), (24, None), (96, 96), (96, None)]
    gated = [(f'patch_{patch}_{tile or "whole"}', over(patch, tile)) for patch, tile in pairs]
    plain = [(f'plain_{patch}_{tile or "whole"}', PLAIN | over(patch, tile)) for patch, tile in pairs[:4]]
    return gated + plain
