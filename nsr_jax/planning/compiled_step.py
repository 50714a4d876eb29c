"""The plan of a run: its very train step, compiled for chips that are not there, and what the compiler says of it."""

import math
import time
from typing import Any

import jax
import ml_collections

from nsr_jax.models.cost import count_multi_adds
from nsr_jax.ops.settings import without_x64
from nsr_jax.planning.advice import find_advice
from nsr_jax.planning.images import plan_images
from nsr_jax.planning.target import find_target
from nsr_jax.planning.work import bound, find_versions, read_work, shares
from nsr_jax.training.profile import compile_anew, rows_of
from nsr_jax.training.run import build_program, check_names
from nsr_jax.training.sharding import make_mesh


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
    text = compiled.as_text() or ''
    work = read_work(text, rows_of(text))
    side = config.model.scale * config.data.patch_size
    flops = 6 * config.batch_size // mesh.size * count_multi_adds(program.network, (side, side)).total
    return plan | {
        'memory': memory,
        'fits': memory['peak'] <= memory['available'],
        'step': bound(target, flops, work)
        | {
            'share_by_part': shares(work.by_part),
            'estimated_cycles_of_a_call_outside_of_steps': work.cycles_of_call,
            'moved_bytes_of_a_call_outside_of_steps': work.moved_by_call,
        },
        'advice': find_advice(memory, config, mesh.size),
    }


def _bytes_on_device(tree: Any) -> int:
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
