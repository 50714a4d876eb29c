"""The commands as they are run, on shapes that take no time, without what a machine for benchmarks may lack."""

import json
import os
import pathlib
import subprocess
import sys
from typing import get_args

import pytest

from nsr_jax.ops.conv import Implementation

ROOT = pathlib.Path(__file__).parents[2]

RUN = """
import runpy, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in ('tensorflow', 'tensorflow_datasets', 'array_record', 'tensorboardX', 'skimage'):
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Blocker())
runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)
"""


def start(module, *arguments):
    command = [sys.executable, '-c', RUN, f'benchmarks.{module}', *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process, path):
    """The JSON that a command has written, and what it printed."""
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert path.with_suffix('.md').read_text(encoding='utf-8') == output
    return json.loads(path.read_text(encoding='utf-8')), output


@pytest.mark.slow
def test_sample_conv_and_memory_of_train_step(tmp_path):
    convolution, step = tmp_path / 'convolution.json', tmp_path / 'step.json'
    tiny = ['--presets=resnet', '--num_blocks=1', '--batch_size=2', '--patch_size=4']
    processes = [
        start('sample_conv', '--shape=2,5,6,4,2,2', '--rounds=3', '--calls=1', '--notorch', f'--output={convolution}'),
        start('train_step', '--memory', *tiny, f'--output={step}'),
    ]
    report, markdown = finish(processes[0], convolution)
    assert {'device', 'jax', 'jaxlib', 'python', 'dtype'} <= report['environment'].keys()
    peak, *passes = report['tables']
    assert peak['peak_flops_per_second'] > 0
    assert [table['title'].partition(',')[0] for table in passes] == ['forward', 'forward + backward']
    for table in passes:
        rows = {row['candidate']: row for row in table['rows']}
        assert {'static, XLA', 'static, ours', *get_args(Implementation)} <= rows.keys()
        assert rows[table['floor']]['ratio']['median'] == 1
        for row in rows.values():
            assert len(row['seconds']) == 3
            assert row['error'] < 1e-5
            assert 0 < row['share_of_peak'] < 1
            assert row['compile_seconds'] > 0
    assert '(B, H, W, C, k, d) = (2, 5, 6, 4, 2, 2), float32' in markdown
    assert '| vmap |' in markdown

    report, markdown = finish(processes[1], step)
    (table,) = report['tables']
    assert table['title'] == 'train step, compiled only, batch 2, patches 4x4, 1 blocks, float32'
    assert table['rows'][0]['peak_bytes'] > table['rows'][0]['temporary_bytes'] > 0
    assert '| resnet | 37,698 |' in markdown


@pytest.mark.parametrize(
    ('module', 'argument', 'message'),
    [
        ('train_step', '--presets=edsr_s,edsr_xl', "unknown preset 'edsr_xl': one of edsr_s,"),
        ('sample_conv', '--shape=16,48', "'16,48'"),
    ],
)
def test_mistakes(module, argument, message):
    process = start(module, argument)
    output, errors = process.communicate()
    assert process.returncode == 2
    assert output == ''
    assert errors.splitlines()[-1].startswith('error: ') and message in errors
    assert 'Traceback' not in errors


def test_the_script_for_a_gpu_is_shell():
    assert os.access(ROOT / 'benchmarks' / 'gpu.sh', os.X_OK)
    subprocess.run(['bash', '-n', ROOT / 'benchmarks' / 'gpu.sh'], check=True)
