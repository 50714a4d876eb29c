"""What the devices of a mesh send each other in a train step: by a model, and by what XLA has compiled."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import jax
from jax.sharding import AbstractMesh, AxisType

from nsr_jax.models.build import Network
from nsr_jax.models.cost import parameter_shapes
from nsr_jax.training.sharding import BATCH_AXES, state_shardings

_BYTES = {'pred': 1, 's8': 1, 'u8': 1, 'bf16': 2, 'f16': 2, 's32': 4, 'u32': 4, 'f32': 4, 's64': 8, 'u64': 8, 'f64': 8}
_INSTRUCTION = re.compile(r'\s*(?:ROOT )?%?\S+ = (.+?) ((?:all|collective|reduce-scatter|ragged)[a-z-]*)\((.*)')
_GROUPS = re.compile(r'replica_groups=(mesh\[.*?\{.*?\}|\{\{.*?\}\}|\[\S+)')


class Collective(NamedTuple):
    """One operation that devices do together.

    Attributes:
        kind: all-reduce, all-gather, reduce-scatter or all-to-all.
        nbytes: of the array that each device has before or afterwards, whichever is larger.
        devices: that do it together.
        axes: of the mesh that they lie along; () where that is not known.
    """

    kind: str
    nbytes: float
    devices: int
    axes: tuple[str, ...] = ()

    @property
    def sent(self) -> float:
        """Bytes that each device sends, in a ring: an all-reduce is a reduce-scatter and an all-gather."""
        rounds = 2 if self.kind == 'all-reduce' else 1
        return rounds * (self.devices - 1) / self.devices * self.nbytes


def predict(network: Network, data: int, fsdp: int) -> Iterator[Collective]:
    """The collectives of a step on a mesh; those over one device are left out.

    A parameter that is split over `fsdp` is gathered once; its gradient is summed over `fsdp`, where each device keeps
    its part, and each part over `data`. What is not split, for want of an axis that divides, is summed over all
    devices. Not counted are the norm of the gradient and the metrics: a few numbers.

    Args:
        network: what is trained.
        data: devices that hold the same parameters.
        fsdp: devices that split them.
    """
    mesh = AbstractMesh((data, fsdp), BATCH_AXES, axis_types=(AxisType.Auto,) * 2)
    shapes = parameter_shapes(network)
    for leaf, sharding in zip(jax.tree.leaves(shapes), jax.tree.leaves(state_shardings(mesh, shapes)), strict=True):
        nbytes = math.prod(leaf.shape) * leaf.dtype.itemsize
        if sharding.is_fully_replicated:
            found = [Collective('all-reduce', nbytes, data * fsdp, BATCH_AXES)]
        else:
            found = [
                Collective('all-gather', nbytes, fsdp, ('fsdp',)),
                Collective('reduce-scatter', nbytes, fsdp, ('fsdp',)),
                Collective('all-reduce', nbytes / fsdp, data, ('data',)),
            ]
        yield from (each for each in found if each.devices > 1)


def read(program: str) -> Iterator[Collective]:
    """The collectives in the text of a compiled program, each once: those of one step.

    Raises:
        ArithmeticError: one is of a kind that is not counted here.
    """
    for line in program.splitlines():
        if (match := _INSTRUCTION.match(line)) is None:
            continue
        shapes, kind, rest = match.groups()
        if kind not in ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all'):
            raise ArithmeticError(f'{kind} is not counted: {line.strip()[:200]}')
        devices = _group_size(_GROUPS.search(rest)[1])
        arrays = re.findall(r'([a-z]+\d*)\[([\d,]*)\]', shapes)
        nbytes = sum(_BYTES[dtype] * math.prod(map(int, filter(None, axes.split(',')))) for dtype, axes in arrays)
        yield Collective(kind, nbytes * devices if kind == 'reduce-scatter' else nbytes, devices)


def _group_size(groups: str) -> int:
    """From one of the three ways in which XLA writes replica groups: a mesh with axes, sizes, or a list."""
    if groups.startswith('mesh['):
        sizes = {axis: int(size) for axis, size in re.findall(r"'(\w+)'=(\d+)", groups)}
        return math.prod(sizes[axis] for axis in re.findall(r"'(\w+)'", groups[groups.rindex('{') :]))
    if match := re.match(r'\[(\d+),(\d+)\]<=', groups):
        return int(match[2])
    return len(re.match(r'\{\{([\d,]+)\}', groups)[1].split(','))
