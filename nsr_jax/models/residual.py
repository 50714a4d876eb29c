"""The restoration network (Fan et al., section 4): a residual network whose block convolutions may be sparse."""

import functools
import math
import numbers

import flax.linen as nn
import jax
import jax.numpy as jnp

from nsr_jax.errors import UserError
from nsr_jax.models.build import NETWORKS, Network
from nsr_jax.nn.gates import find_gate, find_pooling
from nsr_jax.nn.layers import PrunedConv, SparseConv, WeightNormConv, squeeze_excitation_conv
from nsr_jax.nn.pruning import PRUNINGS
from nsr_jax.nn.thresholds import THRESHOLDS
from nsr_jax.ops.extents import is_inside
from nsr_jax.ops.pixel_shuffle import pixel_shuffle

MEAN = 0.5  # subtracted from the input and added to the output, for images on [0, 1]


class ResidualBlock(nn.Module):
    """conv 3x3 → threshold → conv 3x3, plus the input.

    Attributes:
        features: channels of the block's input and output.
        hidden: channels between the two convolutions.
        num_blocks: how many blocks the network has; the second convolution starts at 1/sqrt(num_blocks).
        conv: makes a convolution module from its features, `initial_scale` and `name`.
        threshold: a name in `nn.thresholds.THRESHOLDS`.
    """

    features: int
    hidden: int
    num_blocks: int
    conv: functools.partial
    threshold: str = 'relu'

    @nn.compact
    def __call__(self, x: jax.Array, inside: jax.Array | None = None) -> jax.Array:
        """Map `(B, H, W, features)` to the same; `inside` is as in `ops.extents`."""
        y = self.conv(self.hidden, initial_scale=2.0, name='conv_1')(x, inside)
        y = THRESHOLDS[self.threshold]()(y)
        y = self.conv(self.features, initial_scale=1 / math.sqrt(self.num_blocks), name='conv_2')(y, inside)
        return x + y


