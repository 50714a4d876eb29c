"""From the model section of a config to a network."""

import jax.numpy as jnp
import ml_collections

from nsr_jax.errors import UserError
from nsr_jax.models.network import RestorationNetwork

COMPUTE_DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


def build_network(model: ml_collections.ConfigDict, compute_dtype: str = 'float32') -> RestorationNetwork:
    """Make the network that `config.model` describes; its fields are the network's.

    Raises:
        UserError: an unknown or missing field, values that do not fit, or an unknown dtype.
    """
    if compute_dtype not in COMPUTE_DTYPES:
        raise UserError(f'unknown compute_dtype {compute_dtype!r}: one of {", ".join(COMPUTE_DTYPES)}')
    try:
        return RestorationNetwork(**model.to_dict(), dtype=COMPUTE_DTYPES[compute_dtype])
    except TypeError as error:
        raise UserError(f'config.model does not describe a network: {error}') from error
