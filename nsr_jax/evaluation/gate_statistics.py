"""How selective a network's gates are, and how much its scores depend on that."""

from collections.abc import Sequence

import ml_collections
import numpy as np

from nsr_jax.errors import UserError
from nsr_jax.evaluation.gate_maps import gate_entropy, gate_names, map_gates
from nsr_jax.evaluation.validation import open_held_out, open_validation
from nsr_jax.models.build import Network, build_network
from nsr_jax.tasks import find_degradations, find_protocols

# Gates that replace a network's own: one that ignores the input, and one that chooses a single group.
REPLACEMENTS = ('uniform', 'hard')


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


def measure_gates(config: ml_collections.ConfigDict, params: dict) -> dict[str, float]:
    """The statistics of a network's gates on the validation images, and its scores with other gates instead.

    Returns:
        The statistics of `gate_statistics` over all levels of the validation, in squares of `config.evaluation.tile`
        pixels; and scores by GATE/PROTOCOL/DEGRADATION/METRIC for each GATE in `REPLACEMENTS`. Nothing if the network
        has no gates or there are no validation images.

    Raises:
        UserError: as in `open_validation`.
    """
    network = build_network(config.model, config.compute_dtype)
    source = open_held_out(config)
    if not gate_names(network) or source is None:
        return {}
    (protocol,) = find_protocols(config.task, [config.validation.protocol])
    degradations = find_degradations(config.task, config.model.scale, config.validation.levels)
    images = [protocol.network_input(example, each.level) for each in degradations for example in source]
    found = gate_statistics(network, params, images, config.evaluation.tile)
    for gate in REPLACEMENTS:
        replaced = config.copy_and_resolve_references()
        replaced.model.gate, replaced.validation.test_sets = gate, ''
        validation = open_validation(replaced)
        assert validation is not None  # there are images
        _, scores = validation.evaluate(params)
        found |= {name.replace('validation', gate, 1): score for name, score in scores.items()}
    return found
