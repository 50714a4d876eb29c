"""The whole train step of networks with and without gates: sample, degrade, restore, compare, update.

    python -m benchmarks.train_step --output=train_step.json
    python -m benchmarks.train_step --presets=resnet,resnet_nsr_capacity --dtype=bfloat16 --notorch
    python -m benchmarks.train_step --memory

Ratios are to the first preset, which should be the plain network of the comparison. Each step draws its own batch from
a resident store of random images. Beside the whole step stand forward and backward pass, optimizer and sampling, each
alone. Where PyTorch is installed, the same networks in PyTorch take part, from the same weights, on batches that are on
the device already. Losses and gradients are checked in the same run against ours, computed sample by sample in float32
at the highest precision. `--memory` compiles the step of each preset and runs nothing: bytes, and seconds to compile.
"""

from collections.abc import Sequence
from typing import Any

import jax
from absl import flags

from benchmarks import report, step_memory, tables
from benchmarks.environment import peak_memory
from benchmarks.matmul_peak import matmul_candidate, peak_of, peak_table
from benchmarks.step_parts import GRADIENT, OPTIMIZER, SAMPLING, WHOLE, Training, preset_config
from benchmarks.timing import Candidate, Measurement, fastest, take_turns
from nsr_jax import command_line
from nsr_jax.errors import UserError

TIMED = ('edsr_s', 'edsr_s_nsr')
COMPILED = ('edsr_s', 'edsr_s_nsr', 'edsr_l_nsr', 'resnet', 'resnet_nsr_efficient', 'resnet_nsr_capacity', 'wdsr_s')


def torch_candidates(training: Training, calls: int, variants: Sequence[Any]) -> list[Candidate]:
    """The same network and step in PyTorch."""
    from benchmarks import torch_training

    return torch_training.candidates(
        training.preset,
        training.network,
        training.initial.params,
        training.batch,
        dtype=training.dtype,
        rate=training.rate,
        calls=calls,
        flops=training.flops,
        groups=(WHOLE, GRADIENT),
        check=training.check,
        variants=variants,
    )


def compare(measurements: Sequence[Measurement], trainings: Sequence[Training], setting: str) -> list[dict[str, Any]]:
    """The tables: the peak, steps against the first preset's, and of what each preset's step consists."""
    peak = peak_of(measurements)
    work = {'steps': 1, 'images': trainings[0].batch_size}
    by_name = {each.candidate.name: each for each in measurements}
    found = [peak_table(measurements, trainings[0].dtype)]
    for group in (WHOLE, GRADIENT):
        rows = [each for each in measurements if each.candidate.group == group]
        notes = []
        for training in trainings:
            ours = by_name[f'{training.preset} {group}']
            peers = [each for each in rows if each.candidate.name.startswith(f'{ours.candidate.name}, ')]
            notes.append(tables.comparison(ours, fastest(peers)))
        floor = by_name[f'{trainings[0].preset} {group}']
        found.append(tables.section(f'{group}, {setting}', rows, floor, peak, work, ' '.join(filter(None, notes))))
    for training in trainings:
        rows = [by_name[f'{training.preset} {group}'] for group in (WHOLE, GRADIENT, OPTIMIZER, SAMPLING)]
        title = f'parts of a step of {training.preset}, each alone, {setting}'
        found.append(tables.section(title, rows, rows[0], peak, work))
    return found


def setting(options: flags.FlagValues) -> str:
    """What all steps have in common."""
    blocks = f', {options.num_blocks} blocks' if options.num_blocks else ''
    side = options.patch_size
    return f'batch {options.batch_size}, patches {side}x{side}{blocks}, {options.dtype}'


def measure(
    trainings: Sequence[Training], variants: Sequence[Any], options: flags.FlagValues, written: report.Report
) -> None:
    """Time all steps and add their tables."""
    calls = options.calls or (1 if jax.default_backend() == 'cpu' else 10)
    candidates = [matmul_candidate(options.dtype)]
    for training in trainings:
        candidates += training.candidates(calls)
    if variants:
        from benchmarks import torch_peers

        torch_peers.configure()
        for training in trainings:
            candidates += torch_candidates(training, calls, variants)
    found = compare(take_turns(candidates, options.rounds), trainings, setting(options))
    memory = peak_memory()
    found[-1]['note'] = f'Most memory of {memory["of"]} over the whole run: {memory["bytes"] / 1e6:,.0f} MB.'
    found[-1]['peak_memory'] = memory
    for table in found:
        written.add(table, tables.to_markdown(table))


def main(argv: Sequence[str]) -> int:
    """Measure the presets and print their tables; 1 where a candidate failed."""
    options = flags.FLAGS
    if argv[1:]:
        raise UserError(f'unexpected argument {argv[1]!r}: options start with --')
    presets = options.presets or (COMPILED if options.memory else TIMED)
    if len(set(presets)) != len(presets):
        raise UserError(f'--presets names one twice: {",".join(presets)}')
    sizes = {name: options[name].value for name in ('scale', 'num_blocks', 'batch_size', 'patch_size')}
    trainings = [Training(preset, preset_config(preset, **sizes), options.dtype) for preset in presets]
    variants = [] if options.memory else report.torch_variants(options)
    report.compile_anew()
    written = report.Report(options.output, options.dtype)
    if options.memory:
        rows = [step_memory.compile_step(training) for training in trainings]
        written.add(*step_memory.memory_table(rows, f'train step, compiled only, {setting(options)}'))
    else:
        measure(trainings, variants, options, written)
    return written.exit_code


if __name__ == '__main__':
    flags.DEFINE_list('presets', [], f'Names in configs/presets.py; default {",".join(TIMED)}; with --memory, seven.')
    flags.DEFINE_integer('scale', 2, 'Of super-resolution presets.')
    flags.DEFINE_integer('num_blocks', 0, 'Residual blocks; 0: what the preset has.', lower_bound=0)
    flags.DEFINE_integer('batch_size', 16, 'Patches in a step, over all devices.', lower_bound=1)
    flags.DEFINE_integer('patch_size', 48, 'Side of an input patch.', lower_bound=1)
    flags.DEFINE_bool('memory', False, 'Compile only, and print bytes and seconds.')
    report.define_flags()
    command_line.run(main)
