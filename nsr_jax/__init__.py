"""Neural sparse representation for image restoration, in JAX."""

__version__ = '0.1.0'
__all__ = ['Restorer']


def __getattr__(name: str) -> type:
    """Import `Restorer` only when it is used, so that importing a part of the package stays fast."""
    if name == 'Restorer':
        from nsr_jax.inference.restorer import Restorer

        return Restorer
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
