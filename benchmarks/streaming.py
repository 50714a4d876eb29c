"""Patches a second from a store on the device and from one in a memory-mapped file, which the host cuts ahead.

    python -m benchmarks.streaming --output=streaming.json

Both give the same patches, bit for bit, which is checked in the same run. Every timing of a stream begins with its
first cut and ends when the device has finished all patches; the host's part alone is a row of its own. The file's pages
are in the host's memory if it has room for them: of a file that is larger, the disk decides.
"""

import functools
import pathlib
import tempfile
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax import lax

from benchmarks import report, tables
from benchmarks.timing import Candidate, take_turns
from nsr_jax import command_line
from nsr_jax.data.region_stream import RegionStream, sample_regions
from nsr_jax.data.sampling import Regions, region_size, sample_patches
from nsr_jax.data.store import ImageStore
from nsr_jax.errors import UserError
from nsr_jax.tasks.denoise import Noise
from nsr_jax.tasks.jpeg import Jpeg
from nsr_jax.tasks.task import Corruption

TASKS = {'sr': (2, None), 'denoise': (1, Noise(25, 25)), 'jpeg': (1, Jpeg(10, 40))}  # scale and corruption
MARGIN, CHANNELS = 2, 3
# Calls that the device is given before the oldest is waited for, as in training.
IN_FLIGHT = 2


def random_store(folder: pathlib.Path, scale: int, options: flags.FlagValues) -> ImageStore:
    """Random images of one size in files."""
    generator = np.random.default_rng(0)

    def mapped(name: str, factor: int) -> np.memmap:
        path = folder / f'{name}_x{scale}'
        shape = (options.images, options.height // scale * factor, options.width // scale * factor, CHANNELS)
        with path.open('wb') as file:
            for _ in range(options.images):
                file.write(generator.bytes(np.prod(shape[1:])))
        return np.memmap(path, np.uint8, 'r', shape=shape)

    sizes = np.tile(np.int32([options.height // scale, options.width // scale]), (options.images, 1))
    return ImageStore(mapped('targets', scale), None if scale == 1 else mapped('inputs', 1), sizes)


def candidates(
    task: str, store: ImageStore, scale: int, corruption: Corruption | None, options: flags.FlagValues
) -> list[Candidate]:
    """Resident and streamed sampling of one task: first step to each call's last batch."""
    key, indices, steps = jax.random.key(0), jnp.arange(options.batch_size), options.steps
    patch = {'patch_size': options.patch_size, 'corruption': corruption}

    def last_batch(first_step: jax.Array, make_batch) -> tuple[jax.Array, jax.Array]:
        zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(make_batch, first_step))
        return lax.fori_loop(0, steps, lambda offset, _: make_batch(first_step + offset), zeros)

    @jax.jit
    def sample_resident(store: ImageStore, first_step: jax.Array) -> tuple[jax.Array, jax.Array]:
        sample = functools.partial(sample_patches, store, key, scale=scale, margin=MARGIN, **patch)
        return last_batch(first_step, lambda step: sample(step, indices))

    @jax.jit
    def sample_streamed(regions: Regions, first_step: jax.Array) -> tuple[jax.Array, jax.Array]:
        sample = functools.partial(sample_regions, regions, key, first_step=first_step, **patch)
        return last_batch(first_step, lambda step: sample(step, indices))

    resident_store = jax.device_put(store)

    def first_steps(first_step: int) -> range:
        return range(first_step, first_step + options.calls * steps, steps)

    def run_resident(first_step: int) -> list[tuple[jax.Array, jax.Array]]:
        return [sample_resident(resident_store, step) for step in first_steps(first_step)]

    def run_streamed(first_step: int, finish: bool = True) -> list[tuple[jax.Array, jax.Array]]:
        stream = RegionStream(
            store,
            key=key,
            indices=indices,
            scale=scale,
            size=region_size(options.patch_size, CHANNELS, corruption),
            margin=MARGIN,
            first_step=first_step,
            last_step=first_step + options.calls * steps,
            steps_per_call=steps,
            calls_ahead=options.calls_ahead,
        )
        batches = []
        for step in first_steps(first_step):
            regions = stream.take(steps)
            if finish:
                batches.append(sample_streamed(jax.device_put(regions), step))
                jax.block_until_ready(batches[-IN_FLIGHT - 1 : -IN_FLIGHT])
        stream.close()
        return batches

    expected = jax.device_get(run_resident(0))

    def check(batches: Sequence[tuple[jax.Array, jax.Array]]) -> float:
        for found, wanted in zip(jax.tree.leaves(batches), jax.tree.leaves(expected), strict=True):
            if not np.array_equal(found, wanted):
                raise ArithmeticError('not the same patches')
        return 0.0

    shared = {
        'group': task,
        'prepare': lambda seed: seed * options.calls * steps,
        'wait': jax.block_until_ready,
        'calls': options.calls,
    }
    return [
        Candidate('resident', run=run_resident, check=check, **shared),
        Candidate('streamed', run=run_streamed, check=check, **shared),
        Candidate("streamed, the host's part", run=functools.partial(run_streamed, finish=False), **shared),
    ]


def main(argv: Sequence[str]) -> int:
    """Measure and print; 1 where a candidate failed."""
    options = flags.FLAGS
    if argv[1:]:
        raise UserError(f'unexpected argument {argv[1]!r}: options start with --')
    if unknown := sorted(set(options.tasks) - TASKS.keys()):
        raise UserError(f'--tasks takes {", ".join(TASKS)}, not {", ".join(unknown)}')
    report.compile_anew()
    written = report.Report(options.output, 'float32')
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = {}
        for task in options.tasks:
            scale, corruption = TASKS[task]
            store = random_store(pathlib.Path(folder), scale, options)
            found[task] = candidates(task, store, scale, corruption, options), store.nbytes
        measurements = take_turns([each for group, _ in found.values() for each in group], options.rounds)
    for task, (_, size) in found.items():
        rows = [each for each in measurements if each.candidate.group == task]
        title = (
            f'sampling for {task}, {options.steps} steps a call of {options.batch_size} patches '
            f'{options.patch_size}x{options.patch_size}, {options.images} images, {size / 1e6:.0f} MB'
        )
        table = tables.section(title, rows, rows[0], None, {'images': options.batch_size * options.steps})
        written.add(table, tables.to_markdown(table))
    return written.exit_code


if __name__ == '__main__':
    flags.DEFINE_list('tasks', list(TASKS), 'What the patches are for.')
    flags.DEFINE_integer('images', 50, 'In the store.', lower_bound=1)
    flags.DEFINE_integer('height', 1356, 'Of a clean image.', lower_bound=1)
    flags.DEFINE_integer('width', 2040, 'Of a clean image.', lower_bound=1)
    flags.DEFINE_integer('patch_size', 48, 'Side of an input patch.', lower_bound=1)
    flags.DEFINE_integer('batch_size', 16, 'Patches in a step.', lower_bound=1)
    flags.DEFINE_integer('steps', 10, 'In one call.', lower_bound=1)
    flags.DEFINE_integer('calls', 20, 'In one timing.', lower_bound=1)
    flags.DEFINE_integer('calls_ahead', 4, 'Calls that the host cuts ahead, in as many threads.', lower_bound=1)
    flags.DEFINE_integer('rounds', 7, 'How often each candidate is timed.', lower_bound=3)
    flags.DEFINE_string('folder', None, "Where the files are for the time of the run; default: the system's own.")
    flags.DEFINE_string('output', None, 'JSON file for every time; the tables are written beside it as .md.')
    command_line.run(main)
