"""What a network costs: parameters and Multi-Adds, counted as the field's tables do."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from nsr_jax.models.build import Network
from nsr_jax.models.chain import ChainNetwork
from nsr_jax.models.network import RestorationNetwork
from nsr_jax.ops.settings import new_key


@dataclasses.dataclass(frozen=True)
class MultiAdds:
    """Multiply-accumulates of one image. "FLOPs" are twice as many.

    Attributes:
        convolutions: of all convolutions.
        mixing: of summing the groups' kernels and biases, once for an image.
        gates: of the gates' matrix products, once for an image.
    """

    convolutions: int
    mixing: int
    gates: int

    @property
    def total(self) -> int:
        """All three."""
        return self.convolutions + self.mixing + self.gates


def parameter_shapes(network: Network) -> dict:
    """The network's parameter tree as `jax.ShapeDtypeStruct`s; nothing is computed."""
    image = jax.ShapeDtypeStruct((1, 8, 8, network.channels), jnp.float32)
    return jax.eval_shape(network.init, new_key(0), image)['params']


def count_parameters(network: Network) -> int:
    """How many numbers are trained: kernels, weight-norm scales, biases and gates."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(parameter_shapes(network)))


def count_multi_adds(network: Network, output_size: tuple[int, int] = (720, 1280)) -> MultiAdds:
    """Count for an output of `(height, width)` pixels, 1280x720 by the field's convention.

    The input has `height * width / scale²` pixels, a fraction where the scale does not divide the sides. Bicubic
    enlargement is not counted.
    """
    pixels = math.prod(output_size)
    if isinstance(network, ChainNetwork):
        widths = (network.channels, *network.features, network.channels)
        per_pixel = sum(map(_conv, network.kernel_sizes, widths[:-1], widths[1:]))
        return MultiAdds(per_pixel * pixels, 0, 0)
    per_pixel, mixing, gates = _residual(network)
    return MultiAdds(round(per_pixel * pixels / network.scale**2), mixing, gates)


def _conv(kernel_size: int, inputs: int, outputs: int) -> int:
    return kernel_size**2 * inputs * outputs


def _residual(network: RestorationNetwork) -> tuple[int, int, int]:
    """Convolutions for a pixel of the input; mixing and gates for an image."""
    per_pixel = _conv(3, network.channels, network.features) + _conv(3, network.features, network.output_features)
    if network.has_skip_conv:
        per_pixel += _conv(5, network.channels, network.output_features)
    pairs = [(network.features, network.hidden), (network.hidden, network.features)] * network.num_blocks
    per_pixel += sum(_conv(3, *pair) for pair in pairs)
    mixing = gates = 0
    if network.groups > 1:
        mixing = sum(network.groups * (_conv(3, *pair) + pair[1]) for pair in pairs)
        gates = sum(inputs * network.groups * network.cardinality for inputs, _ in pairs)
    return per_pixel, mixing, gates
