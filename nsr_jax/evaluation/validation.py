"""The scores of a network while it is trained."""

from collections.abc import Callable

import ml_collections

from nsr_jax.data.sources import open_source
from nsr_jax.evaluation.degradation import find_degradations
from nsr_jax.evaluation.protocols import find_protocols
from nsr_jax.evaluation.scoring import check_images, evaluate_network
from nsr_jax.inference.tiling import Tiling
from nsr_jax.models.build import build_network


def make_evaluate(
    config: ml_collections.ConfigDict,
) -> tuple[Callable[[dict], dict[str, float]] | None, dict[str, str]]:
    """What scores a network's parameters during training, as the config's `evaluation` asks for it.

    Args:
        config: a whole config.

    Returns:
        a function from parameters to {'DATASET/PROTOCOL/DEGRADATION/psnr': dB, '…/ssim': …}, and what its scores depend
        on besides the parameters, in words that change with it; None and nothing where no dataset is named.

    Raises:
        UserError: there is no such dataset or protocol, or an image cannot be scored.
    """
    if not config.evaluation.datasets:
        return None, {}
    network = build_network(config.model, config.compute_dtype)
    (protocol,) = find_protocols([config.evaluation.protocol])
    tiling = Tiling(config.evaluation.tiling, config.evaluation.tile, config.evaluation.overlap)
    degradations = find_degradations(config.task, config.model.scale, config.evaluation.levels)
    sources = [
        open_source(name, '', config.model.scale, data_dir=config.data.data_dir, tfds_dir=config.data.tfds_dir)
        for name in config.evaluation.datasets.split(',')
    ]
    check_images(sources, [protocol], degradations[0], [network.channels])

    def evaluate(params: dict) -> dict[str, float]:
        return {
            f'{dataset}/{protocol.name}/{degradation}/{name}': number
            for degradation in degradations
            for dataset, pair in evaluate_network(network, params, sources, protocol, degradation, tiling).items()
            for name, number in zip(('psnr', 'ssim'), pair, strict=True)
        }

    measured_on = {
        'images': ', '.join(source.fingerprint for source in sources),
        'protocol': protocol.name,
        'levels': ', '.join(map(str, degradations)),
        'tiling': str(tiling),
    }
    return evaluate, measured_on
