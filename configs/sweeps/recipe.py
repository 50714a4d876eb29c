"""How to train: schedules, rates, averages, batches, losses and optimizers, on a small network.

    python -m nsr_jax.sweep configs/sweeps/recipe.py --workdir=runs/recipe

`paper` is the recipe of Fan et al., with its drops at 2/3 and 5/6 of the steps. All members have gates that choose
(docs/studies.md), see as many patches, and are scored on held-out training images; a run of an average is scored by it.
"""

from typing import Any

from configs.base import check
from configs.sweep_scales import SMALL

CONFIG = 'configs/sr.py:scale=2,preset=edsr_s_nsr'
SEEDS = (0, 1, 2)
SHARED = {
    **SMALL,
    'model.gate_pooling': 'rms',
    'model.gate_scale': 10.0,
    'num_steps': 10_000,
    'evaluate_every_steps': 10_000,
    'checkpoint_every_steps': 1_000,
}
COSINE = {'learning_rate_schedule': 'cosine'}


def get_members() -> list[tuple[str, dict[str, Any]]]:
    """The paper's recipe, a cosine, and the cosine with one thing changed."""
    return [
        ('paper', {}),
        ('cosine', COSINE),
        ('cosine_average', COSINE | {'ema_decay': 0.999}),
        ('cosine_rate_2e-3', COSINE | {'learning_rate': 2e-3}),
        ('cosine_batch_8', COSINE | {'batch_size': 8, 'num_steps': 20_000, 'evaluate_every_steps': 20_000}),
        ('cosine_charbonnier', COSINE | {'loss.l1': 0.0, 'loss.charbonnier': 1.0}),
        ('cosine_muon', COSINE | {'optimizer.name': 'muon'}),
        ('schedule_free', {'learning_rate_schedule': 'constant', 'optimizer.name': 'schedule_free'}),
    ]
