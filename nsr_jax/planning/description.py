"""A plan as a text for people."""

from collections.abc import Mapping
from typing import Any

from nsr_jax import markdown
from nsr_jax.planning.chips import CHIPS

_MEMORY = {
    'parameters': 'parameters',
    'optimizer_and_averages': 'optimizer state, averages of the weights',
    'images': 'images',
    'restored': 'restored images',
    'padding': 'padding of these',
    'temporaries': 'activations, gradients, copies',
    'program': 'the program itself',
    'peak': '**together**',
    'available': 'the memory of a device',
}


def describe(plan: Mapping[str, Any]) -> str:
    """The text of a plan of training that `make_plan` has made, in Markdown."""
    name, mesh = plan['compiled_for'], plan['mesh']
    lines = [
        f'# Plan for {name}',
        '',
        f'{plan["chips"]} chips, {plan["devices"]} devices as a mesh of {mesh["data"]} (data) x {mesh["fsdp"]} (fsdp); '
        f'batch {plan["batch_size"]}, of which each device has {plan["batch_size"] // plan["devices"]}; '
        f'{plan["images"]}.',
        '',
        _say_source(plan),
        '',
        *_describe_memory(plan),
    ]
    if plan['advice']:
        lines += ['', 'What would take less, the most promising first:', '', *(f'- {text}' for text in plan['advice'])]
    if 'step' in plan:
        lines += ['', *_describe_step(plan['step'], plan['steps_per_call'], CHIPS[name.partition(':')[0]].peak_flops)]
        lines += ['', f'Compiled in {plan["compile_seconds"]:.0f} s.']
    return '\n'.join(lines) + '\n'


def describe_restoring(plan: Mapping[str, Any]) -> str:
    """The text of a plan that `plan_restoring` has made, in Markdown."""
    name = plan['compiled_for']
    chip = CHIPS[name.partition(':')[0]]
    batch, height, width, _ = plan['input']
    lines = [
        f'# Plan of restoring on one device of {name}',
        '',
        f'{batch} at once of {width}x{height} pixels.',
        '',
        _say_source(plan),
        '',
        *_describe_memory(plan),
    ]
    if 'call' in plan:
        call = plan['call']
        lines += [
            '',
            '## A call',
            '',
            _bounds_table(call, 'FLOPs (2 for each Multi-Add of the network)'),
            f'A call takes at least {_bounds(call, chip.peak_flops)}',
            *_describe_cycles(call, 'call', {'kind of work': call['share_by_kind']}),
            '',
            f'Compiled in {plan["compile_seconds"]:.0f} s.',
        ]
    return '\n'.join(lines) + '\n'


def _say_source(plan: Mapping[str, Any]) -> str:
    versions = ', '.join(f'{package} {version}' for package, version in plan['compiler'].items())
    source = CHIPS[plan['compiled_for'].partition(':')[0]].source
    return (
        f'All numbers are answers of the compiler ({versions}), or follow from them and from published figures of the '
        f'chip ({source}). Nothing was run or measured.'
    )


def _describe_memory(plan: Mapping[str, Any]) -> list[str]:
    memory = plan['memory']
    rows = [[text, f'{memory[part] / 1e6:,.1f}'] for part, text in _MEMORY.items() if part in memory]
    fits = 'It fits.' if plan['fits'] else f'**It does not fit.** {plan.get("failure", "")}'.rstrip()
    return ['## Memory of a device', '', markdown.table(['part', 'MB'], rows), fits]


def _describe_step(step: Mapping[str, Any], steps_per_call: int, peak: float) -> list[str]:
    shares = {'kind of work': step['share_by_kind'], 'part of the step': step['share_by_part']}
    lines = [
        '## A step of a device',
        '',
        _bounds_table(step, 'FLOPs (6 for each Multi-Add of the network)'),
        f'A step takes at least {_bounds(step, peak)}',
        *_describe_cycles(step, 'step', shares),
    ]
    if step['moved_bytes_of_a_call_outside_of_steps']:
        lines += [
            '',
            f'Outside of its steps a call of {steps_per_call} moves '
            f'{step["moved_bytes_of_a_call_outside_of_steps"] / 1e6:,.1f} MB.',
        ]
    return lines


def _bounds_table(work: Mapping[str, Any], flops: str) -> str:
    seconds = work['seconds_at_least_by']
    collectives = ', '.join(
        f'{row["count"]} {kind} of {row["bytes"] / 1e6:.1f} MB' for kind, row in work['collectives'].items()
    )
    rows = [
        [flops, f'{work["flops"] / 1e9:,.1f} G', seconds['flops']],
        ['bytes between memory and chip', f'{work["moved_bytes"] / 1e6:,.1f} MB', seconds['memory']],
        [f'collectives: {collectives or "none"}', '', seconds['collectives']],
    ]
    return markdown.table(
        ['work', 'amount', 'ms at least'], [[*row[:2], f'{1e3 * row[2]:.3f}'] for row in rows], left=1
    )


def _bounds(work: Mapping[str, Any], peak: float) -> str:
    return (
        f'**{1e3 * work["seconds_at_least"]:.2f} ms**, if everything ran at the published speeds '
        f'({peak / 1e12:g} TFLOP/s in bfloat16) and the collectives beside the rest. It will take longer: no program '
        'reaches all of them.'
    )


def _describe_cycles(work: Mapping[str, Any], what: str, shares: Mapping[str, Mapping[str, float]]) -> list[str]:
    if not work['estimated_cycles']:
        return []
    lines = ['', f'The compiler estimates {work["estimated_cycles"] / 1e6:,.2f} million cycles for a {what}:']
    for name, parts in shares.items():
        lines += ['', markdown.table([name, '% of the estimated cycles'], _percent(parts)).rstrip()]
    kernels = ', '.join(f'{name} ({count})' for name, count in work['kernels'].items()) or 'no such kernels'
    return [
        *lines,
        '',
        f"The compiler's estimates of cycles are loose; kernels of our own have none. There are {kernels}.",
    ]


def _percent(shares: Mapping[str, float]) -> list[list[str]]:
    return [[name, f'{100 * share:.1f}'] for name, share in shares.items()]
