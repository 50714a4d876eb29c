"""Run PyTorch beside JAX: on the same kind of device, eagerly and compiled, in both memory layouts.

On a CPU that other processes use too, PyTorch's OpenMP threads wait for one another actively, far longer than they
compute. Set OMP_WAIT_POLICY=passive there.
"""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import torch

from benchmarks.timing import Candidate
from benchmarks.torch_network import RestorationNetwork, copy_parameters, gradient_tree, sparse_conv
from nsr_jax.errors import UserError

_FIELDS = ('scale', 'channels', 'num_blocks', 'features', 'width_multiplier', 'groups', 'cardinality')


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to run the same PyTorch code.

    Attributes:
        mode: of `torch.compile`; '' runs eagerly.
        memory_format: of images and kernels.
    """

    mode: str
    memory_format: torch.memory_format

    def __str__(self) -> str:
        layout = 'channels_last' if self.memory_format == torch.channels_last else 'NCHW'
        how = {'': 'eager', 'default': 'compile'}.get(self.mode, f'compile {self.mode}')
        return f'PyTorch {how} {layout}'

    def compiled(self, function: Callable) -> Callable:
        """The function, compiled for the shapes of its calls."""
        return torch.compile(function, dynamic=False, mode=self.mode) if self.mode else function


def variants(modes: Sequence[str]) -> list[Variant]:
    """The variants: each mode in both layouts.

    Raises:
        UserError: PyTorch cannot run where JAX does.
    """
    device()
    names = ['' if mode == 'eager' else mode for mode in modes]
    return [Variant(mode, order) for mode in names for order in (torch.contiguous_format, torch.channels_last)]


def device() -> str:
    """PyTorch's name of the device that JAX runs on.

    Raises:
        UserError: PyTorch cannot run there.
    """
    backend = jax.default_backend()
    if backend == 'cpu':
        return 'cpu'
    if backend == 'gpu' and torch.cuda.is_available():
        return 'cuda'
    raise UserError(f'JAX runs on {backend}, where this PyTorch does not run: give --notorch')


def configure() -> None:
    """Use all cores, and TF32 where JAX does; raise instead of falling back silently from compiled to eager."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    if device() == 'cuda':
        torch.set_float32_matmul_precision('high')  # convolutions use TF32 anyway
        torch.backends.cudnn.benchmark = True
    torch.compiler.reset()
    torch._dynamo.config.recompile_limit = 64
    torch._dynamo.config.fail_on_recompile_limit_hit = True


def wait(_=None) -> None:
    """Wait until the device is idle."""
    if device() == 'cuda':
        torch.cuda.synchronize()


def autocast(dtype: str) -> contextlib.AbstractContextManager:
    """bfloat16 as PyTorch offers it; nothing for float32."""
    return torch.autocast(device(), torch.bfloat16, enabled=dtype == 'bfloat16')


def convolution_candidates(
    shape: Sequence[int],
    dtype: str,
    calls: int,
    example: Callable[[], Sequence],
    passes: Sequence[tuple[str, float, Callable[[Sequence], float]]],
    variants: Sequence[Variant],
) -> list[Candidate]:
    """Candidates for the sparse convolution as a grouped convolution, one for each variant.

    Args:
        shape: (B, H, W, C, k, d).
        dtype: of images; 'bfloat16' runs under autocast, with float32 parameters.
        calls: in one timing.
        example: makes the checked x (B, H, W, C), bank (3, 3, C, k, d, C/d), bias, gamma and output gradient.
        passes: the group, the FLOPs, and what checks a tuple of NumPy arrays in JAX's layout: the output and, unless
            the group is 'forward', the gradients of x, bank, bias and gamma.
        variants: ways to run it.
    """
    found = []
    for variant in variants:
        function = variant.compiled(sparse_conv)
        for group, flops, check in passes:
            found.append(
                Candidate(
                    name=str(variant),
                    group=group,
                    prepare=lambda seed, variant=variant: _arguments(shape, dtype, calls, variant, seed, example),
                    run=_convolve(function, dtype, backward=group != 'forward'),
                    wait=wait,
                    calls=calls,
                    flops=flops,
                    check=lambda results, check=check: check(_to_jax_layout(results)),
                )
            )
    return found


def _convolve(function: Callable, dtype: str, *, backward: bool) -> Callable:
    def run(sets):
        for *inputs, gradient in sets:
            results = None  # CUDA graphs write the next results to the same memory
            with autocast(dtype), torch.set_grad_enabled(backward):
                results = (function(*inputs),)
            if backward:
                results += torch.autograd.grad(results[0], inputs, gradient)
        return results

    return run


