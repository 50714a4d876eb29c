"""The sparse convolution and the restoration network in PyTorch, for comparison.

The per-sample convolution is one grouped convolution, with the samples folded into the groups. Parameters are named as
in our network's tree, with the filters first: `direction (k, d, Cout/d, Cin, kh, kw)`, plain `(Cout, Cin, kh, kw)`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from flax.traverse_util import flatten_dict, unflatten_dict
from torch import nn
from torch.nn import functional

MEAN = 0.5


def sparse_conv(x: torch.Tensor, bank: torch.Tensor, bias: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
    """Convolve each sample with its own mixture of the bank's kernels.

    Args:
        x: `(B, Cin, H, W)`.
        bank: `(k, d, Cout/d, Cin, kh, kw)`.
        bias: `(k, d, Cout/d)`.
        gamma: `(B, k, d)`.

    Returns:
        `(B, Cout, H, W)`.
    """
    batch, channels, height, width = x.shape
    kernels = torch.einsum('bkd,kdeihw->bdeihw', gamma, bank).reshape(-1, *bank.shape[3:])
    biases = torch.einsum('bkd,kde->bde', gamma, bias).reshape(-1)
    folded = x.reshape(1, batch * channels, height, width)
    padding = (bank.shape[-2] // 2, bank.shape[-1] // 2)
    return functional.conv2d(folded, kernels, biases, padding=padding, groups=batch).reshape(batch, -1, height, width)


class _Conv(nn.Module):
    """A weight-normalised convolution; its parameters are empty until they are copied in."""

    def __init__(self, inputs: int, filters: tuple[int, ...], kernel_size: int):
        super().__init__()
        self.direction = nn.Parameter(torch.empty(*filters, inputs, kernel_size, kernel_size))
        self.scale = nn.Parameter(torch.empty(filters))
        self.bias = nn.Parameter(torch.empty(filters))

    def kernel(self) -> torch.Tensor:
        norm = torch.rsqrt(self.direction.square().sum((-3, -2, -1), keepdim=True))
        return self.direction * (self.scale[..., None, None, None] * norm)


class WeightNormConv(_Conv):
    """A plain convolution."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int = 3):
        super().__init__(inputs, (outputs,), kernel_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(B, Cin, H, W)` to `(B, Cout, H, W)`."""
        return functional.conv2d(x, self.kernel(), self.bias, padding=self.direction.shape[-1] // 2)


class Gate(nn.Module):
    """Softmax over the groups, from the mean of the features."""

    def __init__(self, inputs: int, groups: int, cardinality: int):
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(inputs, groups, cardinality))
        self.bias = nn.Parameter(torch.empty(groups, cardinality))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(B, Cin, H, W)` to gamma `(B, k, d)`."""
        logits = torch.einsum('bc,ckd->bkd', x.mean((2, 3)), self.kernel) + self.bias
        return torch.softmax(logits, dim=1)


class SparseConv(_Conv):
    """A convolution whose kernels a gate mixes for each sample."""

    def __init__(self, inputs: int, outputs: int, groups: int, cardinality: int):
        super().__init__(inputs, (groups, cardinality, outputs // cardinality), kernel_size=3)
        self.gate = Gate(inputs, groups, cardinality)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(B, Cin, H, W)` to `(B, Cout, H, W)`."""
        return sparse_conv(x, self.kernel(), self.bias, self.gate(x))


class ResidualBlock(nn.Module):
    """conv → ReLU → conv, plus the input."""

    def __init__(self, conv_1: nn.Module, conv_2: nn.Module):
        super().__init__()
        self.conv_1 = conv_1
        self.conv_2 = conv_2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        return x + self.conv_2(functional.relu(self.conv_1(x)))


class RestorationNetwork(nn.Module):
    """`nsr_jax.models.residual.RestorationNetwork` with softmax gates in PyTorch; the fields mean the same."""

    def __init__(
        self,
        *,
        scale: int,
        channels: int,
        num_blocks: int,
        features: int,
        width_multiplier: int = 1,
        groups: int = 1,
        cardinality: int = 1,
    ):
        super().__init__()

        def conv(inputs: int, outputs: int) -> nn.Module:
            if groups > 1:
                return SparseConv(inputs, outputs, groups, cardinality)
            return WeightNormConv(inputs, outputs)

        hidden, outputs = features * width_multiplier, scale**2 * channels
        self.scale = scale
        self.head = WeightNormConv(channels, features)
        self.block_names = [f'block_{index:02}' for index in range(num_blocks)]
        for name in self.block_names:
            self.add_module(name, ResidualBlock(conv(features, hidden), conv(hidden, features)))
        self.tail = WeightNormConv(features, outputs)
        self.skip = WeightNormConv(channels, outputs, kernel_size=5) if outputs != channels else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Restore `(B, C, H, W)` on [0, 1] to float32 `(B, C, scale · H, scale · W)`."""
        x = x - MEAN
        y = self.head(x)
        for name in self.block_names:
            y = getattr(self, name)(y)
        return functional.pixel_shuffle(self.tail(y).float() + self.skip(x).float(), self.scale) + MEAN


def copy_parameters(params: Mapping[str, Any], network: nn.Module) -> None:
    """Fill the network with the parameter tree of its JAX twin.

    Raises:
        RuntimeError: names or shapes do not fit.
    """
    leaves = flatten_dict(params, sep='.')
    network.load_state_dict({name: torch.tensor(_filters_first(name, leaf)) for name, leaf in leaves.items()})


def gradient_tree(network: nn.Module) -> dict[str, Any]:
    """The gradients of the network's parameters as a tree like that of its JAX twin, in NumPy."""
    gradients = {name: each.grad.float().cpu().numpy() for name, each in network.named_parameters()}
    for name, gradient in gradients.items():
        if name.endswith('direction'):
            gradients[name] = np.moveaxis(gradient, (-3, -2, -1), (2, 0, 1))
    return unflatten_dict(gradients, sep='.')


def _filters_first(name: str, leaf: Any) -> np.ndarray:
    array = np.array(leaf, np.float32)
    return np.moveaxis(array, (2, 0, 1), (-3, -2, -1)) if name.endswith('direction') else array
