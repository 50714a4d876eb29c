"""The sparse convolution against a static one of the same shape: forward, and forward with backward.

    python -m benchmarks.sample_conv --output=sample_conv.json

Everything runs in one process, the candidates taking turns, on fresh random inputs each round; compilation and warm-up
are apart. Each result is checked against the definition by `vmap` in the same run. Ratios are to the floor: the
fastest static convolution with one kernel for all samples. Prints a Markdown table.
"""

import functools
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags, logging
from jax import lax

from nsr_jax import command
from nsr_jax.errors import UserError
from nsr_jax.files import write_atomically
from nsr_jax.ops.sparse_conv import sparse_conv
from nsr_jax.ops.static_conv import static_conv

# (B, H, W, C, k, d): what the paper's networks train on, wider and longer banks, and one large image.
SHAPES = (
    (16, 48, 48, 64, 4, 16),
    (16, 48, 48, 32, 2, 16),
    (64, 48, 48, 64, 4, 16),
    (16, 48, 48, 128, 4, 16),
    (16, 48, 48, 64, 16, 16),
    (1, 256, 256, 64, 4, 16),
)
SPARSE = ('map', 'vmap')
STATIC = ('static, XLA', 'static, ours')

ROUNDS = flags.DEFINE_integer('rounds', 7, 'How often each candidate is timed.', lower_bound=3)
DTYPE = flags.DEFINE_enum('dtype', 'float32', ['float32', 'bfloat16'], 'Of images and kernels.')
SHAPE = flags.DEFINE_integer('shape', None, 'Only the shape with this place in SHAPES, from 0.')
OUTPUT = flags.DEFINE_string('output', None, 'JSON file to write every time to.')


