"""What the text of a compiled program (HLO) says: which instructions run how often, what they do and what they move."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

PRODUCTS, KERNELS, MOVES = 'convolutions and products', 'kernels of our own', 'copies, shifts and patches'
OTHERS, COLLECTIVES = 'elementwise and sums', 'collectives'
KINDS = (PRODUCTS, KERNELS, MOVES, OTHERS, COLLECTIVES)

BYTES = {'pred': 1, 's8': 1, 'u8': 1, 'bf16': 2, 'f16': 2, 's16': 2, 'u16': 2, 's32': 4, 'u32': 4, 'f32': 4}
BYTES |= {'s64': 8, 'u64': 8, 'f64': 8}

_COMPUTATION = re.compile(r'(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{')
_INSTRUCTION = re.compile(r'\s+(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)')
# Element type, sides, order of the axes from the fastest, and the rest of the layout: tiles and memory space.
_ARRAY = re.compile(r'([a-z]+\d*)\[([\d,]*)\](?:\{([\d,]*)(?::((?:[^{}]|\{\})*))?\})?')
_TILE = re.compile(r'T\(([\d,]+)\)')
_CALLED = re.compile(r'(?:calls|to_apply|branch_computations|true_computation|false_computation)=(\{.*?\}|%?[\w.\-]+)')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')

_COLLECTIVE = re.compile(r'(?:all-|collective-|reduce-scatter|ragged-all)')
_FREE = {'parameter', 'constant', 'get-tuple-element', 'tuple', 'bitcast', 'after-all', 'partition-id', 'opt-barrier'}
_SLICES = {'slice', 'dynamic-slice', 'gather'}  # which read no more of their operand than they give
_MOVES = _SLICES | _FREE | {
    *('copy', 'copy-start', 'slice-start', 'transpose', 'reshape', 'pad', 'concatenate', 'reverse', 'broadcast'),
    *('dynamic-update-slice', 'scatter', 'iota', 'bitcast-convert'),
}  # fmt: skip
_LIBRARY_PRODUCTS = ('__cudnn$conv', '__cublas')
_OWN_KERNELS = ('tpu_custom_call', '__gpu$xla.gpu.triton')  # Pallas


class Instruction(NamedTuple):
    """One line of the program.

    Attributes:
        name: unique in the program.
        shape: of the result, with its layout.
        opcode: what it does.
        operands: the names of its operands.
        rest: the text after the opcode and its bracket.
        is_root: whether it is the result of its computation.
    """

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    rest: str
    is_root: bool

    @property
    def called(self) -> list[str]:
        """The names of the computations that it calls, but for a loop's."""
        return [name for group in _CALLED.findall(self.rest) for name in re.findall(r'[\w.\-]+', group)]

    @property
    def cycles(self) -> int:
        """The compiler's estimate for one execution; 0: it gives none."""
        match = _CYCLES.search(self.rest)
        return int(match[1]) if match else 0


Computation = Mapping[str, Instruction]


class Program(NamedTuple):
    """The computations by name, each with its instructions by name, and the name of the one that runs first."""

    computations: Mapping[str, Computation]
    entry: str


class Execution(NamedTuple):
    """An instruction that takes time.

    Attributes:
        instruction: which.
        computation: in which it stands.
        times: how often it runs: in a step, or in a call if it is outside of the loop over the steps.
        in_step: whether it is in that loop.
    """

    instruction: Instruction
    computation: Computation
    times: int
    in_step: bool


def parse(text: str) -> Program:
    """Read a program's text."""
    computations: dict[str, dict[str, Instruction]] = {}
    current: dict[str, Instruction] = {}
    entry = ''
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            current = computations[match[2]] = {}
            entry = match[2] if match[1] else entry
        elif match := _INSTRUCTION.match(line):
            root, name, shape, opcode, rest = match.groups()
            operands = tuple(re.findall(r'%([\w.\-]+)', rest.partition('), ')[0]))
            current[name] = Instruction(name, shape, opcode, operands, rest, bool(root))
    return Program(computations, entry)


def find_executions(program: Program) -> Iterator[Execution]:
    """Every instruction that takes time. All branches of a condition count, as if each ran."""

    def walk(name: str, times: int, in_step: bool) -> Iterator[Execution]:
        for each in program.computations[name].values():
            if each.opcode == 'while':
                count = _count_trips(program, each)
                yield from walk(_named(each, 'body'), times * (count or 1), in_step or count is None)
            elif each.opcode in ('call', 'conditional', 'async-start'):
                for called in each.called:
                    yield from walk(called, times, in_step)
            elif each.opcode not in _FREE and not each.opcode.endswith(('-done', '-update')):
                yield Execution(each, program.computations[name], times, in_step)

    return walk(program.entry, 1, in_step=False)


