"""The check of a device's sparse convolutions: that it sees a wrong one, and that a run on a TPU begins with it."""

import jax
import jax.numpy as jnp
import pytest

from configs import sr
from nsr_jax.errors import UserError
from nsr_jax.ops import _conv_cpu
from nsr_jax.training import run
from nsr_jax.training.self_check import check_sparse_convolutions

PARAMS = {'head': jnp.zeros((3, 3, 3, 4)), 'block': {'direction': jnp.zeros((3, 3, 4, 2, 2, 2))}}


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_right_convolutions_pass(dtype):
    check_sparse_convolutions(PARAMS, 5, dtype)


@pytest.mark.parametrize(
    ('name', 'what'),
    [('convolve', 'the output'), ('transpose', 'the gradient of x'), ('correlate', 'the gradient of the bank')],
)
def test_a_wrong_kernel_is_seen(monkeypatch, name, what):
    right = getattr(_conv_cpu, name)
    monkeypatch.setattr(_conv_cpu, name, lambda *arguments, **options: 1.1 * right(*arguments, **options))
    with pytest.raises(UserError, match=f'^cpu computes .* of 5x5x4 in float32 wrongly: {what} differs .* by 0.1 of'):
        check_sparse_convolutions(PARAMS, 5, 'float32')


@pytest.mark.parametrize('platform', ['tpu', 'cpu'])
def test_a_run_on_a_tpu_begins_with_it(monkeypatch, platform):
    config = sr.get_config('scale=2,preset=edsr_s_nsr')
    config.model.num_blocks = 1
    seen = []

    def stop(*arguments):
        raise StopIteration

    monkeypatch.setattr(jax, 'default_backend', lambda: platform)
    monkeypatch.setattr(run, 'check_sparse_convolutions', lambda params, *others: seen.append(others))
    monkeypatch.setattr(run, 'TrainingImages', stop)
    with pytest.raises(StopIteration):
        run.prepare_run(config)
    assert seen == ([(config.data.patch_size, config.compute_dtype)] if platform == 'tpu' else [])
