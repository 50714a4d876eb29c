"""Candidates are written as their users write them: they rely on what JAX converts and broadcasts by itself."""

import jax
import pytest


@pytest.fixture(scope='module', autouse=True)
def lenient_promotion():
    with (
        pytest.MonkeyPatch.context() as patch,
        jax.numpy_dtype_promotion('standard'),
        jax.numpy_rank_promotion('allow'),
    ):
        patch.setenv('JAX_NUMPY_DTYPE_PROMOTION', 'standard')
        patch.setenv('JAX_NUMPY_RANK_PROMOTION', 'allow')
        yield
