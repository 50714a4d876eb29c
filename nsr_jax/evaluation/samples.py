"""Pictures that show how a network does during training: the middles of some validation images."""

from collections.abc import Callable

import jax
import numpy as np

from nsr_jax.data.sources import Source
from nsr_jax.evaluation.protocols import round_prediction
from nsr_jax.inference.prediction import predict
from nsr_jax.inference.tiling import Tiling
from nsr_jax.models.build import Network
from nsr_jax.tasks import Degradation
from nsr_jax.tasks.task import Protocol

SIDE = 96  # of what the network is given, in input pixels, unless the image is smaller


def make_sampler(
    network: Network, source: Source, protocol: Protocol, degradation: Degradation, count: int
) -> Callable[[dict], dict[str, np.ndarray]]:
    """A function that restores the middles of images.

    Args:
        source: its first images are restored.
        protocol: makes the network's input.
        count: how many images are restored at most.

    Returns:
        A function that maps the network's parameters to pictures by name, uint8 (H, 3 W, 3): input, prediction and true
        image side by side.
    """
    scale = degradation.scale

    def middle(index: int) -> tuple[np.ndarray, np.ndarray]:
        example = source[index]
        image = protocol.network_input(example, degradation.level)
        tops = [max(0, (length - SIDE) // 2) for length in image.shape[:2]]
        inside = tuple(slice(top, top + SIDE) for top in tops)
        outside = tuple(slice(scale * top, scale * (top + SIDE)) for top in tops)
        return image[inside], protocol.truth(example.hr)[outside]

    def draw(params: dict) -> dict[str, np.ndarray]:
        params = jax.device_put(params, jax.local_devices()[0])
        pictures = {}
        for index in range(min(count, len(source))):
            image, truth = middle(index)
            prediction = np.nan_to_num(predict(network, params, image, tiling=Tiling('whole')))
            floats = image / 255 if image.dtype == np.uint8 else image
            given = round_prediction(floats.repeat(scale, axis=0).repeat(scale, axis=1), truth.shape[-1])
            panels = [given, round_prediction(prediction, truth.shape[-1]), truth]
            pictures[f'validation/sample_{index}'] = np.concatenate(
                [np.broadcast_to(panel, (*panel.shape[:2], 3)) for panel in panels], axis=1
            )
        return pictures

    return draw
