"""The cost of a network: parameters and Multi-Adds, counted as in the field's tables."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.extend.core
import jax.numpy as jnp

from nsr_jax.errors import UserError
from nsr_jax.models.build import EXAMPLE_SIDE, Network
from nsr_jax.ops.settings import new_key


@dataclasses.dataclass(frozen=True)
class MultiAdds:
    """Multiply-accumulates of one image. "FLOPs" are twice as many.

    Attributes:
        convolutions: the part that grows with the image: convolutions, and other products of pixels and weights.
        once: the part that an image of any size takes once: gates, and summing the groups' kernels and biases.
    """

    convolutions: int
    once: int

    @property
    def total(self) -> int:
        """Both."""
        return self.convolutions + self.once


def parameter_shapes(network: Network) -> dict:
    """The network's parameter tree as `jax.ShapeDtypeStruct`s, without computing anything.

    Raises:
        UserError: the network keeps more than parameters, such as running means.
    """
    kept = jax.eval_shape(network.init, new_key(0), _example(network, EXAMPLE_SIDE))
    if others := kept.keys() - {'params'}:
        raise UserError(f'{type(network).__name__} keeps {", ".join(sorted(others))}: a network may only keep params')
    return kept['params']


def count_parameters(network: Network) -> int:
    """The number of trained numbers: kernels, weight-norm scales, biases and gates."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(parameter_shapes(network)))


def count_multi_adds(network: Network, output_size: tuple[int, int] = (720, 1280)) -> MultiAdds:
    """Count for an output of `(height, width)` pixels, 1280x720 by the field's convention.

    The network is traced and counted for two sizes, and the part that grows with the pixels is extrapolated linearly.
    The input has `height * width / scale²` pixels, a fraction if the scale does not divide the sides. Additions,
    activations, normalisation and bicubic enlargement are not counted.
    """
    variables = {'params': parameter_shapes(network)}
    small, large = (
        multi_adds_of(network.apply, variables, _example(network, width)) for width in (EXAMPLE_SIDE, 2 * EXAMPLE_SIDE)
    )
    per_pixel = (large - small) / EXAMPLE_SIDE**2
    once = 2 * small - large
    return MultiAdds(round(per_pixel * math.prod(output_size) / network.scale**2), once)


def multi_adds_of(function: Callable[..., Any], *arguments: Any) -> int:
    """Multiply-accumulates of one call of a function: its convolutions, matrix products and mixing of kernels.

    Args:
        function: any that JAX can trace, such as the `apply` of a network of your own.
        arguments: arrays, or `jax.ShapeDtypeStruct`s of their shapes; nothing is computed.
    """
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _example(network: Network, width: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, EXAMPLE_SIDE, width, network.channels), jnp.float32)


def _count(jaxpr: jax.extend.core.Jaxpr) -> int:
    """Multiply-accumulates of all convolutions, matrix products and mixing of kernels."""
    total = 0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == 'conv_general_dilated':
            kernel = _shape(equation.invars[1])
            per_output = math.prod(kernel) // kernel[params['dimension_numbers'].rhs_spec[0]]
            # The zeros between the pixels of a transposed convolution are not counted.
            total += math.prod(_shape(equation.outvars[0])) * per_output // math.prod(params['lhs_dilation'])
        elif name == 'dot_general':
            (contracted, _), _ = params['dimension_numbers']
            sides = (_shape(equation.invars[0])[axis] for axis in contracted)
            total += math.prod(_shape(equation.outvars[0])) * math.prod(sides)
        elif name == 'mul' and 'mix' in str(equation.source_info.name_stack).split('/'):
            total += math.prod(_shape(equation.outvars[0]))
        elif name == 'pallas_call':  # a form for one platform, whose multiplications by zero are not counted
            continue
        elif name == 'cond':  # forms for different platforms, some of which save multiplications
            total += max(_count(branch.jaxpr) for branch in params['branches'])
        else:
            times = params['length'] if name == 'scan' else 1
            total += times * sum(map(_count, jax.extend.core.jaxprs_in_params(params)))
    return total


def _shape(atom: jax.extend.core.Var | jax.extend.core.Literal) -> tuple[int, ...]:
    assert isinstance(atom.aval, jax.core.ShapedArray)
    return atom.aval.shape
