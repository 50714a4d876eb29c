"""Where the time of a training step goes: a trace of some steps, and a table of what the device did in them."""

import collections
import pathlib
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from absl import logging
from jax.experimental.compilation_cache import compilation_cache

from nsr_jax import markdown
from nsr_jax.atomic_files import make_output_folder, write_atomically
from nsr_jax.data.sampling import Regions
from nsr_jax.data.store import ImageStore
from nsr_jax.errors import UserError
from nsr_jax.ops.settings import without_x64
from nsr_jax.training.run import Program, check_run, prepare_run

FOLDER = 'profile'
TABLE = 'profile.md'

SAMPLE, OPTIMIZER = 'sampling and degradation', 'optimizer'
GATE, MIX, NORMALIZE = 'gates', 'mixing', 'weight normalisation'
FORWARD, BACKWARD = 'convolutions, forward', 'convolutions, backward'
NETWORK, UNNAMED, IDLE = 'other layers and the loss', 'copies and loops', 'idle'
ROWS = (SAMPLE, GATE, MIX, NORMALIZE, FORWARD, BACKWARD, NETWORK, OPTIMIZER, UNNAMED, IDLE)

_WINDOW = 'profiled steps'
_SCOPES = {'sample': SAMPLE, 'optimizer': OPTIMIZER, 'gate': GATE, 'mix': MIX, 'normalize': NORMALIZE}
_CONVOLUTION = re.compile(r'head|tail|skip|conv_\d+')
_INSTRUCTION = re.compile(r'^\s+(?:ROOT )?%?([\w.\-]+) = (?:\(.*?\)|\S+) ([\w\-]+)\(')
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_REFERENCE = re.compile(r'%([\w.\-]+)')
_CONTAINERS = {'while', 'conditional', 'call'}  # their time is counted in the operations that they run


class Event(NamedTuple):
    """One execution of an operation, by its name in the compiled program, from `start` to `end` in ns."""

    operation: str
    start: float
    end: float


@without_x64()
def profile(config: ml_collections.ConfigDict, workdir: str | pathlib.Path, num_steps: int) -> str:
    """Trace steps of a new network on the config's data; no checkpoint is read or written.

    Args:
        workdir: gets profile/ with profile.md and a trace for TensorBoard and Perfetto.
        num_steps: how many steps to trace, in calls of `config.steps_per_call` as in training.

    Returns:
        the text of profile.md: a Markdown table of milliseconds and percent of a step.

    Raises:
        UserError: as `train`, or the device's trace does not name the operations.
    """
    folder = pathlib.Path(workdir).resolve() / FOLDER
    check_run(config, workdir)
    make_output_folder(folder)
    run = prepare_run(config)
    started = time.perf_counter()
    feed = run.images.open_feed(0)
    images = feed.take(1)
    program = compile_anew(run, images)
    compile_seconds = time.perf_counter() - started
    state = run.create_state()
    state = jax.block_until_ready(program(state, images, np.int32(1)))[0]  # the first step allocates
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with (
        jax.profiler.trace(folder, create_perfetto_trace=True, profiler_options=options),
        jax.profiler.TraceAnnotation(_WINDOW),
    ):
        for first in range(0, num_steps, config.steps_per_call):
            count = min(config.steps_per_call, num_steps - first)
            state, _ = program(state, feed.take(count), np.int32(count))
        jax.block_until_ready(state)
    feed.close()
    trace = max(folder.glob('plugins/profile/*/*.xplane.pb'), key=lambda path: path.stat().st_mtime)
    window, events = read_trace(jax.profiler.ProfileData.from_file(str(trace)))
    if not events:
        raise UserError(f'{trace} names no operations: profiling is not possible on {jax.devices()[0].device_kind}')
    nanoseconds = share_time(window, events, rows_of(program.as_text() or ''))
    memory: Any = program.memory_analysis()
    text = _table(nanoseconds, num_steps) + (
        f'\n{num_steps} steps of {config.batch_size} patches on {jax.device_count()} x {jax.devices()[0].device_kind}. '
        f'On each device: {memory.argument_size_in_bytes / 1e9:.2f} GB of state and images, '
        f'{memory.temp_size_in_bytes / 1e9:.2f} GB of temporary memory. Compiled in {compile_seconds:.1f} s.\n\n'
        'A fused operation counts for the part to which its last operation belongs. Operations that run at the same '
        'time share it evenly.\n'
    )
    write_atomically(folder / TABLE, text)
    logging.info('trace and table are in %s', folder)
    return text