class RestorationNetwork(Network):
    """Head, N residual blocks, tail and pixel shuffle, beside a 5x5 skip convolution of the input.

    Attributes:
        scale: of the output to the input, 1 for denoising and JPEG artifacts.
        channels: of the image, 3 for RGB, 1 for gray.
        num_blocks: N.
        features: channels between the blocks.
        width_multiplier: hidden channels of a block over `features`.
        groups: k sparsity groups in the blocks' convolutions; 1 means plain convolutions without a gate.
        cardinality: d; must divide the features and the hidden channels. With one group there is no choice, so it
            becomes 1.
        gate: a name in `nn.gates.GATES`; 'se', for which d is the number of channels, needs `groups` of 1.
        gate_pooling: a name in `nn.gates.POOLINGS`.
        gate_scale: what the gates' logits are multiplied by, 1 over their temperature.
        gate_noise: factor of the noise of gate 'gumbel' in training.
        pruning: a name in `nn.pruning.PRUNINGS`, of what chooses among the groups, whatever `cardinality` is; '' for
            gates.
        threshold: a name in `nn.thresholds.THRESHOLDS`.
        dtype: of the convolutions; the parameters and the output are float32.
        remat: whether the backward pass keeps only the blocks' inputs and computes the rest of each block again.

    Raises:
        UserError: the fields do not fit one another.
    """

    num_blocks: int
    features: int
    width_multiplier: int = 1
    groups: int = 1
    cardinality: int = 1
    gate: str = 'softmax'
    gate_pooling: str = 'mean'
    gate_scale: float = 1.0
    gate_noise: float = 1.0
    pruning: str = ''
    threshold: str = 'relu'
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    takes_extents = True
    has_parts = True
    mean = MEAN

    def __post_init__(self):
        for field in ('scale', 'channels', 'num_blocks', 'features', 'width_multiplier', 'groups', 'cardinality'):
            value = getattr(self, field)
            if not isinstance(value, numbers.Integral) or value < 1:
                raise UserError(f'{field} must be a whole number from 1, not {value!r}')
            setattr(self, field, int(value))
        find_gate(self.gate)
        find_pooling(self.gate_pooling)
        for name, value, known in (
            ('pruning', self.pruning, ('', *PRUNINGS)),
            ('threshold', self.threshold, THRESHOLDS),
        ):
            if value not in known:
                raise UserError(f'unknown {name} {value!r}: one of {", ".join(each or repr(each) for each in known)}')
        if self.groups == 1:
            self.cardinality = 1
        if self.groups == 1 and self.pruning:
            raise UserError(f'pruning {self.pruning!r} needs groups > 1: it keeps one of them')
        if self.groups > 1 and self.gate == 'se':
            raise UserError(f"gate 'se' needs groups 1, not {self.groups}: it weights channels and chooses none")
        for name, width in (('features', self.features), ('hidden features', self.hidden)):
            if width % self.cardinality:
                raise UserError(f'{name} {width} must be a multiple of cardinality {self.cardinality}')
        super().__post_init__()

    @property
    def hidden(self) -> int:
        """Channels between the two convolutions of a block."""
        return self.features * self.width_multiplier

    @property
    def is_gated(self) -> bool:
        """As in `Network`."""
        return not self.pruning and (self.groups > 1 or self.gate == 'se')

    @property
    def draws_noise(self) -> bool:
        """As in `Network`."""
        return self.is_gated and self.gate == 'gumbel' and self.gate_noise > 0

    @property
    def output_features(self) -> int:
        """Channels before the pixel shuffle."""
        return self.scale**2 * self.channels

    @property
    def has_skip_conv(self) -> bool:
        """False where the skip is the identity."""
        return self.output_features != self.channels

    def setup(self):
        """Make the layers; each block has parameters of its own."""
        plain = functools.partial(WeightNormConv, dtype=self.dtype)
        conv = plain
        gate = {'pooling': find_pooling(self.gate_pooling), 'logit_scale': self.gate_scale, 'dtype': self.dtype}
        if self.pruning:
            conv = functools.partial(PrunedConv, groups=self.groups, pruning=PRUNINGS[self.pruning], dtype=self.dtype)
        elif self.gate == 'se':
            conv = functools.partial(squeeze_excitation_conv, **gate)
        elif self.groups > 1:
            conv = functools.partial(
                SparseConv,
                groups=self.groups,
                cardinality=self.cardinality,
                activation=find_gate(self.gate),
                noise=self.gate_noise if self.draws_noise else 0.0,
                **gate,
            )
        block = nn.remat(ResidualBlock) if self.remat else ResidualBlock
        self.head = plain(self.features)
        self.blocks = [
            block(self.features, self.hidden, self.num_blocks, conv, self.threshold, name=f'block_{index:02}')
            for index in range(self.num_blocks)
        ]
        self.tail = plain(self.output_features)
        if self.has_skip_conv:
            self.skip_conv = plain(self.output_features, kernel_size=5, name='skip')

    def body(self, x: jax.Array, inside: jax.Array | None = None) -> jax.Array:
        """Head, blocks and tail: `(B, H, W, C)` on [0, 1] to float32 `(B, H, W, scale² · C)`."""
        y = self.head(x - MEAN, inside)
        for block in self.blocks:
            y = block(y, inside)
        return self.tail(y, inside).astype(jnp.float32)

    def skip(self, x: jax.Array, inside: jax.Array | None = None) -> jax.Array:
        """The path around the body: `(B, H, W, C)` on [0, 1] to float32 `(B, H, W, scale² · C)`."""
        x = x - MEAN
        return self.skip_conv(x, inside).astype(jnp.float32) if self.has_skip_conv else x

    def assemble(self, y: jax.Array) -> jax.Array:
        """Turn the sum of body and skip, `(B, H, W, scale² · C)`, into the image `(B, scale · H, scale · W, C)`."""
        return pixel_shuffle(y, self.scale) + MEAN

    def __call__(self, x: jax.Array, extents: jax.Array | None = None) -> jax.Array:
        """Restore images.

        Args:
            x: `(B, H, W, C)`, float, on [0, 1].
            extents: int32 `(B, 2)`, height and width of each image, which lies at the top left of its array and does
                not depend on what is beside it. None: the images fill their arrays.

        Returns:
            float32 `(B, scale · H, scale · W, C)`, not clipped to [0, 1]; beside the images its values mean nothing.
        """
        if x.ndim != 4 or x.shape[-1] != self.channels:
            raise ValueError(f'the network takes (B, H, W, {self.channels}), not {x.shape}')
        inside = None if extents is None else is_inside(extents, *x.shape[1:3])
        return self.assemble(self.body(x, inside) + self.skip(x, inside))


NETWORKS['residual'] = RestorationNetwork
