"""Real plans of a tiny network: what the compilers for TPUs and NVIDIA's GPUs make of the train step.

`make test-compile` runs these with the compilers; they are skipped where there are none.
"""

import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

from nsr_jax.planning.hlo import MOVES, PRODUCTS

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = {'tpu-compile': 'libtpu', 'cuda-compile': 'jax_cuda12_plugin'}
DEVICES = {'v5e:2x2': 4, 'v6e:2x2': 4, 'h100:2': 2}

# Those of a target go to one process, which compiles its step once; .ci/run takes the first.
TARGETS = [
    pytest.param(name, marks=[pytest.mark.xdist_group(name), *([] if name == 'v5e:2x2' else [pytest.mark.long])])
    for name in DEVICES
]

pytestmark = [pytest.mark.slow, pytest.mark.compile]


@pytest.fixture(scope='module', params=TARGETS)
def plan(request, tmp_path_factory):
    """The JSON that the command writes for EDSR-S + NSR with one block, in bfloat16."""
    extra = 'cuda-compile' if request.param.startswith('h100') else 'tpu-compile'
    if importlib.util.find_spec(PACKAGES[extra]) is None:
        pytest.skip(f'{PACKAGES[extra]} is missing: pip install "nsr-jax[{extra}]"')
    path = tmp_path_factory.mktemp('plan') / 'plan.json'
    command = [sys.executable, 'train.py', '--config=configs/sr.py:scale=2,preset=edsr_s_nsr']
    command += ['--config.model.num_blocks=1', '--config.compute_dtype=bfloat16', '--config.batch_size=8']
    command += [f'--compile_for={request.param}', f'--compile_report={path}']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr
    assert f'# Plan for {request.param}' in done.stdout
    return json.loads(path.read_text(encoding='utf-8'))


def test_the_step_fits(plan):
    memory = plan['memory']
    assert plan['fits'] and plan['devices'] == DEVICES[plan['compiled_for']]
    assert memory['images'] == 800 * 3 * (2040**2 + 1020**2) + 800 * 2 * 4
    assert memory['peak'] < memory['available']
    assert 0 <= memory['padding'] < 0.05 * memory['images']


def test_no_image_is_copied_in_a_call(plan):
    assert plan['memory']['temporaries'] < 0.5e9
    assert plan['step']['moved_bytes_of_a_call_outside_of_steps'] < 0.1e9
    assert plan['step']['moved_bytes'] < 1e9


def test_devices_exchange_nothing_but_the_gradients_once(plan):
    found = plan['step']['collectives']
    assert list(found) == ['all-reduce']
    # The metrics go along, and the biases of tail and skip have one gradient.
    assert abs(found['all-reduce']['bytes'] - plan['memory']['parameters']) < 1e3


def test_the_convolutions_are_the_kernels_for_tpus(plan):
    """Of the block's two convolutions, on each device in one piece; on GPUs, where nothing has confirmed them, none."""
    kernels = {'sparse_conv': 2, 'sparse_conv_gradients': 2}
    assert plan['step']['kernels'] == ({} if plan['compiled_for'].startswith('h100') else kernels)


def test_the_compiler_says_where_the_time_goes(plan):
    step = plan['step']
    assert step['seconds_at_least'] > 0
    if plan['compiled_for'].startswith('h100'):
        assert step['estimated_cycles'] == 0
    else:
        # The kernels, which have no estimate, mix in their own work.
        assert {PRODUCTS, MOVES} <= step['share_by_kind'].keys()
        assert {'gates', 'optimizer', 'convolutions, forward'} <= step['share_by_part'].keys()
