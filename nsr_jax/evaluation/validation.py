"""Scores a network during training."""

import dataclasses
from collections.abc import Callable, Mapping

import ml_collections
import numpy as np
from absl import logging

from nsr_jax.data.sources import Source, open_source
from nsr_jax.data.validation_split import open_validation_images, read_validation_images
from nsr_jax.errors import UserError, first_of
from nsr_jax.evaluation.gate_maps import gate_names
from nsr_jax.evaluation.gate_statistics import gate_statistics
from nsr_jax.evaluation.protocols import check_size
from nsr_jax.evaluation.samples import make_sampler
from nsr_jax.evaluation.scores import means
from nsr_jax.evaluation.scoring import check_images, device_predictors, evaluate
from nsr_jax.inference.tiling import Tiling
from nsr_jax.metrics import Metric, find_metrics
from nsr_jax.models.build import build_network
from nsr_jax.tasks import find_degradations, find_protocols, find_task
from nsr_jax.tasks.task import Protocol

_GATED = 8  # validation images on which gates are watched


@dataclasses.dataclass(frozen=True)
class Validation:
    """Chooses the best checkpoint.

    Attributes:
        evaluate: takes a network's parameters and returns a merit (larger is better, whatever the metric), or None
            without validation images; and all scores by name: 'validation/PROTOCOL/DEGRADATION/METRIC', and for test
            sets, which choose nothing, 'test/DATASET/PROTOCOL/DEGRADATION/METRIC'. Of a network with gates also the
            'gates/entropy' and 'gates/deviation' of `gate_statistics`, over the first validation images.
        measured_on: everything besides the parameters that the merit depends on, in words.
        draw_samples: as `make_sampler` gives it; None if no samples are asked for or there are no validation images.
    """

    evaluate: Callable[[dict], tuple[float | None, dict[str, float]]]
    measured_on: Mapping[str, str]
    draw_samples: Callable[[dict], dict[str, np.ndarray]] | None = None


def open_validation(config: ml_collections.ConfigDict) -> Validation | None:
    """The validation of a config; None if there is nothing to score.

    Raises:
        UserError: a source, protocol, level or metric does not exist, or an image cannot be scored.
    """
    asked = config.validation
    protocol, metrics = _find_protocol_and_metrics(config)
    degradations = find_degradations(config.task, config.model.scale, asked.levels)
    tiling = Tiling(config.evaluation.tiling, config.evaluation.tile, config.evaluation.overlap)
    held_out = open_held_out(config)
    folders = {'data_dir': config.data.data_dir, 'tfds_dir': config.data.tfds_dir}
    inputs = find_task(config.task).inputs
    test_sets = [
        open_source(name, '', config.model.scale, inputs=inputs, **folders)
        for name in asked.test_sets.split(',')
        if name
    ]
    sources = [*([held_out] if held_out else []), *test_sets]
    if not sources:
        return None
    network = build_network(config.model, config.compute_dtype)
    check_images(sources, [protocol], degradations[0], metrics, [network.channels])
    gated = held_out.select(lambda name: name in held_out.names[:_GATED]) if held_out and gate_names(network) else None

    def evaluate_params(params: dict) -> tuple[float | None, dict[str, float]]:
        predictors = device_predictors(network, params, tiling)
        scores, merits = {}, []
        for source in sources:
            place = 'validation' if source is held_out else f'test/{source.name}'
            for degradation in degradations:
                (mean,) = means(evaluate(predictors, source, [protocol], degradation, metrics, model='network'))
                for name, value in mean.values.items():
                    scores[f'{place}/{protocol.name}/{degradation}/{name}'] = value
                if source is held_out:
                    merits.append(metrics[asked.metric].merit(mean.values[asked.metric]))
        if gated:
            images = [protocol.network_input(example, each.level) for each in degradations for example in gated]
            scores |= gate_statistics(network, params, images, tiling.tile)
        return sum(merits) / len(merits) if merits else None, scores

    measured_on = {
        'images': held_out.fingerprint if held_out else 'none',
        'protocol': protocol.name,
        'levels': ', '.join(map(str, degradations)),
        'tiling': str(tiling),
        'metric': asked.metric,
    }
    draw_samples = (
        make_sampler(network, held_out, protocol, degradations[0], asked.samples)
        if held_out and asked.samples
        else None
    )
    return Validation(evaluate_params, measured_on, draw_samples)


def _leave_out_small(source: Source, protocol: Protocol, metrics: Mapping[str, Metric], scale: int) -> Source:
    """The images that can be scored, or all if none can; the log counts the others."""
    small = set()
    for index, name in enumerate(source.names):
        height, width, _ = source.hr_shape(index)
        try:
            check_size(protocol, (height // scale * scale, width // scale * scale), scale, metrics)
        except UserError:
            small.add(name)
    if not small or len(small) == len(source):
        return source
    told = first_of(sorted(small))
    logging.warning('%d of %d validation images are too small to be scored: %s', len(small), len(source), told)
    return source.select(lambda name: name not in small)


def open_held_out(config: ml_collections.ConfigDict) -> Source | None:
    """The images that a config's weights are chosen by; None where there are none.

    Those that are too small to be scored are left out, unless the config names the images or their source. For a
    network of one channel colour images are made gray, as for training, if the protocol would score them in colour.

    Raises:
        UserError: there is no such source, protocol or metric, or an image cannot be held out.
    """
    task = find_task(config.task)
    source = open_validation_images(
        config.data.source,
        config.data.split,
        config.model.scale,
        read_validation_images(config.validation),
        inputs=task.inputs,
        data_dir=config.data.data_dir,
        tfds_dir=config.data.tfds_dir,
    )
    if source is None:
        return None
    protocol, metrics = _find_protocol_and_metrics(config)
    if config.model.channels == 1 and protocol.truth(np.zeros((1, 1, 3), np.uint8)).shape[-1] == 3:
        source = source.in_gray(task.to_gray)
    if config.validation.source or config.validation.images:
        return source
    return _leave_out_small(source, protocol, metrics, config.model.scale)


def _find_protocol_and_metrics(config: ml_collections.ConfigDict) -> tuple[Protocol, dict[str, Metric]]:
    (protocol,) = find_protocols(config.task, [config.validation.protocol])
    return protocol, find_metrics([config.validation.metric, *config.evaluation.metrics.split(',')])