def compile_anew(program: Program, images: ImageStore | Regions) -> jax.stages.Compiled:
    """Compile the train steps anew, as a cached program may name its operations as another version of the code did."""
    lowered = program.train_steps.lower(program.abstract, images, jax.ShapeDtypeStruct((), np.int32))
    uses_cache = jax.config.values['jax_enable_compilation_cache']
    try:
        jax.config.update('jax_enable_compilation_cache', False)
        compilation_cache.reset_cache()  # it reads the option once
        return lowered.compile()
    finally:
        jax.config.update('jax_enable_compilation_cache', uses_cache)
        compilation_cache.reset_cache()


def row_of(op_name: str) -> str:
    """The row of the table for an operation's scopes, as 'jit(f)/transpose(jvp(Network))/block_00/conv_1/mul'."""
    scopes = re.split('[/()]', op_name)
    for scope in scopes:
        if scope in _SCOPES:
            return _SCOPES[scope]
    is_backward = 'transpose' in scopes[:-1]  # the last scope is the operation, which may be a transposition itself
    if any(_CONVOLUTION.fullmatch(scope) for scope in scopes):
        return BACKWARD if is_backward else FORWARD
    return NETWORK if 'jvp' in scopes else UNNAMED


def rows_of(program: str) -> dict[str, str | None]:
    """The row of each instruction in a compiled program's text; None for loops, branches and calls.

    An instruction that the compiler added without a name, such as a copy for a loop, belongs where its result is used.
    """
    kinds, op_names, users = {}, {}, collections.defaultdict(list)
    for line in program.splitlines():
        if instruction := _INSTRUCTION.match(line):
            name, kind = instruction.groups()
            kinds[name] = kind
            if op_name := _OP_NAME.search(line):
                op_names[name] = op_name[1]
            for operand in _REFERENCE.findall(line, instruction.end()):
                users[operand].append(name)

    def find_row(name: str) -> str:
        reached, seen = [name], {name}
        for each in reached:
            if each in op_names:
                return row_of(op_names[each])
            new = [user for user in users[each] if user not in seen]
            reached += new
            seen.update(new)
        return UNNAMED

    return {name: None if kind in _CONTAINERS else find_row(name) for name, kind in kinds.items()}


def read_trace(data: Any) -> tuple[tuple[float, float], list[Event]]:
    """The profiled time span, and what one device did in it.

    Each device has a plane with its operations, except CPUs, whose operations are among the host's threads. There an
    operation may continue in other threads after it has returned; another event marks its end.
    """
    planes = {plane.name: [event for line in plane.lines for event in line.events] for plane in data.planes}
    ((start, end),) = (
        (event.start_ns, event.end_ns) for events in planes.values() for event in events if event.name == _WINDOW
    )
    for name in sorted(planes, key=lambda name: (not name.startswith('/device:'), name)):
        operations, ends = [], {}
        for event in planes[name]:
            statistics = dict(event.stats)
            if 'hlo_op' in statistics:
                operations.append((event, statistics))
            elif event.name.startswith('end: '):
                ends[statistics.get('_c')] = event.end_ns
        if operations:
            return (start, end), [
                Event(statistics['hlo_op'], event.start_ns, ends.get(statistics.get('_p'), event.end_ns))
                for event, statistics in operations
            ]
    return (start, end), []


def share_time(
    window: tuple[float, float], events: Iterable[Event], rows: Mapping[str, str | None]
) -> dict[str, float]:
    """Divide a span of time among the rows of the table, so that they sum up to it.

    Args:
        window: start and end, ns.
        events: what ran, of which time outside the window does not count.
        rows: the row of each operation, as from `rows_of`; unknown operations are `UNNAMED`.

    Returns:
        ns for each of `ROWS`: operations that run at the same time share it evenly.
    """
    start, end = window
    changes = []
    for event in events:
        row = rows.get(event.operation, UNNAMED)
        first, last = max(event.start, start), min(event.end, end)
        if first < last:
            changes += [(first, 1, row), (last, -1, row)]
    shares: dict[str, float] = dict.fromkeys(ROWS, 0.0)
    running: collections.Counter[str | None] = collections.Counter()
    moment = start
    for next_moment, change, row in [*sorted(changes, key=lambda change: change[0]), (end, 0, None)]:
        active = {name: count for name, count in running.items() if name is not None and count}
        if not active:
            active = {UNNAMED if running[None] else IDLE: 1}  # a loop between two of its operations
        for name, count in active.items():
            shares[name] += (next_moment - moment) * count / sum(active.values())
        running[row] += change
        moment = next_moment
    return shares


def _table(nanoseconds: dict[str, float], num_steps: int) -> str:
    total = sum(nanoseconds.values())
    rows = [
        [row, f'{share / num_steps / 1e6:.3f}', f'{100 * share / total:.1f}']
        for row, share in (nanoseconds | {'**total**': total}).items()
    ]
    return markdown.table(['part of a step', 'ms', '%'], rows)
