"""What `--compile_for` accepts, and what a user sees where its compiler is missing."""

import importlib.util

import pytest

from nsr_jax.errors import UserError
from nsr_jax.planning.target import find_target


@pytest.mark.parametrize('name', ['v5e', 'v9:2x2', 'v5e:4', 'v5e:2x2 ', 'h100:0', 'h100:2x2x2', 'a100', ''])
def test_other_names_are_refused(name):
    with pytest.raises(UserError, match=f'--compile_for={name} names no chips .*v5e:2x2, .*h100:8'):
        find_target(name)


@pytest.mark.parametrize(
    ('name', 'extra'), [('v5e:2x2', 'tpu-compile'), ('tpu7x:2x2x1', 'tpu-compile'), ('h200:8', 'cuda-compile')]
)
def test_a_missing_compiler_is_named(name, extra, monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda package: None)
    with pytest.raises(UserError, match=rf'{name} needs the package \w+: pip install "nsr-jax\[{extra}\]"'):
        find_target(name)
