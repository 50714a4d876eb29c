"""The training images of a planned run, as shapes: no image is decoded."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh

from nsr_jax.data.sampling import Regions
from nsr_jax.data.sources import is_div2k
from nsr_jax.data.store import ImageStore, StoreLayout, measure_images
from nsr_jax.tasks import find_task
from nsr_jax.training.placing import store_formats
from nsr_jax.training.sharding import over_calls
from nsr_jax.training.training_images import find_region_size, open_images

# DIV2K can be planned for without having it: this many images, none of which has a side above this many pixels.
_DIV2K, _DIV2K_SIDE = {'train': 800, 'validation': 100}, 2040


class PlannedImages(NamedTuple):
    """What the train step is given.

    Attributes:
        shapes: of the arrays, with their shardings.
        is_streamed: whether they are the regions of one call, rather than all images.
        nbytes: on each device, without padding.
        description: how many images of which size these are.
    """

    shapes: ImageStore | Regions
    is_streamed: bool
    nbytes: int
    description: str


def plan_images(config: ml_collections.ConfigDict, mesh: Mesh) -> PlannedImages:
    """The images as `TrainingImages` would hold or stream them.

    Raises:
        UserError: they are needed to know their sizes, and are missing or do not fit.
    """
    layout = _find_layout(config)
    height, width = layout.targets[1:3]
    description = f'{len(layout.sizes)} images of at most {width}x{height}'
    side, channels = find_region_size(config), layout.channels

    def array(dtype, sharding, *shape: int) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    if layout.nbytes > round(config.data.resident_megabytes * 1e6):
        regions = config.steps_per_call, config.batch_size
        target = side * layout.scale
        shapes = Regions(
            array(jnp.uint8, over_calls(mesh), *regions, target, target, channels),
            array(jnp.uint8, over_calls(mesh), *regions, side, side, channels) if layout.has_inputs else None,
        )
        nbytes = sum(leaf.size for leaf in jax.tree.leaves(shapes)) // mesh.size
        return PlannedImages(shapes, True, nbytes, f'{description}, streamed; here the regions of a call')
    formats = store_formats(mesh)
    images, whole = (formats.targets, formats.sizes) if isinstance(formats, ImageStore) else (formats, formats)
    store = ImageStore(
        array(jnp.uint8, images, *layout.targets),
        array(jnp.uint8, images, *layout.inputs) if layout.inputs else None,
        array(jnp.int32, whole, *layout.sizes.shape),
    )
    return PlannedImages(store, False, layout.nbytes, f'{description}, all on each device')


def _find_layout(config: ml_collections.ConfigDict) -> StoreLayout:
    scale, split = config.model.scale, config.data.split
    if is_div2k(config.data.source) and split in _DIV2K:
        sizes = np.full((_DIV2K[split], 2), _DIV2K_SIDE // scale, np.int32)
        return StoreLayout(sizes, scale, config.model.channels, find_task(config.task).inputs != 'made')
    source, needs = open_images(config)
    return measure_images(source, needs)
