"""The device mesh and how state and batches lie on it."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from nsr_jax.errors import UserError
from nsr_jax.inference.devices import on_first_device, replicated

BATCH_AXES = ('data', 'fsdp')  # the batch is split over both


def make_mesh(data: int, fsdp: int, batch_size: int, devices: Sequence[Any] | None = None) -> Mesh:
    """Arrange all devices as (data, fsdp).

    Args:
        data: devices along the axis on which parameters are the same; -1 takes all that are left. Of the cores of one
            CPU it takes no more than divide the batch.
        fsdp: devices along the axis that splits parameters and optimizer state.
        batch_size: the global batch, a multiple of the number of devices.
        devices: these instead of those that JAX finds.

    Raises:
        UserError: the sizes do not fit the number of devices, or the batch does not divide over them.
    """
    devices = devices or jax.devices()
    if fsdp < 1 or (data < 1 and data != -1):
        raise UserError(f'mesh (data={data}, fsdp={fsdp}): sizes must be from 1, or data=-1 for all that are left')
    if data == -1:
        data = max(len(devices) // fsdp, 1)
        if devices[0].platform == 'cpu' and jax.process_count() == 1:
            data = max((size for size in range(1, data + 1) if batch_size % (size * fsdp) == 0), default=data)
            devices = devices[: data * fsdp]
    if data * fsdp != len(devices):
        raise UserError(f'mesh (data={data}, fsdp={fsdp}) needs {data * fsdp} devices, there are {len(devices)}')
    if batch_size % len(devices):
        raise UserError(f'batch_size {batch_size} does not divide over {len(devices)} devices')
    return jax.make_mesh((data, fsdp), BATCH_AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def gather(tree, mesh: Mesh):
    """Copy whole arrays from any sharding to the first device of each process; all processes must call it."""
    whole = jax.jit(lambda leaves: leaves, out_shardings=replicated(mesh))(tree)
    return on_first_device(whole)


def over_batch(mesh: Mesh) -> NamedSharding:
    """The first axis split over all devices."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def over_calls(mesh: Mesh) -> NamedSharding:
    """The second axis split over all devices: the batches of several steps."""
    return NamedSharding(mesh, PartitionSpec(None, BATCH_AXES))


def state_shardings(mesh: Mesh, shapes):
    """Shardings for a tree of arrays: `fsdp` splits the largest axis of each leaf that it divides."""
    size = mesh.shape['fsdp']

    def leaf_sharding(leaf) -> NamedSharding:
        axes = [axis for axis, length in enumerate(leaf.shape) if length % size == 0]
        if size == 1 or not axes:
            return replicated(mesh)
        largest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * largest, 'fsdp'))

    return jax.tree.map(leaf_sharding, shapes)
