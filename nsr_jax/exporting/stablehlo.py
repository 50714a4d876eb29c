"""Networks as StableHLO, made by `jax.export`, for CPUs, CUDA GPUs and TPUs."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export

from nsr_jax.models.build import Network

PLATFORMS = ('cpu', 'cuda', 'tpu')


class Use(NamedTuple):
    """The one platform and the one size of input that a function is exported for.

    Attributes:
        platform: one of `PLATFORMS`.
        size: batch, height and width of the input, in pixels.
    """

    platform: str
    size: tuple[int, int, int]


def export_network(network: Network, params: Mapping[str, Any], use: Use | None = None) -> export.Exported:
    """A network and its parameters as one function from images to restored images, like `network.apply`.

    It maps float32 (batch, height, width, channels), nominally on [0, 1], to float32 (batch, scale height, scale width,
    channels), not clipped. Batch, height and width are at least 1 and may differ from call to call. All arithmetic is
    float32 on every platform, unless the network's own dtype is lower.

    Gates pool over their whole input, so a network with gates restores a whole image differently from its tiles. The
    function does no tiling: this is left to the caller.

    Args:
        network: to export.
        params: its parameters.
        use: export it for this platform and size alone. On TPUs it then holds the kernels of `ops._conv_pallas`, which
            are made for one size, and which JAX cannot write beside the programs of other platforms.
    """

    def restore(images: jax.Array) -> jax.Array:
        return network.apply({'params': params}, images)

    size = export.symbolic_shape('batch, height, width') if use is None else use.size
    platforms = PLATFORMS if use is None else [use.platform]
    images = jax.ShapeDtypeStruct((*size, network.channels), jnp.float32)
    # Without a precision, GPUs would multiply in TF32, and TPUs in bfloat16.
    with jax.default_matmul_precision('float32'), _without_source_paths():
        return export.export(jax.jit(restore), platforms=platforms)(images)


@contextlib.contextmanager
def _without_source_paths() -> Iterator[None]:
    """Lower without the paths and lines of this machine's source code: the same network gives the same file."""
    option = 'jax_traceback_in_locations_limit'
    before = getattr(jax.config, option)
    jax.config.update(option, 0)
    try:
        yield
    finally:
        jax.config.update(option, before)
