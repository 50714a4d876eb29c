"""How selective a network's gates are."""

from collections.abc import Sequence

import numpy as np

from nsr_jax.errors import UserError
from nsr_jax.evaluation.gate_maps import gate_entropy, gate_names, map_gates
from nsr_jax.models.build import Network


def gate_statistics(network: Network, params: dict, images: Sequence[np.ndarray], side: int) -> dict[str, float]:
    """How selective the gates are in the middle of each image.

    Args:
        network: a `RestorationNetwork` with gates.
        images: its inputs, (H, W, C), uint8 or float on [0, 1], of any sizes.
        side: of the square in the middle that the gates see, in pixels; smaller if any image is smaller.

    Returns:
        'gates/entropy': in bits, the mean over images, gates and cardinal positions; it is 0 if one of k groups has
            all the weight, and log2(k) if all have the same;
        'gates/deviation': the standard deviation of gamma over the images, averaged over gates, groups and positions;
            it is 0 if gates choose alike for all images.

    Raises:
        UserError: an image does not fit the network, or there are no images.
    """
    if not images:
        raise UserError('gates cannot be measured without images')
    side = min(side, *(length for image in images for length in image.shape[:2]))
    gammas = {name: [] for name in gate_names(network)}
    for image in images:
        top, left = ((length - side) // 2 for length in image.shape[:2])
        square = image[top : top + side, left : left + side]
        for name, gamma in map_gates(network, params, square, window=side, stride=side, window_batch=1).gammas.items():
            gammas[name].append(gamma[0, 0])
    stacked = np.stack([np.stack(each) for each in gammas.values()], axis=1)  # (images, gates, k, d)
    return {
        'gates/entropy': gate_entropy(stacked),
        'gates/deviation': float(stacked.astype(np.float64).std(axis=0).mean()),
    }
