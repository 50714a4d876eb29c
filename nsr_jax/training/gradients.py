"""The loss of a batch and its gradient, computed on each device a few samples at a time and summed over all devices.

The loss is a mean over samples, so any number of them may be computed at once. A CPU computes one at a time: what a
sample needs stays in the cache, and the loop over the samples' own kernels copies no sample in or out. Other devices
compute all of their samples at once. Weight normalisation and its gradient do not depend on the samples and are
computed once a step.

Once a step the devices exchange the gradient, and the parts of the parameters that are split over `fsdp`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from nsr_jax.errors import UserError
from nsr_jax.losses import WeightedLosses, weighted_sum
from nsr_jax.models.build import Network
from nsr_jax.nn.layers import fold_weight_norm
from nsr_jax.optimizers import of_gates
from nsr_jax.training.sharding import BATCH_AXES, state_shardings


class Comparison(NamedTuple):
    """Means over a batch of images on [0, 1].

    Attributes:
        loss: what is minimised.
        terms: each loss by name, before it is weighted.
        squared: the squared error.
    """

    loss: jax.Array
    terms: dict[str, jax.Array]
    squared: jax.Array


def warm_gates(tree: dict, step: jax.Array, warmup_steps: int) -> dict:
    """Multiply the weights of gates, and so their logits, by a factor that rises to 1: their temperature falls.

    The map is linear, so it also takes the gradient with respect to its output to the one with respect to its input.

    Args:
        tree: parameters of a network, or a gradient with respect to what this function made of them.
        step: int32, counted from 0.
        warmup_steps: the number of first steps over which the factor rises linearly; 0: it is 1 from the start.
    """
    if not warmup_steps:
        return tree
    factor = jnp.minimum((step + 1).astype(jnp.float32) / warmup_steps, 1)
    return jax.tree.map(lambda leaf, is_gate: leaf * factor if is_gate else leaf, tree, of_gates(tree))


def find_microbatch_size(asked: int, batch_size: int, mesh: Mesh) -> int:
    """How many samples each device computes at once: `asked`, or if that is 0, what suits the kind of device.

    Raises:
        UserError: `asked` does not divide the samples of a device.
    """
    part = batch_size // mesh.size
    if asked == 0:
        return 1 if mesh.devices.flat[0].platform == 'cpu' else part
    if part % asked:
        raise UserError(f'config.microbatch_size {asked} does not divide the {part} samples of each device')
    return asked


def compare_and_differentiate(
    network: Network,
    params: dict,
    inputs: jax.Array,
    targets: jax.Array,
    *,
    losses: WeightedLosses,
    mesh: Mesh,
    microbatch_size: int,
    noise_keys: jax.Array | None = None,
) -> tuple[Comparison, dict]:
    """Compare a batch's restored images with the targets, and differentiate the loss.

    Args:
        params: its parameters, on the mesh in any way.
        inputs: `(B, P, P, C)` on [0, 1], split over the mesh.
        targets: `(B, sP, sP, C)` on [0, 1], split over the mesh.
        mesh: both of its axes split the batch.
        microbatch_size: how many samples a device computes at once; divides B / devices.
        noise_keys: `(B,)`, split over the mesh, of a network that draws noise; samples that are computed at once draw
            by the key of the first of them.

    Returns:
        the comparison, and the gradient of its loss with respect to `params`.
    """
    specs = jax.tree.map(lambda sharding: sharding.spec, state_shardings(mesh, params))
    whole, split = PartitionSpec(), PartitionSpec(BATCH_AXES)

    def compare(
        kernels: dict, inputs: jax.Array, targets: jax.Array, keys: jax.Array | None
    ) -> tuple[jax.Array, Comparison]:
        prediction = network.apply({'params': kernels}, inputs, rngs=None if keys is None else {'noise': keys[0]})
        loss, terms = weighted_sum(losses, prediction, targets)
        return loss, Comparison(loss, terms, jnp.mean(jnp.square(prediction - targets)))

    def on_one_device(
        parts: dict, inputs: jax.Array, targets: jax.Array, keys: jax.Array | None
    ) -> tuple[Comparison, dict]:
        kernels, unfold = jax.vjp(fold_weight_norm, jax.tree.map(_gather, parts, specs))

        def add(sums, microbatch):
            gradients, found = jax.grad(compare, has_aux=True)(kernels, *microbatch)
            return jax.tree.map(jnp.add, sums, (found, gradients)), None

        zero = jnp.zeros((), jnp.float32)
        zeros = Comparison(zero, dict.fromkeys(losses, zero), zero), jax.tree.map(jnp.zeros_like, kernels)
        microbatches = jax.tree.map(
            lambda samples: samples.reshape(-1, microbatch_size, *samples.shape[1:]), (inputs, targets, keys)
        )
        sums, _ = lax.scan(add, zeros, microbatches)
        found, gradients = jax.tree.map(lambda leaf: leaf / (len(microbatches[0]) * mesh.size), sums)
        return lax.psum(found, BATCH_AXES), jax.tree.map(_sum, *unfold(gradients), specs)

    on_devices = jax.shard_map(
        on_one_device, mesh=mesh, in_specs=(specs, split, split, split), out_specs=(whole, specs), check_vma=False
    )
    return on_devices(params, inputs, targets, noise_keys)


def _gather(part: jax.Array, spec: PartitionSpec) -> jax.Array:
    """Put a parameter together from the parts that the devices along `fsdp` hold."""
    return lax.all_gather(part, 'fsdp', axis=tuple(spec).index('fsdp'), tiled=True) if 'fsdp' in tuple(spec) else part


def _sum(gradient: jax.Array, spec: PartitionSpec) -> jax.Array:
    """Sum a gradient over all devices; each device along `fsdp` keeps what belongs to its part of the parameter."""
    if 'fsdp' not in tuple(spec):
        return lax.psum(gradient, BATCH_AXES)
    part = lax.psum_scatter(gradient, 'fsdp', scatter_dimension=tuple(spec).index('fsdp'), tiled=True)
    return lax.psum(part, 'data')
