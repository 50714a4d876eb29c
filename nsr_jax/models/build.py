"""Networks by name, and how the model section of a config builds one.

A network is a subclass of `Network`. Its name in `NETWORKS` is the one that `config.model.architecture` gives.
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

# No published network comes near these; a larger number is a slip, or meant to fill the memory.
_MOST_BLOCKS, _LARGEST_NUMBER = 1_000, 2**16
# Fields of every Flax module, and those that other sections of a config fill in.
_NOT_OF_A_MODEL = ('name', 'parent', 'dtype', 'remat')

_MISTAKE = 'config.model does not describe a network'


class Network(nn.Module):
    """What training, evaluation and restoring require of a network.

    A call maps a batch `(B, H, W, channels)` on [0, 1] to float32 `(B, scale · H, scale · W, channels)`, not clipped.
    A network keeps nothing but parameters, in the collection 'params'. Random numbers come from Flax's stream 'noise',
    which only training gives.

    `config.model` may hold the fields of a subclass, and must hold those without a default. Two more fields, if the
    subclass has them, are filled in from elsewhere in the config: `dtype`, the type to compute in, and `remat`, whether
    the backward pass computes parts of the network again.

    Attributes:
        scale: of the output to the input.
        channels: of the images, 3 for RGB, 1 for gray.
        groups: sparsity groups among which gates choose; 1: there is no choice.
        takes_extents: whether a call also takes `extents`, int32 `(B, 2)`, the height and width of each image, which
            lies at the top left of its array and must not depend on what is beside it. A network that does not take
            them is compiled for each size of small images.
        has_parts: whether it is `assemble(body(x) + skip(x))`, methods that the authors' tiling calls one by one;
            `skip` must be zero for pixels of the value `mean`.
        mean: see `has_parts`.
    """

    scale: int
    channels: int

    groups = 1
    takes_extents = False
    has_parts = False
    mean = 0.0

    apply: ClassVar[Callable[..., Any]]  # Flax's own, whose declared result may be a tuple

    @property
    def is_gated(self) -> bool:
        """Whether gates pool over the input, so that a tile's pixels differ from the same pixels of the whole image."""
        return False

    @property
    def draws_noise(self) -> bool:
        """Whether a call draws from the stream 'noise' where there is one."""
        return False


NETWORKS: dict[str, type[Network]] = {}


def build_network(model: ml_collections.ConfigDict, compute_dtype: str = 'float32', remat: bool = False) -> Network:
    """Make the network that `config.model` describes by `architecture` and the network's own fields.

    Args:
        model: the section of a config.
        compute_dtype: a name in `COMPUTE_DTYPES`.
        remat: whether the backward pass computes each residual block again, which changes memory and time alone.

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
    """Compare the model section of a config with that of one checkpoint, or with the scales of several.

    Args:
        asked: of the config.
        saved: of the checkpoints, by their names in the error.

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
    """The fields in which two networks differ, and how: 'scale 4 here, 2 there'. Missing fields have their defaults.

    Raises:
        UserError: one of the sections describes no network.
    """
    one, other = build_network(asked), build_network(saved)
    if type(one) is not type(other):
        return {'architecture': f'architecture {type(one).__name__} here, {type(other).__name__} there'}
    return {
        field.name: f'{field.name} {getattr(one, field.name)} here, {getattr(other, field.name)} there'
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
            fits = isinstance(number, int | float) and abs(number) <= most  # infinity and NaN do not fit
            if not (isinstance(number, str) or (fits and (fraction or isinstance(number, int)))):
                kind = 'a number' if fraction else 'a name or whole numbers'
                raise UserError(f'config.model.{name} must be {kind} up to {most}, not {value!r}')
    needed = [name for name, field in fields.items() if field.default is field.default_factory is dataclasses.MISSING]
    if missing := [name for name in needed if name not in given]:
        raise UserError(f'{_MISTAKE}: {", ".join(missing)} missing')
