"""Compare what a network can be exported to: the sizes of the files, and how long their runtimes take.

    JAX_NUM_CPU_DEVICES=1 python -m benchmarks.exported --output=exported.json

A preset for super-resolution, with random weights, takes part with its gates and with fixed ones: as StableHLO in JAX,
as ONNX in ONNX Runtime, and, where PyTorch is installed, as .pth in `benchmarks.torch_network`. The gates are fixed to
equal weights of all groups, which takes as long as any others. Results are checked against the network itself.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import util
from typing import Any

import jax
import numpy as np
import onnxruntime
from absl import flags
from jax import export

from benchmarks import report
from benchmarks.timing import Candidate, check_errors, convolution_tolerance, relative_errors, take_turns
from configs import sr
from nsr_jax import command_line
from nsr_jax.errors import UserError
from nsr_jax.exporting.export_formats import EXPORT_FORMATS
from nsr_jax.exporting.folding import fold_known_gates
from nsr_jax.models.build import Network, build_network
from nsr_jax.models.cost import count_parameters
from nsr_jax.ops.settings import new_key

COLUMNS = {
    'file, runtime': lambda row: row['candidate'],
    'MB': lambda row: f'{row["bytes"] / 1e6:.2f}',
    'ms': lambda row: '{median:.0f} ({lowest:.0f}–{highest:.0f})'.format(
        **{name: 1e3 * seconds for name, seconds in row['time'].items()}
    ),
    'ratio': lambda row: f'{row["ratio"]["median"]:.2f}',
    'compile (s)': lambda row: f'{row["compile_seconds"]:.1f}',
    'error': lambda row: f'{row["error"]:.1e}',
}
_FIELDS = ('scale', 'channels', 'num_blocks', 'features', 'width_multiplier', 'groups', 'cardinality')


def run_stablehlo(contents: bytes, network: Network, params: Mapping[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """The exported function in JAX."""
    function = jax.jit(export.deserialize(bytearray(contents)).call)
    return lambda images: np.asarray(function(images))


def run_onnx(contents: bytes, network: Network, params: Mapping[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """The model in ONNX Runtime on a CPU."""
    session = onnxruntime.InferenceSession(contents, providers=['CPUExecutionProvider'])
    return lambda images: session.run(None, {'image': images.transpose(0, 3, 1, 2)})[0].transpose(0, 2, 3, 1)


def run_torch(contents: bytes, network: Network, params: Mapping[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """The same network in PyTorch, eager, on a CPU."""
    import torch

    from benchmarks import torch_network

    theirs = torch_network.RestorationNetwork(**{name: getattr(network, name) for name in _FIELDS})
    torch_network.copy_parameters(params, theirs)

    def restore(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return theirs(torch.from_numpy(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()

    return restore


# By the candidate's name: the suffix of its file, and what makes a function of the file's contents.
RUNTIMES = {
    'StableHLO, JAX': ('.stablehlo', run_stablehlo),
    'ONNX, ONNX Runtime': ('.onnx', run_onnx),
    'PyTorch, eager': ('.pth', run_torch),
}


def measure(network: Network, params: Mapping[str, Any], size: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """The rows of a table, one for each runtime.

    Args:
        size: batch, height and width of the input.
        rounds: how often each runtime is timed.

    Raises:
        UserError: a runtime fails, or gives another result than the network.
    """
    expected = {'restored': np.asarray(jax.jit(network.apply)({'params': params}, make_images(network, size, 0)))}
    candidates, sizes = [], []
    for name, (suffix, make_function) in RUNTIMES.items():
        if suffix == '.pth' and util.find_spec('torch') is None:
            continue
        contents, _ = EXPORT_FORMATS[suffix].encode(network, params, {})
        sizes.append(len(contents))
        candidates.append(
            Candidate(
                name=name,
                group='restore',
                prepare=lambda seed: make_images(network, size, seed),
                run=make_function(contents, network, params),
                wait=lambda _: None,
                check=lambda restored: check_errors(
                    relative_errors({'restored': restored}, expected), convolution_tolerance('float32')
                ),
            )
        )
    measurements = take_turns(candidates, rounds)
    if failures := [f'{each.candidate.name}: {each.failure}' for each in measurements if each.failure]:
        raise UserError(failures[0])
    rows = report.section('', measurements, measurements[0], None)['rows']
    return [row | {'bytes': each} for row, each in zip(rows, sizes, strict=True)]


def make_images(network: Network, size: Sequence[int], seed: int) -> np.ndarray:
    """Random images, float32 (batch, height, width, channels)."""
    return np.random.default_rng(seed).random((*size, network.channels), np.float32)


def main(argv: Sequence[str]) -> int:
    """Measure the network with its gates and with fixed ones."""
    options = flags.FLAGS
    if argv[1:]:
        raise UserError(f'unexpected argument {argv[1]!r}: options start with --')
    try:
        config = sr.get_config(f'scale=2,preset={options.preset}')
    except ValueError as error:
        raise UserError(f'--preset: {error}') from error
    network, size = build_network(config.model), (options.batch, options.side, options.side)
    params = network.init(new_key(0), make_images(network, (1, 8, 8), 0))['params']
    report.compile_anew()
    written = report.Report(options.output, 'float32')
    uniform = network.clone(gate='uniform') if network.is_gated else network
    for title, each in {
        'its gates': (network, params),
        'fixed gates': fold_known_gates(uniform, params),
    }.items():
        parameters = f'{count_parameters(each[0]):,} parameters'
        title = (
            f'{options.preset} x2 with {title}, {parameters}, {options.batch} x {options.side}x{options.side} pixels'
        )
        written.add({'title': title, 'rows': measure(*each, size, options.rounds)}, COLUMNS)
    return written.exit_code


if __name__ == '__main__':
    flags.DEFINE_string('preset', 'edsr_s_nsr', 'A network with gates in configs/presets.py.')
    flags.DEFINE_integer('batch', 1, 'Images at once.', lower_bound=1)
    flags.DEFINE_integer('side', 96, 'Side of the images, in input pixels.', lower_bound=1)
    flags.DEFINE_integer('rounds', 7, 'How often each runtime is timed.', lower_bound=3)
    flags.DEFINE_string('output', None, 'JSON file for every time; the tables are written beside it as .md.')
    command_line.run(main)
