"""The plan of a run: its very train step, compiled for chips that are not there, and what the compiler says of it."""

import collections
import importlib.metadata
import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import ml_collections

from nsr_jax.models.cost import count_multi_adds
from nsr_jax.ops.settings import without_x64
from nsr_jax.planning import hlo
from nsr_jax.planning.advice import find_advice
from nsr_jax.planning.collectives import Collective, find_collectives
from nsr_jax.planning.images import plan_images
from nsr_jax.planning.target import Target, find_target
from nsr_jax.training.profile import compile_anew, rows_of
from nsr_jax.training.run import build_program, check_names
from nsr_jax.training.sharding import make_mesh

_COMPILERS = ('libtpu', 'jax-cuda12-plugin', 'jax-cuda13-plugin')


class Work(NamedTuple):
    """What a program does, by its text: in a step, or in a call if it takes no steps.

    Attributes:
        moved: bytes between a device and its memory.
        by_kind: the compiler's estimated cycles, by `hlo.KINDS`.
        by_part: the same cycles, by the rows of `training.profile`.
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


@without_x64()
def make_plan(config: ml_collections.ConfigDict, name: str) -> dict[str, Any]:
    """Compile the train step of a config for chips.

    Args:
        config: as for `train`; its data need not be there if its source is DIV2K.
        name: the chips, as `find_target` takes them.

    Returns:
        the plan, which `json` can write and `describe` turns into a text: sizes in bytes, times in seconds, all of one
        device and one step unless their names say otherwise.

    Raises:
        UserError: a mistake in the config or the name, or a compiler that is not installed.
    """
    target = find_target(name)
    check_names(config)
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.batch_size, target.devices)
    images = plan_images(config, mesh)
    program = build_program(config, mesh, images.is_streamed)
    parameters = _bytes_on_device(program.abstract.params)
    state = _bytes_on_device(program.abstract)
    plan = {
        'compiled_for': name,
        'compiler': find_versions(),
        'chips': len(target.devices) // target.devices_per_chip,
        'devices': len(target.devices),
        'mesh': dict(mesh.shape),
        'batch_size': config.batch_size,
        'steps_per_call': config.steps_per_call,
        'images': images.description,
    }
    memory = {
        'available': target.chip.memory / target.devices_per_chip,
        'parameters': parameters,
        'optimizer_and_averages': state - parameters,
        'images': images.nbytes,
    }
    started = time.perf_counter()
    try:
        compiled = compile_anew(program, images.shapes)
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        plan |= {'memory': memory, 'fits': False, 'failure': str(error).splitlines()[0]}
        return plan | {'advice': find_advice(memory, config, mesh.size)}
    plan['compile_seconds'] = time.perf_counter() - started
    found: Any = compiled.memory_analysis()
    memory |= {
        'padding': found.argument_size_in_bytes - state - images.nbytes,
        'temporaries': found.temp_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes,
        'program': found.generated_code_size_in_bytes,
    }
    memory['peak'] = sum(size for part, size in memory.items() if part != 'available')
    work = read_work(compiled.as_text() or '')
    side = config.model.scale * config.data.patch_size
    flops = 6 * config.batch_size // mesh.size * count_multi_adds(program.network, (side, side)).total
    return plan | {
        'memory': memory,
        'fits': memory['peak'] <= memory['available'],
        'step': bound(target, flops, work)
        | {
            'share_by_part': _shares(work.by_part),
            'estimated_cycles_of_a_call_outside_of_steps': work.cycles_of_call,
            'moved_bytes_of_a_call_outside_of_steps': work.moved_by_call,
        },
        'advice': find_advice(memory, config, mesh.size),
    }


def read_work(text: str, in_steps: bool = True) -> Work:
    """Sum up what a program's text says.

    Args:
        in_steps: whether the program is a loop over steps; otherwise all of it is counted alike.
    """
    program, parts = hlo.parse(text), rows_of(text)
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
        'share_by_kind': _shares(work.by_kind),
        'kernels': dict(sorted(work.kernels.items())),
    }


def _link_bandwidth(each: Collective, target: Target) -> float:
    """Bytes a second that one chip sends in a collective."""
    network = target.chip.network_bandwidth
    return target.chip.link_bandwidth if network is None or each.devices <= target.devices_per_host else network


def _shares(cycles: Mapping[str, int]) -> dict[str, float]:
    total = sum(cycles.values())
    return {name: count / total for name, count in sorted(cycles.items(), key=lambda item: -item[1]) if count}


def _bytes_on_device(tree: Any) -> int:
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def find_versions() -> dict[str, str]:
    """The versions of JAX and of the compilers that are installed."""
    installed = {each.name.replace('_', '-'): each.version for each in importlib.metadata.distributions()}
    return {name: installed[name] for name in ('jax', *_COMPILERS) if name in installed}
