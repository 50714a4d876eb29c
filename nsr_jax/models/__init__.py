"""Restoration networks, one a file, how a config builds them, and what they cost."""

from nsr_jax.models import chain, residual

__all__ = ['chain', 'residual']  # the import puts each into `build.NETWORKS`
