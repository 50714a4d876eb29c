"""From the model section of a config to a network."""

import dataclasses

import jax.numpy as jnp
import ml_collections

from nsr_jax.errors import UserError
from nsr_jax.models.chain import ChainNetwork
from nsr_jax.models.network import RestorationNetwork

Network = RestorationNetwork | ChainNetwork

# No published network comes near; a number beyond is a slip, or a file that wants to fill the memory.
_MOST_BLOCKS, _LARGEST_NUMBER = 1_000, 2**16
# Fields of a Flax module, or given by arguments of `build_network`.
_NOT_OF_A_CONFIG = ('name', 'parent', 'dtype', 'remat')

COMPUTE_DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


def build_network(model: ml_collections.ConfigDict, compute_dtype: str = 'float32', remat: bool = False) -> Network:
    """Make the network that `config.model` describes; its fields are the network's, beside `architecture`.

    Args:
        model: the section of a config.
        compute_dtype: a name in COMPUTE_DTYPES.
        remat: whether the backward pass computes each residual block again; only memory and time change by it.

    Raises:
        UserError: an unknown or missing field, values that do not fit, an unknown dtype, or remat without blocks.
    """
    if compute_dtype not in COMPUTE_DTYPES:
        raise UserError(f'unknown compute_dtype {compute_dtype!r}: one of {", ".join(COMPUTE_DTYPES)}')
    architectures = {'residual': RestorationNetwork, 'chain': ChainNetwork}
    fields = model.to_dict() if isinstance(model, ml_collections.ConfigDict) else {'model': model}
    architecture = fields.pop('architecture', 'residual')
    if not isinstance(architecture, str) or architecture not in architectures:
        raise UserError(f'unknown config.model.architecture {architecture!r}: one of {", ".join(architectures)}')
    options = {'dtype': COMPUTE_DTYPES[compute_dtype]}
    if remat:
        if architecture != 'residual':
            raise UserError(f'config.remat needs residual blocks, which architecture {architecture!r} does not have')
        options['remat'] = True
    _check_fields(fields, architectures[architecture])
    try:
        return architectures[architecture](**fields, **options)
    except TypeError as error:
        raise UserError(f'config.model does not describe a network: {error}') from error


def _check_fields(fields: dict, network: type[Network]) -> None:
    known = [field.name for field in dataclasses.fields(network) if field.name not in _NOT_OF_A_CONFIG]
    for name, value in fields.items():
        if name not in known:
            raise UserError(f'config.model does not describe a network: {name!r} is none of {", ".join(known)}')
        most = _MOST_BLOCKS if name == 'num_blocks' else _LARGEST_NUMBER
        for number in value if isinstance(value, tuple | list) else [value]:
            if not isinstance(number, int | str) or (isinstance(number, int) and number > most):
                raise UserError(f'config.model.{name} must be a name or whole numbers up to {most}, not {value!r}')
