"""Flax modules of the field's vocabulary: gates, sparse and weight-normalised convolutions."""

from nsr_jax.nn.layers import SparseConv, squeeze_excitation_conv

__all__ = ['SparseConv', 'squeeze_excitation_conv']
