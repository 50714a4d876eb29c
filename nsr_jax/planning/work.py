"""What a compiled program does by its text, and the least time that this takes on a chip."""

import collections
import importlib.metadata
from collections.abc import Mapping
from typing import Any, NamedTuple

from nsr_jax.planning import hlo
from nsr_jax.planning.collectives import Collective, find_collectives
from nsr_jax.planning.target import Target

_COMPILERS = ('libtpu', 'jax-cuda12-plugin', 'jax-cuda13-plugin')


class Work(NamedTuple):
    """What a program does, by its text: in a step, or in a call if it takes no steps.

    Attributes:
        moved: bytes between a device and its memory.
        by_kind: the compiler's estimated cycles, by `hlo.KINDS`.
        by_part: the same cycles, by the parts that were given.
        kernels: how often each of our own runs, by name.
        collectives: each listed as often as it runs.
        cycles_of_call: of what is done once a call, outside of the steps.
        moved_by_call: bytes, likewise.
    """

    moved: int
    by_kind: Mapping[str, int]
    by_part: Mapping[str, int]
    kernels: Mapping[str, int]
    collectives: list[Collective]
    cycles_of_call: int
    moved_by_call: int


def read_work(text: str, parts: Mapping[str, str | None], in_steps: bool = True) -> Work:
    """Sum up what a program's text says.

    Args:
        text: of the compiled program.
        parts: by name, the part of the work that an instruction belongs to.
        in_steps: whether the program is a loop over steps; otherwise all of it is counted alike.
    """
    program = hlo.parse(text)
    by_kind, by_part, kernels, of_call = (collections.Counter() for _ in range(4))
    moved, collectives = 0, []
    for each in hlo.find_executions(program):
        cycles, nbytes = (each.times * number for number in (each.instruction.cycles, hlo.count_moved(program, each)))
        if in_steps and not each.in_step:
            of_call.update(cycles=cycles, moved=nbytes)
            continue
        kind = hlo.find_kind(program, each.instruction)
        by_kind[kind] += cycles
        if kind == hlo.KERNELS:
            kernels[each.instruction.name.partition('.')[0]] += each.times
        by_part[parts.get(each.instruction.name) or 'loops'] += cycles
        moved += nbytes
        found = (one for one in find_collectives(program, each.instruction) if one.devices > 1)
        collectives += each.times * list(found)
    return Work(moved, by_kind, by_part, kernels, collectives, of_call['cycles'], of_call['moved'])


def bound(target: Target, flops: int, work: Work) -> dict[str, Any]:
    """What a device does, and the least seconds that this takes by the published speeds of the chip."""
    chip, share = target.chip, target.devices_per_chip
    seconds = {
        'flops': flops * share / chip.peak_flops,
        'memory': work.moved * share / chip.memory_bandwidth,
        'collectives': sum(each.sent * share / _link_bandwidth(each, target) for each in work.collectives),
    }
    by_kind = {}
    for each in work.collectives:
        row = by_kind.setdefault(each.kind, {'count': 0, 'bytes': 0, 'sent': 0})
        row['count'] += 1
        row['bytes'] += each.nbytes
        row['sent'] += each.sent
    return {
        'flops': flops,
        'moved_bytes': work.moved,
        'collectives': by_kind,
        'seconds_at_least': max(seconds['flops'], seconds['memory']),
        'seconds_at_least_by': seconds,
        'estimated_cycles': sum(work.by_kind.values()),
        'share_by_kind': shares(work.by_kind),
        'kernels': dict(sorted(work.kernels.items())),
    }


def _link_bandwidth(each: Collective, target: Target) -> float:
    """Bytes a second that one chip sends in a collective."""
    network = target.chip.network_bandwidth
    return target.chip.link_bandwidth if network is None or each.devices <= target.devices_per_host else network


def shares(cycles: Mapping[str, int]) -> dict[str, float]:
    """The shares of all cycles, the largest first; without those that took none."""
    total = sum(cycles.values())
    return {name: count / total for name, count in sorted(cycles.items(), key=lambda item: -item[1]) if count}


def find_versions() -> dict[str, str]:
    """The versions of JAX and of the compilers that are installed."""
    installed = {each.name.replace('_', '-'): each.version for each in importlib.metadata.distributions()}
    return {name: installed[name] for name in ('jax', *_COMPILERS) if name in installed}
