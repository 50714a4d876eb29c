"""Tell for each block of a network whether its gates follow the colour or the texture of what they see.

    python -m experiments.what_gates_follow --checkpoint=sr_x2 --images=bsd100

Fan et al. see in figure 5 that the gates of early blocks are almost binary and follow colour, and those of later blocks
are smoother and follow texture. Here each image is cut into windows of the size of the training patches. For each block
a table shows the entropy of its gates, how often a group has more than 0.9 of the weight, and the share of the gates'
variance over windows (R²) that a linear model explains from nine numbers of colour, nine of texture, or both. The
models are fitted to every other image and judged on the rest, and the other way round. A share below 0 is worse than
the mean.
"""

# isort: split
from collections.abc import Mapping, Sequence

import numpy as np
from absl import flags

from configs.base import complete
from nsr_jax import command_line, markdown, shipped, streams
from nsr_jax.data.sources import open_source
from nsr_jax.errors import UserError
from nsr_jax.evaluation.gate_maps import check_gates, gate_entropy, map_gates
from nsr_jax.models.build import build_network
from nsr_jax.tasks import find_degradations, find_protocols, find_task
from nsr_jax.trained import LoadedModel

ALMOST_BINARY = 0.9
_ROUNDING = 1e-10  # the variance that float32 gives to a constant weight of a group, and more
_FLAT = 1e-6  # keeps the logarithm of a flat window's energy finite; a step of 1/255 has 15 times as much


def describe_colour(windows: np.ndarray) -> np.ndarray:
    """The mean of each channel and the products of these means: `(N, H, W, 3)` on [0, 1] to `(N, 9)`."""
    means = windows.mean(axis=(1, 2))
    products = [means[:, i] * means[:, j] for i in range(3) for j in range(i, 3)]
    return np.column_stack([means, *products])


