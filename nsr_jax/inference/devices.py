"""The devices of all processes: finding them, copying arrays to them, and sharing batches of tiles among them.

Each device computes what it would compute alone, so results do not depend on the number of devices. All processes that
share a mesh must call these functions alike.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import flax.linen as nn
import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nsr_jax.errors import UserError

Item = TypeVar('Item')


def find_devices(platform: str | None) -> list[Any]:
    """All processes' devices of a platform such as 'cpu', 'gpu' or 'tpu'; None: of JAX's default platform.

    Raises:
        UserError: there is none.
    """
    if not (platform is None or isinstance(platform, str)):
        raise UserError(f"a device must be the name of a platform, such as 'cpu', not {platform!r}")
    try:
        return jax.devices(platform or None)
    except RuntimeError as error:
        if platform is None:
            raise UserError(f'JAX finds no device: {str(error).splitlines()[0]}') from error
        there = dict.fromkeys([jax.default_backend(), 'cpu'])
        raise UserError(f'no device {platform!r} here; there is {" and ".join(there)}') from error


def mesh_of(devices: Sequence[Any]) -> Mesh:
    """A one-dimensional mesh of the devices."""
    return Mesh(np.array(devices), ('tiles',))


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def replicate(tree, mesh: Mesh):
    """Copy the host's arrays, which are the same in every process, to every device of the mesh.

    CPU devices share the host's memory: nothing may write to the arrays afterwards.
    """

    def put(leaf) -> jax.Array:
        copies = [jax.device_put(leaf, device, may_alias=True) for device in mesh.local_devices]
        return jax.make_array_from_single_device_arrays(copies[0].shape, replicated(mesh), copies)

    return jax.tree.map(put, tree)


def on_first_device(tree):
    """The copy of replicated arrays on the first of this process's devices."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def own_part(batch: Sequence[Item], mesh: Mesh) -> list[Item]:
    """The items of a batch that the devices of this process get, in order."""
    places = _split(mesh).addressable_devices_indices_map((len(batch),)).values()
    parts = sorted(place[0].indices(len(batch)) for place in places if place is not None)
    return [item for part in parts for item in batch[slice(*part)]]


def apply_on_mesh(
    function: Callable[..., jax.Array], network: nn.Module, params: Any, arrays: Sequence[np.ndarray], mesh: Mesh
) -> jax.Array:
    """Apply a function of independent samples to a batch that is split over a mesh.

    Args:
        function: takes the network, its parameters and the arrays, and returns (B, ...). Both it and the network are
            constants of the compiled program.
        network: the function's first argument.
        params: replicated on the mesh.
        arrays: each (B / processes, ...), the items of `own_part`; B is a multiple of the number of devices.
        mesh: as from `mesh_of`.

    Returns:
        The outputs (B, ...) of the whole batch, in every process.
    """
    split = _split(mesh)
    spread = [jax.make_array_from_process_local_data(split, array) for array in arrays]
    return _apply(function, network, params, *spread, mesh=mesh)


@functools.partial(jax.jit, static_argnames=('function', 'network', 'mesh'))
def _apply(function, network, params, *arrays: jax.Array, mesh: Mesh) -> jax.Array:
    def apply_on_one(params, *arrays: jax.Array) -> jax.Array:
        outputs = function(network, params, *arrays)
        return lax.all_gather(outputs, mesh.axis_names, tiled=True) if mesh.is_multi_process else outputs

    whole, split = PartitionSpec(), _split(mesh).spec
    specs = {'in_specs': (whole, *[split] * len(arrays)), 'out_specs': whole if mesh.is_multi_process else split}
    return jax.shard_map(apply_on_one, mesh=mesh, **specs, check_vma=False)(params, *arrays)


def _split(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names))
