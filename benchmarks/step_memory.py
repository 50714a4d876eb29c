"""What compiling a train step tells without running it: memory and the time of compilation."""

import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.step_parts import Training
from nsr_jax.models.cost import count_parameters

_COLUMNS = {
    'argument_bytes': 'arguments (MB)',
    'output_bytes': 'outputs (MB)',
    'alias_bytes': 'of them in place (MB)',
    'temporary_bytes': 'temporaries (MB)',
    'peak_bytes': 'peak (MB)',
}


def compile_step(training: Training) -> dict[str, Any]:
    """Compile the whole train step and read its memory: a row of `memory_table`."""
    shapes = training.abstract, training.abstract_store(), jax.ShapeDtypeStruct((), jnp.int32)
    start = time.perf_counter()
    lowered = training.train_steps.lower(*shapes)
    traced = time.perf_counter()
    compiled = lowered.compile()
    done = time.perf_counter()
    memory = compiled.memory_analysis()
    row = {
        'preset': training.preset,
        'parameters': count_parameters(training.network),
        'argument_bytes': memory.argument_size_in_bytes,
        'output_bytes': memory.output_size_in_bytes,
        'alias_bytes': memory.alias_size_in_bytes,
        'temporary_bytes': memory.temp_size_in_bytes,
        'trace_seconds': traced - start,
        'compile_seconds': done - traced,
    }
    held = row['argument_bytes'] + row['output_bytes'] - row['alias_bytes']
    return row | {'peak_bytes': held + row['temporary_bytes']}


def memory_table(rows: Sequence[dict[str, Any]], title: str) -> tuple[dict[str, Any], str]:
    """The rows as data and as Markdown."""
    heads = ['preset', 'parameters', *_COLUMNS.values(), 'trace (s)', 'compile (s)']
    lines = [f'**{title}**', '', f'| {" | ".join(heads)} |', '| --- ' + '| ---: ' * (len(heads) - 1) + '|']
    for row in rows:
        cells = [row['preset'], f'{row["parameters"]:,}', *(f'{row[name] / 1e6:.1f}' for name in _COLUMNS)]
        cells += [f'{row["trace_seconds"]:.1f}', f'{row["compile_seconds"]:.1f}']
        lines.append(f'| {" | ".join(cells)} |')
    return {'title': title, 'rows': list(rows)}, '\n'.join([*lines, ''])
