"""A small network of Flax's own layers."""

import flax.linen as nn

from nsr_jax.models.build import NETWORKS, Network


class Plain(Network):
    """Two convolutions around a residual."""

    features: int = 8

    @nn.compact
    def __call__(self, x):
        """Restore a batch (B, H, W, channels)."""
        hidden = nn.relu(nn.Conv(self.features, (3, 3))(x))
        return x + nn.Conv(self.channels, (3, 3), kernel_init=nn.initializers.zeros)(hidden)


NETWORKS['plain'] = Plain