def static_by_xla(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """XLA's convolution with XLA's derivatives."""
    return lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def candidates(shape: Sequence[int]) -> dict[str, tuple[Callable, Callable]]:
    """By name: the convolution of (x, bank, gamma), and what makes its arguments of these."""

    def sparse(implementation: str, x: jax.Array, bank: jax.Array, gamma: jax.Array) -> jax.Array:
        return sparse_conv(x, bank, jnp.zeros(bank.shape[3:]), gamma, implementation=implementation)

    def all_three(x: jax.Array, bank: jax.Array, gamma: jax.Array) -> tuple[jax.Array, ...]:
        return x, bank, gamma

    def one_kernel(x: jax.Array, bank: jax.Array, gamma: jax.Array) -> tuple[jax.Array, ...]:
        return x, bank[..., 0, :, :].reshape(3, 3, shape[3], shape[3]).astype(x.dtype)

    found = {name: (functools.partial(sparse, name), all_three) for name in SPARSE}
    statics = zip(STATIC, (static_by_xla, static_conv), strict=True)
    return found | {name: (function, one_kernel) for name, function in statics}


def inputs(shape: Sequence[int], seed: int) -> tuple[jax.Array, ...]:
    """Fresh images, bank, gate weights and output gradient."""
    batch, height, width, channels, groups, cardinality = shape
    keys = jax.random.split(jax.random.key(seed), 4)
    image = (batch, height, width, channels)
    filters = (groups, cardinality, channels // cardinality)
    return (
        jax.random.normal(keys[0], image, DTYPE.value),
        jax.random.normal(keys[1], (3, 3, channels, *filters)) / np.sqrt(9 * channels),
        jax.nn.softmax(jax.random.normal(keys[2], (batch, groups, cardinality)), axis=1),
        jax.random.normal(keys[3], image, DTYPE.value),
    )


def measure(shape: Sequence[int]) -> dict[str, dict[str, list[float]]]:
    """Seconds of every candidate and pass: {pass: {name: [seconds, one a round]}}, 'compile' beside the passes."""
    functions = {'forward': {}, 'forward + backward': {}}
    for name, (convolve, prepare) in candidates(shape).items():

        def both(arguments, gradient, convolve=convolve):
            output, transpose = jax.vjp(convolve, *arguments)
            return output, transpose(gradient)

        def forward(arguments, gradient, convolve=convolve):
            return convolve(*arguments)

        functions['forward'][name] = jax.jit(forward), prepare
        functions['forward + backward'][name] = jax.jit(both), prepare
    seconds = {
        kind: {name: [] for name in named} for kind, named in (functions | {'compile': functions['forward']}).items()
    }
    for round_ in range(ROUNDS.value + 1):  # the first one compiles and is checked
        *arrays, gradient = jax.block_until_ready(inputs(shape, round_))
        for kind, named in functions.items():
            results = {}
            for name, (function, prepare) in named.items():
                arguments = jax.block_until_ready(prepare(*arrays))
                start = time.perf_counter()
                results[name] = jax.block_until_ready(function(arguments, gradient))
                elapsed = time.perf_counter() - start
                seconds[kind if round_ else 'compile'][name].append(elapsed)
            if not round_:
                check(results, SPARSE)
                check(results, STATIC)
    return seconds


def check(results: dict, names: Sequence[str]) -> None:
    """All of these results are equal, as far as the type allows."""
    tolerance = {'float32': 1e-4, 'bfloat16': 3e-2}[DTYPE.value]
    expected = jax.tree.leaves(results[names[-1]])
    for name in names[:-1]:
        for ours, right in zip(jax.tree.leaves(results[name]), expected, strict=True):
            ours, right = (np.asarray(array, np.float64) for array in (ours, right))
            error = np.linalg.norm(ours - right) / np.linalg.norm(right)
            if not error < tolerance:
                raise ArithmeticError(f'{name} differs from {names[-1]} by {error:.2e} of its norm')


def table(shape: Sequence[int], seconds: dict[str, dict[str, list[float]]]) -> str:
    """Medians in milliseconds, their spread, and ratios round by round to the fastest static one."""
    lines = [f'\n(B, H, W, C, k, d) = {tuple(shape)}, {DTYPE.value}\n', '| candidate | forward (ms) | ratio |'
             ' forward + backward (ms) | ratio | compile (s) |', '| --- ' + '| ---: ' * 5 + '|']  # fmt: skip
    for name in (*STATIC, *SPARSE):
        cells = [name]
        for kind in ('forward', 'forward + backward'):
            floor = min((seconds[kind][static] for static in STATIC), key=statistics.median)
            times = seconds[kind][name]
            ratio = statistics.median(a / b for a, b in zip(times, floor, strict=True))
            cells += [
                f'{1e3 * statistics.median(times):.1f} ({1e3 * min(times):.1f}–{1e3 * max(times):.1f})',
                f'{ratio:.2f}',
            ]
        cells.append(f'{sum(seconds["compile"][name]):.1f}')
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)


def main(argv: Sequence[str]) -> None:
    """Measure every shape and print its table."""
    if argv[1:]:
        raise UserError(f'unexpected argument {argv[1]!r}: options start with --')
    if SHAPE.value is not None and not 0 <= SHAPE.value < len(SHAPES):
        raise UserError(f'--shape must be from 0 to {len(SHAPES) - 1}, not {SHAPE.value}')
    shapes = SHAPES if SHAPE.value is None else SHAPES[SHAPE.value : SHAPE.value + 1]
    device = jax.devices()[0]
    versions = f'jax {jax.__version__}, Python {sys.version.split()[0]}'
    sys.stdout.write(f'{device.device_kind} ({device.platform}, {jax.device_count()} device), {versions}\n')
    records = []
    for shape in shapes:
        logging.info('measuring %s', shape)
        seconds = measure(shape)
        sys.stdout.write(table(shape, seconds) + '\n')
        records.append({'shape': shape, 'dtype': DTYPE.value, 'device': device.device_kind, 'seconds': seconds})
    if OUTPUT.value:
        write_atomically(OUTPUT.value, json.dumps({'versions': versions, 'results': records}, indent=1) + '\n')


if __name__ == '__main__':
    command.run(main)
