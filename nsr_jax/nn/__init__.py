"""Flax modules of the field's vocabulary: gates, sparse and weight-normalised convolutions."""