def describe_texture(windows: np.ndarray) -> np.ndarray:
    """Logarithms of the energy of differences in four directions, at two sizes, and of the variance.

    Args:
        windows: `(N, H, W, 3)` on [0, 1]; the mean over channels is described.

    Returns:
        `(N, 9)`.
    """
    luma = windows.mean(axis=-1)
    count, height, width = luma.shape
    even = luma[:, : height // 2 * 2, : width // 2 * 2]
    halved = even.reshape(count, height // 2, 2, width // 2, 2).mean(axis=(2, 4))
    differences = []
    for image in (luma, halved):
        differences += [
            image[:, 1:] - image[:, :-1],
            image[:, :, 1:] - image[:, :, :-1],
            image[:, 1:, 1:] - image[:, :-1, :-1],
            image[:, 1:, :-1] - image[:, :-1, 1:],
        ]
    energies = [np.square(difference).mean(axis=(1, 2)) for difference in differences]
    return np.log(np.column_stack([*energies, luma.var(axis=(1, 2))]) + _FLAT)


def explained_variance(values: np.ndarray, descriptors: np.ndarray, images: np.ndarray) -> float:
    """The share of the variance of `values` that a linear model of `descriptors` explains in images it has not seen.

    Args:
        values: `(N, M)`, whose M residuals are summed; they are on [0, 1], and if all are constant, the share is 0.
        descriptors: `(N, D)`.
        images: `(N,)`, the number of each row's image. Even and odd ones predict each other.
    """
    is_even = images % 2 == 0
    residuals, variances = 0.0, 0.0
    for seen in (is_even, ~is_even):
        center, spread = descriptors[seen].mean(axis=0), descriptors[seen].std(axis=0) + 1e-12
        inputs = np.column_stack([(descriptors - center) / spread, np.ones(len(values))])
        weights, *_ = np.linalg.lstsq(inputs[seen], values[seen], rcond=None)
        residuals += np.square(values[~seen] - inputs[~seen] @ weights).sum()
        variances += np.square(values[~seen] - values[seen].mean(axis=0)).sum()
    is_constant = variances < _ROUNDING * values.size
    return 0.0 if is_constant else float(1 - residuals / variances)


def follow(
    gammas: Mapping[str, np.ndarray], windows: np.ndarray, images: np.ndarray
) -> list[tuple[str, float, float, float, float, float]]:
    """What the gates of each block follow.

    Args:
        gammas: by 'BLOCK/CONVOLUTION', `(N, k, d)`.
        windows: what the gates saw, `(N, H, W, 3)` on [0, 1].
        images: `(N,)`, the number of each window's image.

    Returns:
        For each block its name, the entropy in bits, the share of choices that are almost binary, and the explained
        variances by colour, by texture and by both.
    """
    colour, texture = describe_colour(windows), describe_texture(windows)
    rows = []
    for block in dict.fromkeys(name.partition('/')[0] for name in gammas):
        gamma = np.concatenate([each for name, each in gammas.items() if name.startswith(f'{block}/')], axis=-1)
        values = gamma.reshape(len(gamma), -1).astype(np.float64)
        shares = [
            explained_variance(values, each, images) for each in (colour, texture, np.column_stack([colour, texture]))
        ]
        rows.append((block, gate_entropy(gamma), float((gamma.max(axis=-2) > ALMOST_BINARY).mean()), *shares))
    return rows


def collect(model: LoadedModel, name: str) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """The gates' choices in all windows of an image source, and the windows: the arguments of `follow`.

    Raises:
        UserError: the network has no gates or no colours; there is no such source, or one of a single image; or an
            image is smaller than a window.
    """
    config = complete(model.config)
    network = build_network(config.model)
    check_gates(network, ())
    if network.channels != 3:
        raise UserError('this is a network for gray images: they have no colour to follow')
    (protocol,) = find_protocols(config.task, [config.evaluation.protocol])
    (degradation, *_) = find_degradations(config.task, config.model.scale, config.evaluation.levels)
    inputs, side = find_task(config.task).inputs, config.data.patch_size
    source = open_source(name, '', config.model.scale, inputs=inputs, data_dir=config.data.data_dir)
    if len(source) < 2:
        raise UserError(f'{source.name} has a single image: some are fitted to, and the others judged')
    gammas, windows, numbers = {}, [], []
    for number, example in enumerate(source):
        if example.hr.shape[-1] != 3:
            raise UserError(f'{example.name} is gray: it has no colour to follow')
        image = protocol.network_input(example, degradation.level)
        if min(image.shape[:2]) < side:
            raise UserError(f'{example.name} is smaller than a window of {side} pixels')
        maps = map_gates(network, model.params, image, window=side, stride=side)
        pixels = image / 255 if image.dtype == np.uint8 else image
        places = [(row, column) for row in maps.rows for column in maps.columns]
        windows += [pixels[row : row + side, column : column + side] for row, column in places]
        numbers += [number] * len(places)
        for gate, gamma in maps.gammas.items():
            gammas.setdefault(gate, []).append(gamma.reshape(-1, *gamma.shape[2:]))
    return {gate: np.concatenate(each) for gate, each in gammas.items()}, np.stack(windows), np.array(numbers)


def main(argv: Sequence[str]) -> None:
    """Print the table."""
    del argv
    given = flags.FLAGS
    gammas, windows, images = collect(shipped.load_part(given.checkpoint), given.images)
    rows = follow(gammas, windows, images)
    head = ['block', 'entropy, bits', f'above {ALMOST_BINARY}', 'R² by colour', 'by texture', 'by both']
    streams.print_text(f'{len(windows)} windows of {windows.shape[1]}x{windows.shape[2]} pixels.\n\n')
    streams.print_text(markdown.table(head, [[name, *(f'{number:.2f}' for number in rest)] for name, *rest in rows]))


if __name__ == '__main__':
    flags.DEFINE_string('checkpoint', None, 'A training run, a checkpoint, or a shipped network.', required=True)
    flags.DEFINE_string('images', None, 'A set of images by its name, or a folder.', required=True)
    command_line.run(main)
