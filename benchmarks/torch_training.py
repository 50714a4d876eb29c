"""The train step of the same network in PyTorch, every variant, with our weights and batches."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import torch

from benchmarks import torch_peers
from benchmarks.timing import Candidate
from benchmarks.torch_network import RestorationNetwork, copy_parameters, gradient_tree

FIELDS = ('scale', 'channels', 'num_blocks', 'features', 'width_multiplier', 'groups', 'cardinality')


class _Training:
    """A network and its Adam, as one variant runs them."""

    def __init__(self, variant: torch_peers.Variant, fields: Mapping[str, int], params: Any, dtype: str, rate: float):
        self._variant, self._params, self._dtype = variant, params, dtype
        self.network = RestorationNetwork(**fields).to(torch_peers.device(), memory_format=variant.memory_format)
        self._adam = torch.optim.Adam(self.network.parameters(), lr=rate, eps=1e-8, fused=True)
        self._loss = variant.compiled(lambda inputs, targets: (self.network(inputs) - targets).abs().mean())

    def start_over(self) -> None:
        """The weights and the optimizer of before the first step."""
        copy_parameters(self._params, self.network)
        self._adam.state.clear()

    def to_torch(self, images: Any) -> torch.Tensor:
        """NHWC in JAX to the variant's layout on the device."""
        tensor = torch.tensor(np.asarray(images)).to(torch_peers.device()).permute(0, 3, 1, 2)
        return tensor.contiguous(memory_format=self._variant.memory_format)

    def backward(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The loss, whose gradients are then in the parameters."""
        self._adam.zero_grad(set_to_none=True)
        with torch_peers.autocast(self._dtype):
            loss = self._loss(inputs, targets)
        loss.backward()
        return loss.detach()

    def step(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Backward pass and update."""
        loss = self.backward(inputs, targets)
        self._adam.step()
        return loss


def candidates(
    preset: str,
    network: Any,
    params: Any,
    batch: Callable[[int], tuple[jax.Array, jax.Array]],
    *,
    dtype: str,
    rate: float,
    calls: int,
    flops: float,
    groups: tuple[str, str],
    check: Callable[..., float],
    variants: Sequence[torch_peers.Variant],
) -> list[Candidate]:
    """The whole step and its forward and backward passes; batches are on the device before they are timed.

    Args:
        preset: its name.
        network: ours, whose fields and weights are taken.
        params: the weights to start from.
        batch: a step's inputs and targets, NHWC.
        dtype: 'bfloat16' runs under autocast.
        rate: of Adam.
        calls: steps of one timing.
        flops: of a step.
        groups: names of the whole step and of forward and backward.
        check: takes the loss, and the gradient as a tree like ours.
        variants: ways to run it.
    """
    whole, gradient = groups
    found = []
    for variant in variants:
        training = _Training(variant, {name: getattr(network, name) for name in FIELDS}, params, dtype, rate)

        def prepare(seed: int, training=training) -> list[tuple[torch.Tensor, ...]]:
            if seed == 0:
                training.start_over()
            steps = [0] if seed == 0 else range(seed * calls, (seed + 1) * calls)  # the first step alone is checked
            return [tuple(training.to_torch(images) for images in batch(step)) for step in steps]

        def run(batches, call: Callable[..., torch.Tensor]) -> torch.Tensor:
            for each in batches:
                loss = call(*each)
            return loss

        def check_gradient(loss: torch.Tensor, training=training) -> float:
            return check(float(loss), gradient_tree(training.network))

        name = f'{preset} {{}}, {variant}'
        shared = {'prepare': prepare, 'wait': torch_peers.wait, 'calls': calls, 'flops': flops}
        found += [
            Candidate(
                name.format(whole),
                whole,
                run=functools.partial(run, call=training.step),
                check=lambda loss: check(float(loss)),
                **shared,
            ),
            Candidate(
                name.format(gradient),
                gradient,
                run=functools.partial(run, call=training.backward),
                check=check_gradient,
                **shared,
            ),
        ]
    return found