def _arguments(shape: Sequence[int], dtype: str, calls: int, variant: Variant, seed: int, example: Callable) -> list:
    """Fresh random numbers made on the device; for seed 0 the checked ones, of which the last set counts."""
    batch, height, width, channels, groups, cardinality = shape
    generator = torch.Generator(device()).manual_seed(seed)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator, device=device())

    def images(array: torch.Tensor) -> torch.Tensor:
        array = array.to(torch.bfloat16 if dtype == 'bfloat16' else torch.float32)
        return array.contiguous(memory_format=variant.memory_format)

    filters = (groups, cardinality, channels // cardinality)
    sets = []
    for _ in range(calls):
        if seed == 0:
            x, bank, bias, gamma, gradient = (torch.tensor(np.asarray(a, np.float32)).to(device()) for a in example())
            x, gradient = (array.permute(0, 3, 1, 2) for array in (x, gradient))
            bank = bank.permute(3, 4, 5, 2, 0, 1).contiguous()
        else:
            x, gradient = normal(batch, channels, height, width), normal(batch, channels, height, width)
            bank = normal(*filters, channels, 3, 3) / (9 * channels) ** 0.5
            bias, gamma = normal(*filters), torch.softmax(normal(batch, groups, cardinality), dim=1)
        inputs = [array.requires_grad_() for array in (images(x), bank, bias, gamma)]
        sets.append((*inputs, images(gradient)))
    return sets


def _to_jax_layout(results: Sequence[torch.Tensor]) -> tuple[np.ndarray, ...]:
    orders = {4: (0, 2, 3, 1), 6: (4, 5, 3, 0, 1, 2)}  # images and banks
    arrays = (result.detach().float().cpu() for result in results)
    return tuple(array.permute(orders.get(array.ndim, tuple(range(array.ndim)))).numpy() for array in arrays)


class _Training:
    """A network and its Adam as one variant runs them, the peer of our `benchmarks.train_step.Training`."""

    def __init__(self, ours: Any, variant: Variant):
        self._ours, self._variant = ours, variant
        fields = {name: getattr(ours.network, name) for name in _FIELDS}
        self.network = RestorationNetwork(**fields).to(device(), memory_format=variant.memory_format)
        self._adam = torch.optim.Adam(self.network.parameters(), lr=ours.rate, eps=1e-8, fused=True)
        self._loss = variant.compiled(lambda inputs, targets: (self.network(inputs) - targets).abs().mean())

    def prepare(self, calls: int, seed: int) -> list[tuple[torch.Tensor, ...]]:
        """Batches on the device; seed 0 starts over with the first batch, the only one that is checked."""
        if seed == 0:
            copy_parameters(self._ours.initial.params, self.network)
            self._adam.state.clear()
        steps = [0] if seed == 0 else range(seed * calls, (seed + 1) * calls)
        return [tuple(self._to_torch(images) for images in self._ours.batch(step)) for step in steps]

    def _to_torch(self, images: jax.Array) -> torch.Tensor:
        """Move a JAX array, NHWC, to the device in the variant's layout."""
        tensor = torch.tensor(np.asarray(images)).to(device()).permute(0, 3, 1, 2)
        return tensor.contiguous(memory_format=self._variant.memory_format)

    def take_steps(self, batches: Sequence[tuple[torch.Tensor, ...]], *, update: bool) -> torch.Tensor:
        """Take steps and return the last loss, whose gradients are then in the parameters."""
        for inputs, targets in batches:
            self._adam.zero_grad(set_to_none=True)
            with autocast(self._ours.dtype):
                loss = self._loss(inputs, targets)
            loss.backward()
            if update:
                self._adam.step()
        return loss.detach()


def training_candidates(ours: Any, calls: int, variants: Sequence[Variant], groups: Sequence[str]) -> list[Candidate]:
    """Candidates for the whole step, and for forward and backward pass; timing starts with batches on the device.

    Args:
        ours: a `benchmarks.train_step.Training`, which provides network, weights, batches and checks.
        calls: steps in one timing.
        variants: ways to run it.
        groups: names of the whole step and of forward and backward pass.
    """
    whole, gradient = groups
    found = []
    for variant in variants:
        training = _Training(ours, variant)

        def check_gradient(loss: torch.Tensor, training=training) -> float:
            return ours.check(float(loss), gradient_tree(training.network))

        checks = {whole: lambda loss: ours.check(float(loss)), gradient: check_gradient}
        found += [
            Candidate(
                name=f'{ours.preset} {group}, {variant}',
                group=group,
                prepare=functools.partial(training.prepare, calls),
                run=functools.partial(training.take_steps, update=group == whole),
                wait=wait,
                calls=calls,
                flops=ours.flops,
                check=check,
            )
            for group, check in checks.items()
        ]
    return found
