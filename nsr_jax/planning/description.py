"""A plan as a text for people."""

from collections.abc import Mapping
from typing import Any

from nsr_jax import markdown
from nsr_jax.planning.chips import CHIPS

_MEMORY = {
    'parameters': 'parameters',
    'optimizer_and_averages': 'optimizer state, averages of the weights',
    'images': 'images',
    'padding': 'padding of these',
    'temporaries': 'activations, gradients, copies',
    'program': 'the program itself',
    'peak': '**together**',
    'available': 'the memory of a device',
}


def describe(plan: Mapping[str, Any]) -> str:
    """The text of a plan that `make_plan` has made, in Markdown."""
    name, mesh = plan['compiled_for'], plan['mesh']
    kind = name.partition(':')[0]
    versions = ', '.join(f'{package} {version}' for package, version in plan['compiler'].items())
    lines = [
        f'# Plan for {name}',
        '',
        f'{plan["chips"]} chips, {plan["devices"]} devices as a mesh of {mesh["data"]} (data) x {mesh["fsdp"]} (fsdp); '
        f'batch {plan["batch_size"]}, of which each device has {plan["batch_size"] // plan["devices"]}; '
        f'{plan["images"]}.',
        '',
        f'All numbers are answers of the compiler ({versions}), or follow from them and from published figures of the '
        f'chip ({CHIPS[kind].source}). Nothing was run or measured.',
        '',
        '## Memory of a device',
        '',
        markdown.table(
            ['part', 'MB'],
            [[text, f'{plan["memory"][part] / 1e6:,.1f}'] for part, text in _MEMORY.items() if part in plan['memory']],
        ),
        'It fits.' if plan['fits'] else f'**It does not fit.** {plan.get("failure", "")}'.rstrip(),
    ]
    if plan['advice']:
        lines += ['', 'What would take less, the most promising first:', '', *(f'- {text}' for text in plan['advice'])]
    if 'step' in plan:
        lines += ['', *_describe_step(plan['step'], plan['steps_per_call'], CHIPS[kind].peak_flops)]
        lines += ['', f'Compiled in {plan["compile_seconds"]:.0f} s.']
    return '\n'.join(lines) + '\n'


def _describe_step(step: Mapping[str, Any], steps_per_call: int, peak: float) -> list[str]:
    seconds = step['seconds_at_least_by']
    collectives = ', '.join(
        f'{row["count"]} {kind} of {row["bytes"] / 1e6:.1f} MB' for kind, row in step['collectives'].items()
    )
    rows = [
        ['FLOPs (6 for each Multi-Add of the network)', f'{step["flops"] / 1e9:,.1f} G', seconds['flops']],
        ['bytes between memory and chip', f'{step["moved_bytes"] / 1e6:,.1f} MB', seconds['memory']],
        [f'collectives: {collectives or "none"}', '', seconds['collectives']],
    ]
    lines = [
        '## A step of a device',
        '',
        markdown.table(['work', 'amount', 'ms at least'], [[*row[:2], f'{1e3 * row[2]:.3f}'] for row in rows], left=1),
        f'A step takes at least **{1e3 * step["seconds_at_least"]:.2f} ms**, if everything ran at the published speeds '
        f'({peak / 1e12:g} TFLOP/s in bfloat16) and the collectives beside the rest. It will take longer: no program '
        'reaches all of them.',
    ]
    if step['estimated_cycles']:
        millions = step['estimated_cycles'] / 1e6
        lines += ['', f'The compiler estimates {millions:,.2f} million cycles for a step:']
        for what, shares in (('kind of work', step['share_by_kind']), ('part of the step', step['share_by_part'])):
            lines += ['', markdown.table([what, '% of the estimated cycles'], _percent(shares)).rstrip()]
        lines += ['', "The compiler's estimates of cycles are loose; kernels of our own have none."]
    if step['moved_bytes_of_a_call_outside_of_steps']:
        lines += [
            '',
            f'Outside of its steps a call of {steps_per_call} moves '
            f'{step["moved_bytes_of_a_call_outside_of_steps"] / 1e6:,.1f} MB.',
        ]
    return lines


def _percent(shares: Mapping[str, float]) -> list[list[str]]:
    return [[name, f'{100 * share:.1f}'] for name, share in shares.items()]
