"""Networks by name, and how the model section of a config builds one.

A network is a subclass of `Network` in `NETWORKS`, where `config.model.architecture` finds it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
import ml_collections

from nsr_jax.errors import UserError

COMPUTE_DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}

# Networks are initialised and counted on images of this side, which a network that halves images can divide.
EXAMPLE_SIDE = 64

# No published network comes near; a number beyond is a slip, or a file that wants to fill the memory.
_MOST_BLOCKS, _LARGEST_NUMBER = 1_000, 2**16
# Fields of every Flax module, and those that other sections of a config fill in.
_NOT_OF_A_MODEL = ('name', 'parent', 'dtype', 'remat')

_MISTAKE = 'config.model does not describe a network'


class Network(nn.Module):
    """What training, evaluation and restoring ask of a network.

    Calling it maps a batch `(B, H, W, channels)` on [0, 1] to float32 `(B, scale · H, scale · W, channels)`, not
    clipped. Everything that it keeps is a parameter: it has no collections but 'params', and no random numbers.

    The fields of a subclass are what `config.model` may hold; those without a default it must hold. There are two
    more that the config fills in from elsewhere, if the subclass has them: `dtype`, what is computed in, and `remat`,
    whether the backward pass computes parts of the network again.

    Attributes:
        scale: of the output to the input.
        channels: of the images, 3 for RGB, 1 for gray.
        groups: sparsity groups among which gates choose; 1: there are no gates.
        takes_extents: whether it can be called with `extents` too, int32 `(B, 2)`, the height and width of each
            image, which lies at the top left of its array and must not depend on what is beside it. Without it, there
            is a compiled function for each size of small images.
        has_parts: whether it is `assemble(body(x) + skip(x))`, methods that the authors' tiling applies by themselves,
            and of which `skip` answers zero for pixels of the value `mean`.
        mean: see `has_parts`.
    """

    scale: int
    channels: int

    groups = 1
    takes_extents = False
    has_parts = False
    mean = 0.0

    apply: ClassVar[Callable[..., Any]]  # Flax's own, whose declared result may be a tuple


NETWORKS: dict[str, type[Network]] = {}


def build_network(model: ml_collections.ConfigDict, compute_dtype: str = 'float32', remat: bool = False) -> Network:
    """Make the network that `config.model` describes; its fields are the network's, beside `architecture`.

    Args:
        model: the section of a config.
        compute_dtype: a name in `COMPUTE_DTYPES`.
        remat: whether the backward pass computes each residual block again; only memory and time change by it.

    Raises:
        UserError: an unknown network or dtype, unknown or missing fields, values that do not fit, or remat or a dtype
            that the network does not take.
    """
    if compute_dtype not in COMPUTE_DTYPES:
        raise UserError(f'unknown compute_dtype {compute_dtype!r}: one of {", ".join(COMPUTE_DTYPES)}')
    given = model.to_dict() if isinstance(model, ml_collections.ConfigDict) else {'model': model}
    name = given.pop('architecture', 'residual')
    if not isinstance(name, str) or name not in NETWORKS:
        known = ', '.join(NETWORKS)
        raise UserError(f'unknown config.model.architecture {name!r}: one of {known}, or that of a --plugin')
    fields = {field.name: field for field in dataclasses.fields(NETWORKS[name])}
    options = {}
    if 'dtype' in fields:
        options['dtype'] = COMPUTE_DTYPES[compute_dtype]
    elif compute_dtype != 'float32':
        raise UserError(f'config.compute_dtype {compute_dtype!r}: architecture {name!r} computes in float32 alone')
    if remat:
        if 'remat' not in fields:
            raise UserError(f'config.remat needs residual blocks, which architecture {name!r} does not have')
        options['remat'] = True
    _check_fields(given, {key: field for key, field in fields.items() if key not in _NOT_OF_A_MODEL})
    try:
        return NETWORKS[name](**given, **options)
    except TypeError as error:
        raise UserError(f'{_MISTAKE}: {error}') from error


def check_same_network(asked: ml_collections.ConfigDict, saved: Mapping[str, ml_collections.ConfigDict]) -> None:
    """Compare the model section of a config with those of checkpoints: of one, every field; of several, their scale.

    Args:
        asked: of a config.
        saved: by what a checkpoint is called.

    Raises:
        UserError: they differ; the line says in which fields.
    """
    for name, model in saved.items():
        differences = network_differences(asked, model)
        if len(saved) > 1:
            differences = {field: text for field, text in differences.items() if field == 'scale'}
        if differences:
            raise UserError(f'--config describes another network than {name}: {"; ".join(differences.values())}')


def network_differences(asked: ml_collections.ConfigDict, saved: ml_collections.ConfigDict) -> dict[str, str]:
    """The fields in which two networks differ, and how: 'scale 4 against 2'. A field that is not given is its default.

    Raises:
        UserError: one of them describes no network.
    """
    one, other = build_network(asked), build_network(saved)
    if type(one) is not type(other):
        return {'architecture': f'architecture {type(one).__name__} against {type(other).__name__}'}
    return {
        field.name: f'{field.name} {getattr(one, field.name)} against {getattr(other, field.name)}'
        for field in dataclasses.fields(one)
        if getattr(one, field.name) != getattr(other, field.name)
    }


def _check_fields(given: dict, fields: dict[str, dataclasses.Field]) -> None:
    for name, value in given.items():
        if name not in fields:
            raise UserError(f'{_MISTAKE}: {name!r} is none of {", ".join(fields)}')
        most = _MOST_BLOCKS if name == 'num_blocks' else _LARGEST_NUMBER
        fraction = fields[name].type in (float, 'float')
        for number in value if isinstance(value, tuple | list) else [value]:
            fits = isinstance(number, int | float) and abs(number) <= most  # neither is infinity, nor not a number
            if not (isinstance(number, str) or (fits and (fraction or isinstance(number, int)))):
                kind = 'a number' if fraction else 'a name or whole numbers'
                raise UserError(f'config.model.{name} must be {kind} up to {most}, not {value!r}')
    needed = [name for name, field in fields.items() if field.default is field.default_factory is dataclasses.MISSING]
    if missing := [name for name in needed if name not in given]:
        raise UserError(f'{_MISTAKE}: {", ".join(missing)} missing')
