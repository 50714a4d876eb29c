"""The plan of an exported network: its function, compiled for a chip that is not there, and what the compiler says."""

import time
from typing import Any

import jax
import jax.numpy as jnp
from jax import export
from jax.sharding import SingleDeviceSharding

from nsr_jax.models.build import Network
from nsr_jax.models.cost import count_multi_adds
from nsr_jax.planning.target import find_target
from nsr_jax.planning.work import bound, find_versions, read_work


def plan_restoring(
    network: Network, exported: export.Exported, size: tuple[int, int, int], name: str
) -> dict[str, Any]:
    """Compile an exported network for one device.

    Args:
        network: what was exported.
        exported: as from `export_network`, for any size or for `size`.
        size: batch, height and width of the input, in pixels.
        name: the chips, as `find_target` takes them; the first of their devices is planned for.

    Returns:
        the plan, which `json` can write and `describe_restoring` turns into a text: sizes in bytes, times in seconds.

    Raises:
        UserError: a mistake in the name, or a compiler that is not installed.
    """
    target = find_target(name)
    batch, height, width = size
    sharding = SingleDeviceSharding(target.devices[0])
    images = jax.ShapeDtypeStruct((*size, network.channels), jnp.float32, sharding=sharding)
    available = target.chip.memory / target.devices_per_chip
    plan = {'compiled_for': name, 'compiler': find_versions(), 'input': list(images.shape)}
    started = time.perf_counter()
    try:
        compiled = jax.jit(exported.call, out_shardings=sharding).lower(images).compile()
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        return plan | {'memory': {'available': available}, 'fits': False, 'failure': str(error).splitlines()[0]}
    found: Any = compiled.memory_analysis()
    memory = {
        'images': found.argument_size_in_bytes,
        'restored': found.output_size_in_bytes,
        'temporaries': found.temp_size_in_bytes,
        'program': found.generated_code_size_in_bytes,
    }
    peak = sum(memory.values())
    flops = 2 * batch * count_multi_adds(network, (network.scale * height, network.scale * width)).total
    return plan | {
        'compile_seconds': time.perf_counter() - started,
        'memory': memory | {'peak': peak, 'available': available},
        'fits': peak <= available,
        'call': bound(target, flops, read_work(compiled.as_text() or '', {}, in_steps=False)),
    }
