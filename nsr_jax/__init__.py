"""Neural sparse representation for image restoration, in JAX."""

__version__ = '0.1.0'
