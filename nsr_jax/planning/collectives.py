"""What devices send to one another in a step."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from nsr_jax.planning.hlo import BYTES, Instruction, Program, find_parts

_GROUPS = re.compile(r'replica_groups=(mesh\[.*?\{.*?\}|\{\{.*?\}\}|\[\S+)')
_ARRAY = re.compile(r'([a-z]+\d*)\[([\d,]*)\]')
_ROUNDS = {'all-reduce': 2, 'all-gather': 1, 'reduce-scatter': 1, 'all-to-all': 1}


class Collective(NamedTuple):
    """One operation that devices perform together.

    Attributes:
        kind: all-reduce, all-gather, reduce-scatter, all-to-all or collective-permute.
        nbytes: size of the array that each device holds before or afterwards, whichever is larger.
        devices: how many take part.
        axes: of the mesh that these devices lie along; () if unknown.
    """

    kind: str
    nbytes: float
    devices: int
    axes: tuple[str, ...] = ()

    @property
    def sent(self) -> float:
        """Bytes that each device sends in a ring; an all-reduce counts as a reduce-scatter and an all-gather."""
        if self.kind == 'collective-permute':
            return self.nbytes
        return _ROUNDS[self.kind] * (self.devices - 1) / self.devices * self.nbytes


def find_collectives(program: Program, instruction: Instruction) -> Iterator[Collective]:
    """The collectives that an instruction, or a fusion, consists of.

    Raises:
        ArithmeticError: one is of a kind that is not counted.
    """
    for part in find_parts(program, instruction):
        if not re.match('all-|reduce-scatter|collective-|ragged-', part.opcode) or part.opcode.endswith('-done'):
            continue
        kind = part.opcode.removesuffix('-start')
        if kind not in _ROUNDS and kind != 'collective-permute':
            raise ArithmeticError(f'{kind} is not counted: {part.rest[:200]}')
        arrays = [
            BYTES[dtype] * math.prod(map(int, filter(None, sides.split(','))))
            for dtype, sides in _ARRAY.findall(part.shape)
        ]
        if part.opcode in ('all-gather-start', 'collective-permute-start'):  # operands and results
            arrays = [max(arrays)] if len(arrays) < 4 else arrays[len(arrays) // 2 :]
        groups = _GROUPS.search(part.rest)
        devices = _group_size(groups[1]) if groups else 2
        nbytes = sum(arrays)
        yield Collective(kind, nbytes * devices if kind == 'reduce-scatter' else nbytes, devices)


def _group_size(groups: str) -> int:
    """The size of replica groups, which XLA writes in one of three ways: a mesh with axes, sizes, or a list."""
    if groups.startswith('mesh['):
        sizes = {axis: int(size) for axis, size in re.findall(r"'(\w+)'=(\d+)", groups)}
        return math.prod(sizes[axis] for axis in re.findall(r"'(\w+)'", groups[groups.rindex('{') :]))
    if match := re.match(r'\[(\d+),(\d+)\]<=', groups):
        return int(match[2])
    return len(groups[2:].partition('}')[0].split(','))