def _count_trips(program: Program, loop: Instruction) -> int | None:
    """How often a loop's body runs; None: only the run will know, as for the loop over the steps."""
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest):
        return int(known[1])
    condition = program.computations[_named(loop, 'condition')]
    root = next(each for each in condition.values() if each.is_root)
    if root.opcode != 'compare' or 'direction=LT' not in root.rest:
        return None
    limits = [condition[name] for name in root.operands if condition[name].opcode == 'constant']
    return int(limits[0].rest.partition(')')[0]) if limits else None


def _named(loop: Instruction, what: str) -> str:
    match = re.search(rf'{what}=%?([\w.\-]+)', loop.rest)
    assert match, f'a loop without {what}'
    return match[1]


def find_kind(program: Program, instruction: Instruction) -> str:
    """Which of `KINDS` an instruction is; a fusion is what the heaviest of its parts are."""
    parts = list(find_parts(program, instruction))
    if any(_COLLECTIVE.match(part.opcode) for part in parts):
        return COLLECTIVES
    targets = ' '.join(part.rest for part in parts if part.opcode == 'custom-call')
    if any(part.opcode in ('convolution', 'dot') for part in parts) or any(
        name in targets for name in _LIBRARY_PRODUCTS
    ):
        return PRODUCTS
    if any(name in targets for name in _OWN_KERNELS):
        return KERNELS
    return MOVES if all(part.opcode in _MOVES for part in parts) else OTHERS


def find_parts(program: Program, instruction: Instruction) -> Iterator[Instruction]:
    """The instruction itself, or what a fusion is made of."""
    if instruction.opcode != 'fusion':
        yield instruction
        return
    for called in instruction.called:
        for part in program.computations[called].values():
            yield from find_parts(program, part)


def count_bytes(shape: str, in_memory_alone: bool = False) -> int:
    """The bytes of all arrays in a shape, with the padding of their tiles.

    Args:
        shape: with layouts; `S(1)` and other spaces in them are memories on the chip.
        in_memory_alone: leave these out.
    """
    return sum(_array_bytes(array) for array in _ARRAY.finditer(shape) if not (in_memory_alone and _is_on_chip(array)))


def _is_on_chip(array: re.Match) -> bool:
    return 'S(' in (array[4] or '')


def _array_bytes(array: re.Match) -> int:
    dtype, sides, order, layout = array.groups()
    lengths = [int(side) for side in sides.split(',') if side]
    if order:
        lengths = [lengths[int(axis)] for axis in reversed(order.split(','))]
    if tile := _TILE.search(layout or ''):
        for place, length in enumerate(reversed(tile[1].split(',')), start=1):
            if place <= len(lengths):
                lengths[-place] = math.ceil(lengths[-place] / int(length)) * int(length)
    return BYTES.get(dtype, 0) * math.prod(lengths)


def count_moved(program: Program, execution: Execution) -> int:
    """The bytes that one execution reads from the device's memory and writes to it, not counting memory on the chip."""
    instruction, computation = execution.instruction, execution.computation
    if instruction.opcode.endswith('-start') and not _COLLECTIVE.match(instruction.opcode):
        sizes = [_array_bytes(array) for array in _ARRAY.finditer(instruction.shape) if array[2]]
        return min(sizes, default=0)  # one side of a copy to or from memory on the chip
    written = count_bytes(instruction.shape, in_memory_alone=True)
    read = 0
    for place, name in enumerate(instruction.operands):
        if name in computation and (size := count_bytes(computation[name].shape, in_memory_alone=True)):
            read += min(size, _count_sliced(program, instruction, place, size))
    return written + read


def _count_sliced(program: Program, instruction: Instruction, place: int, whole: int) -> int:
    """The bytes that an instruction reads of one operand if it only cuts pieces from it, else `whole`."""
    if instruction.opcode in _SLICES:
        return count_bytes(instruction.shape) if place == 0 else whole
    if instruction.opcode != 'fusion':
        return whole
    inner = program.computations[instruction.called[0]]
    (name,) = (each.name for each in inner.values() if each.opcode == 'parameter' and each.rest.startswith(f'{place})'))
    users = [each for each in inner.values() if name in each.operands]
    if all(each.opcode in _SLICES and each.operands[0] == name for each in users):
        return sum(count_bytes(each.shape) for each in users)
    return whole
