"""Gates fixed for one kind of images: their mean weights are folded into plain convolutions."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import tqdm

from nsr_jax.data.sources import Source, open_source
from nsr_jax.errors import UserError
from nsr_jax.evaluation.scores import Mean, means
from nsr_jax.evaluation.scoring import check_images, device_predictors, evaluate
from nsr_jax.exporting.folding import PLAIN, convolutions, fold_gates
from nsr_jax.inference.prediction import to_network_input
from nsr_jax.inference.restorer import TILING
from nsr_jax.inference.tiling import feathered_tiles
from nsr_jax.metrics import find_metrics
from nsr_jax.models.build import Network, build_network
from nsr_jax.models.residual import RestorationNetwork
from nsr_jax.tasks import Degradation, find_degradations, find_protocols, find_task
from nsr_jax.tasks.task import Protocol
from nsr_jax.trained import LoadedModel

GATED, FIXED = 'with gates', 'with fixed gates'  # names in scores
_METRICS = find_metrics(['psnr'])


@dataclasses.dataclass(frozen=True)
class Domain:
    """The images that gates are fixed for.

    Attributes:
        source: the true images.
        protocol: makes a network's inputs of them, and scores.
        degradations: at whose levels.
    """

    source: Source
    protocol: Protocol
    degradations: Sequence[Degradation]

    @property
    def inputs(self) -> Iterable[np.ndarray]:
        """The network's input for each image at each level."""
        return (
            self.protocol.network_input(example, each.level) for each in self.degradations for example in self.source
        )


def open_domain(config: ml_collections.ConfigDict, images: str, levels: Sequence[float | str] = ()) -> Domain:
    """Open images to fix a network's gates for, and check that it can be scored on them.

    Args:
        config: of the network; `config.evaluation` has the protocol, by default the task's first one.
        images: a folder or a dataset's name, as for `open_source`.
        levels: sigmas or JPEG qualities; none: those of `config.evaluation`.

    Raises:
        UserError: the network has no gates or is a plug-in's; there are no such images; an image or a level cannot be
            scored.
    """
    network, task = build_network(config.model), find_task(config.task)
    if type(network) is not RestorationNetwork or not network.is_gated:
        raise UserError('--gate=fixed: this network has no gates that could be fixed')
    asked = config.get('evaluation', ml_collections.ConfigDict())
    (protocol,) = find_protocols(task.name, [asked.get('protocol', task.protocols[0].name)])
    degradations = find_degradations(task.name, network.scale, levels or asked.get('levels', ()))
    source = open_source(images, '', network.scale, inputs=task.inputs)
    check_images([source], [protocol], degradations[0], _METRICS, [network.channels])
    return Domain(source, protocol, degradations)


def fix_gates(model: LoadedModel, domain: Domain) -> tuple[LoadedModel, list[Mean]]:
    """The network whose gates always have their mean weights over the tiles of a domain's images.

    Returns:
        A network of plain convolutions, as it would be loaded; and the PSNR on the domain's images: for each level
        first that of the network with its gates, then that of the new one.
    """
    network = build_network(model.config.model)
    gammas = mean_gammas(network, model.params, domain.inputs)
    fixed, params = fold_gates(network, model.params, gammas)
    predictors = {
        GATED: device_predictors(network, model.params, TILING),
        FIXED: device_predictors(fixed, params, TILING),
    }
    scores = []
    for degradation in domain.degradations:
        for name, each in predictors.items():
            scores += evaluate(each, domain.source, [domain.protocol], degradation, _METRICS, model=name)
    config = model.config.copy_and_resolve_references()
    with config.unlocked():
        config.model.update(PLAIN)
    return dataclasses.replace(model, config=config, params=params), means(scores)


def describe_cost(gated: Mean, fixed: Mean) -> str:
    """What fixing the gates costs at one level, in one line."""
    before, after = gated.values['psnr'], fixed.values['psnr']
    return (
        f'{gated.dataset} ({gated.images} images), {gated.degradation}, protocol {gated.protocol}: '
        f'{before:.3f} dB {gated.model}, {after:.3f} dB {fixed.model} ({after - before:+.3f} dB)'
    )


def mean_gammas(
    network: Network, params: Mapping[str, Any], images: Iterable[np.ndarray]
) -> dict[tuple[str, str], jax.Array]:
    """The mean weights of a network's gates, which see the tiles that restoring gives them.

    Args:
        images: its inputs, (H, W, C), uint8 or float on [0, 1]; each counts as much, however many tiles it has.

    Returns:
        float32 `(k, d)` by the keys of `folding.convolutions`.
    """
    of_images = []
    for image in tqdm.tqdm(images, 'gates', unit='image', leave=False, disable=None):
        pixels = to_network_input(image, network.channels)
        height, width = pixels.shape[:2]
        tiles = feathered_tiles(height, width, network.scale, TILING.tile, TILING.overlap)
        with jax.default_matmul_precision('float32'):
            gammas = [
                _gammas(network, params, pixels[None, tile.row :, tile.column :][:, : TILING.tile, : TILING.tile])
                for tile in tiles
            ]
        of_images.append(_mean(gammas))
    return _mean(of_images)


@functools.partial(jax.jit, static_argnames='network')
def _gammas(network: Network, params: Mapping[str, Any], tile: jax.Array) -> dict[Any, jax.Array]:
    _, state = network.apply({'params': params}, tile, mutable='intermediates')
    gates = {place: state['intermediates'][place[0]][place[1]]['gate']['gamma'] for place in convolutions(network)}
    return {place: gamma[0] for place, (gamma,) in gates.items()}


def _mean(trees: Sequence[dict[Any, jax.Array]]) -> dict[Any, jax.Array]:
    return jax.tree.map(lambda *leaves: jnp.mean(jnp.stack(leaves), axis=0), *trees)
