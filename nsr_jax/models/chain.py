"""The field's networks for comparison, which are plain chains of convolutions.

    VDSR    Kim et al., CVPR 2016: 20 convolutions 3x3 on the bicubic enlargement, plus that enlargement
    DnCNN   Zhang et al., TIP 2017: 17 convolutions 3x3 (20 when blind) that predict the noise
    ARCNN   Dong et al., ICCV 2015: convolutions 9x9, 7x7, 1x1, 5x5

All have ReLU between the convolutions, He initialisation and no batch normalisation: say so beside any score.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from nsr_jax.errors import UserError
from nsr_jax.models.build import NETWORKS, Network
from nsr_jax.ops.conv import add_bias, static_conv
from nsr_jax.ops.enlarge import enlarge
from nsr_jax.ops.extents import clear_outside, is_inside, repeat_edges


class Conv(nn.Module):
    """A plain convolution, zero padding, stride 1, He-initialised.

    Attributes:
        features: Cout.
        kernel_size: side of the square kernel, odd.
        dtype: of the computation; the parameters are float32.
    """

    features: int
    kernel_size: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, inside: jax.Array | None = None) -> jax.Array:
        """Map `(B, H, W, Cin)` to `(B, H, W, features)` of `dtype`; `inside` is as in `ops.extents`."""
        x = clear_outside(x, inside)
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param('kernel', nn.initializers.he_normal(), shape, jnp.float32)
        bias = self.param('bias', nn.initializers.zeros, shape[3:], jnp.float32)
        return add_bias(static_conv(x.astype(self.dtype), kernel.astype(self.dtype)), bias)


class ChainNetwork(Network):
    """Convolutions one after another with ReLU between, on the enlarged input.

    Attributes:
        scale: of the output to the input; the input is enlarged by bicubic interpolation first.
        channels: of the image.
        kernel_sizes: of each convolution, odd.
        features: of each convolution but the last, which has `channels`.
        adds_input: whether the (enlarged) input is added to the result.
        dtype: of the convolutions; the parameters and the output are float32.

    Raises:
        UserError: the fields do not fit one another.
    """

    kernel_sizes: tuple[int, ...]
    features: tuple[int, ...]
    adds_input: bool
    dtype: jnp.dtype = jnp.float32

    takes_extents = True

    def __post_init__(self):
        sizes = tuple(self.kernel_sizes)
        if not sizes or any(not isinstance(size, int) or size < 1 or size % 2 == 0 for size in sizes):
            raise UserError(f'kernel_sizes must be odd whole numbers, at least one, not {self.kernel_sizes}')
        if len(self.features) != len(sizes) - 1:
            raise UserError(
                f'{len(sizes)} convolutions need {len(sizes) - 1} numbers of features, not {len(self.features)}'
            )
        if self.scale < 1 or self.channels < 1 or any(width < 1 for width in self.features):
            raise UserError(
                f'scale, channels and features must be from 1, not {self.scale}, {self.channels}, {self.features}'
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, extents: jax.Array | None = None) -> jax.Array:
        """Restore images: `(B, H, W, C)` on [0, 1] to float32 `(B, scale · H, scale · W, C)`, not clipped.

        `extents` are as in `RestorationNetwork`.
        """
        if x.ndim != 4 or x.shape[-1] != self.channels:
            raise ValueError(f'the network takes (B, H, W, {self.channels}), not {x.shape}')
        inside = None
        if extents is not None:
            x = repeat_edges(x, extents)
            inside = is_inside(extents * self.scale, *(side * self.scale for side in x.shape[1:3]))
        x = y = enlarge(x, self.scale) if self.scale > 1 else x
        widths = (*self.features, self.channels)
        for index, (width, size) in enumerate(zip(widths, self.kernel_sizes, strict=True)):
            y = Conv(width, size, self.dtype, name=f'conv_{index:02}')(y, inside)
            if index < len(self.features):
                y = nn.relu(y)
        y = y.astype(jnp.float32)
        return x + y if self.adds_input else y


NETWORKS['chain'] = ChainNetwork
