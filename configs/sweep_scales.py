"""Overrides that sweeps share: SHARED for all runs of the paper's studies, LAPTOP for --scale=laptop besides.

With LAPTOP, 4 blocks of 32 features learn from 379 photographs for 1,200 steps of 8 patches: about a minute and a
half for each run on 2 CPU cores. SMALL is the network, with its images, of the sweeps that ask what makes gates choose
and how to train.
"""

SHARED = {
    'num_steps': 100_000,
    'evaluate_every_steps': 10_000,
    'checkpoint_every_steps': 5_000,
}
SMALL = {
    'model.num_blocks': 6,
    'model.features': 24,
    'model.groups': 4,
    'model.cardinality': 8,
    'data.source': 'bsds400',
    'data.patch_size': 32,
    'batch_size': 16,
}
LAPTOP = {
    'model.num_blocks': 4,
    'model.features': 32,
    'data.source': 'bsds400',
    'data.patch_size': 32,
    'batch_size': 8,
    'num_steps': 1_200,
    'evaluate_every_steps': 1_200,
    'checkpoint_every_steps': 400,
}
