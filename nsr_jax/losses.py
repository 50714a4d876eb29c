"""The losses that training minimises: how far restored images are from the true ones.

A loss maps two batches `(B, H, W, C)` on [0, 1], prediction and target, to one number. It is a mean over the samples,
so that a batch may be computed a few samples at a time. `LOSSES` holds the losses by name; a config gives them weights,
`config.loss = {'l1': 1.0, 'fft': 0.05}`.
"""

import functools
import math
import operator
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nsr_jax.errors import UserError

Loss = Callable[[jax.Array, jax.Array], jax.Array]
WeightedLosses = Mapping[str, tuple[Loss, float]]  # by name, with the weight of each

CHARBONNIER_EPSILON = 1e-3

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, the finest first
_WINDOW, _SIGMA, _K1, _K2 = 11, 1.5, 0.01, 0.03


def l1(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Mean absolute error, which the paper minimises (section 4)."""
    return jnp.mean(jnp.abs(prediction - target))


def l2(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Mean squared error."""
    return jnp.mean(jnp.square(prediction - target))


def charbonnier(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Mean of sqrt(error² + epsilon²), an L1 that is smooth at zero (Lai et al., CVPR 2017, equation 2)."""
    return jnp.mean(jnp.sqrt(jnp.square(prediction - target) + CHARBONNIER_EPSILON**2))


def fft(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Mean absolute error of the 2-D spectrum's real and imaginary parts, not normalised (Cho et al., ICCV 2021)."""
    spectrum = jnp.fft.fft2(prediction - target, axes=(1, 2))  # of the error: the transform is linear
    return 0.5 * (jnp.mean(jnp.abs(spectrum.real)) + jnp.mean(jnp.abs(spectrum.imag)))


def ms_ssim(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """One minus multi-scale structural similarity (Wang et al., 2003), for a range of 1.

    It uses those of the paper's five scales at which the image is no smaller than the window of 11x11 pixels, with
    weights scaled to a sum of one. Contrasts below zero count as zero, because they have no real power.

    Raises:
        UserError: a side is shorter than the window.
    """
    side = min(prediction.shape[1:3])
    if side < _WINDOW:
        raise UserError(f'loss ms_ssim needs patches of at least {_WINDOW} pixels a side, not {side}')
    scales = min(len(MS_SSIM_WEIGHTS), 1 + int(math.log2(side / _WINDOW)))
    weights = np.array(MS_SSIM_WEIGHTS[:scales]) / sum(MS_SSIM_WEIGHTS[:scales])
    product = jnp.ones(prediction.shape[0], prediction.dtype)
    for scale, weight in enumerate(weights):
        luminance, contrast = _ssim_parts(prediction, target)
        factor = contrast * luminance if scale == scales - 1 else contrast
        factor = jnp.mean(factor, axis=(1, 2, 3))
        # Not zero, where a power below one has no finite gradient.
        product *= jnp.maximum(factor, 1e-6) ** float(weight)
        prediction, target = _halved(prediction), _halved(target)
    return 1 - jnp.mean(product)


def _ssim_parts(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """SSIM's luminance, and its contrast and structure, for each window that lies inside the images."""
    mean_a, mean_b = _blurred(a), _blurred(b)
    variances = _blurred(a * a + b * b) - mean_a * mean_a - mean_b * mean_b
    covariance = _blurred(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + _K1**2) / (mean_a * mean_a + mean_b * mean_b + _K1**2)
    return luminance, (2 * covariance + _K2**2) / (variances + _K2**2)


def _blurred(images: jax.Array) -> jax.Array:
    distance = np.arange(_WINDOW) - _WINDOW // 2
    window = np.exp(-0.5 * np.square(distance / _SIGMA))
    window = jnp.asarray(window / window.sum(), images.dtype)
    channels = images.shape[-1]
    for shape in ((_WINDOW, 1), (1, _WINDOW)):
        kernel = jnp.broadcast_to(window.reshape(*shape, 1, 1), (*shape, 1, channels))
        images = lax.conv_general_dilated(
            images,
            kernel,
            (1, 1),
            'VALID',
            dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
            feature_group_count=channels,
            precision=lax.Precision.HIGHEST,
        )
    return images


def _halved(images: jax.Array) -> jax.Array:
    """Means of 2x2 pixels, without a last odd row or column."""
    height, width = (side // 2 for side in images.shape[1:3])
    blocks = images[:, : 2 * height, : 2 * width].reshape(images.shape[0], height, 2, width, 2, images.shape[3])
    return jnp.mean(blocks, axis=(2, 4))


LOSSES: dict[str, Loss] = {'l1': l1, 'l2': l2, 'charbonnier': charbonnier, 'fft': fft, 'ms_ssim': ms_ssim}


def find_losses(weights: Mapping[str, float]) -> WeightedLosses:
    """The losses of a config with their weights, without those of weight 0.

    Raises:
        UserError: an unknown name, a weight that is not a finite number from 0, or no weight above 0.
    """
    for name, weight in weights.items():
        if name not in LOSSES:
            raise UserError(f'config.loss: unknown loss {name!r}: one of {", ".join(LOSSES)}, or that of a --plugin')
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise UserError(f'config.loss.{name} must be a weight from 0, not {weight!r}')
    chosen = {name: (LOSSES[name], float(weight)) for name, weight in weights.items() if weight}
    if not chosen:
        raise UserError(f'config.loss must give at least one of {", ".join(LOSSES)} a weight above 0')
    return chosen


def weighted_sum(
    losses: WeightedLosses, prediction: jax.Array, target: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The number that is minimised, and by name each loss before it is weighted.

    Args:
        prediction: `(B, H, W, C)`.
        target: the same shape.
    """
    terms = {name: loss(prediction, target) for name, (loss, _) in losses.items()}
    weighted = [weight * terms[name] for name, (_, weight) in losses.items()]
    return functools.reduce(operator.add, weighted), terms
