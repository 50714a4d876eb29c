"""What compilers for chips that are not there make of the sparse convolution: `make test-compile`.

Cycles are estimates of `benchmarks.compiled_conv`, over those of XLA's static convolution.
"""

import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
# What the ratios may be: 1 for the forward pass and 1.1 for both, with a margin. The first shape is compiled anywhere.
MOST = {'forward': 1.1, 'forward + backward': 1.2}
SHAPES = [(16, 48, 48, 64, 4, 16), (64, 48, 48, 64, 4, 16), (64, 48, 48, 128, 4, 16), (16, 96, 96, 64, 4, 16)]
# Of a GPU: how many times the bytes of the static convolution are moved.
GPU_MOVED = 13

pytestmark = [pytest.mark.slow, pytest.mark.compile]


def compare(package, chips, shape, folder):
    """The rows of the benchmark, by pass."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f'{package} is missing')
    command = [sys.executable, '-m', 'benchmarks.compiled_conv', f'--compile_for={chips}']
    command += [f'--shape={",".join(map(str, shape))}', f'--output={folder}/found.json']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr
    (table,) = json.loads((folder / 'found.json').read_text(encoding='utf-8'))['tables']
    return {row['pass']: row for row in table['rows']}


@pytest.mark.parametrize('shape', [SHAPES[0], *(pytest.param(each, marks=pytest.mark.long) for each in SHAPES[1:])])
@pytest.mark.parametrize('chips', ['v5e:2x2', pytest.param('v6e:2x2', marks=pytest.mark.long)])
def test_the_kernels_for_tpus_take_no_more_cycles_than_a_static_convolution(chips, shape, tmp_path):
    rows = compare('libtpu', chips, shape, tmp_path)
    kernels = {'forward': ['sparse_conv'], 'forward + backward': ['sparse_conv', 'sparse_conv_gradients']}
    assert {name: row['sparse']['kernels'] for name, row in rows.items()} == kernels
    least = shape[0] * shape[1] * shape[2] * 9 * shape[3] ** 2 / 4 / 256**2  # on full units of either chip
    for name, row in rows.items():
        assert row['static']['cycles'] > least
        assert 0.2 < row['ratio'] < MOST[name], name
        # In memory nothing lies between the kernels but the images.
        assert row['sparse']['moved_bytes'] < 1.1 * row['static']['moved_bytes'], name


def test_a_gpu_gets_products_and_no_kernel_that_none_has_confirmed(tmp_path):
    for row in compare('jax_cuda12_plugin', 'h100', SHAPES[0], tmp_path).values():
        assert row['sparse']['kernels'] == [] and row['sparse']['cycles'] is None
        assert row['sparse']['moved_bytes'] < GPU_MOVED * row['static']['moved_bytes']
