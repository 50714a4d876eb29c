"""What the gates of a trained network are worth: how selective they are, and its scores with others instead."""

import ml_collections

from nsr_jax.evaluation.gate_maps import gate_names
from nsr_jax.evaluation.gate_statistics import gate_statistics
from nsr_jax.evaluation.validation import open_held_out, open_validation
from nsr_jax.models.build import build_network
from nsr_jax.tasks import find_degradations, find_protocols

# Gates that replace a network's own: one that ignores the input, and one that chooses a single group.
REPLACEMENTS = ('uniform', 'hard')


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
        found |= {
            name.replace('validation', gate, 1): score
            for name, score in scores.items()
            if name.startswith('validation/')  # and not the statistics of the replaced gates
        }
    return found
