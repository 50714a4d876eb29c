"""The network once more, slowly: float64 NumPy and loops, written from the method's definition alone.

It shares no code with the library and is what the library's forward pass is checked against.
"""

import itertools

import numpy as np


def forward(parameters, image, *, scale, gate='softmax'):
    """(B, H, W, C) in [0, 1] -> (B, scale*H, scale*W, C): the whole network, sample by sample."""
    return np.stack([_restore(parameters, sample.astype(np.float64), scale, gate) for sample in image])


def _restore(parameters, image, scale, gate):
    x = image - 0.5
    hidden = _convolve(x, parameters['head'], gate)
    for name in sorted(key for key in parameters if key.startswith('block_')):
        inner = np.maximum(_convolve(hidden, parameters[name]['conv_1'], gate), 0)
        hidden = hidden + _convolve(inner, parameters[name]['conv_2'], gate)
    y = _convolve(hidden, parameters['tail'], gate)
    y = y + (_convolve(x, parameters['skip'], gate) if 'skip' in parameters else x)
    return _shuffle(y, scale) + 0.5


def _convolve(x, layer, gate):
    """(H, W, Cin) -> (H, W, Cout): cross-correlation with zero padding, with this sample's own mixed kernel."""
    kernel, bias = _mixed_kernel(x, layer, gate)
    height, width, _ = x.shape
    size = kernel.shape[0]
    padded = np.pad(x, ((size // 2, size // 2), (size // 2, size // 2), (0, 0)))
    out = np.zeros((height, width, kernel.shape[-1]))
    for row in range(height):
        for column in range(width):
            out[row, column] = np.tensordot(padded[row : row + size, column : column + size], kernel, axes=3) + bias
    return out


def _mixed_kernel(x, layer, gate):
    layer = {name: value if name == 'gate' else np.asarray(value, np.float64) for name, value in layer.items()}
    direction, scale, bias = layer['direction'], layer['scale'], layer['bias']
    norm = np.sqrt((direction**2).sum((0, 1, 2)))
    kernel = scale * direction / norm
    if 'gate' not in layer:
        return kernel, bias
    pooled = x.mean((0, 1))
    weight, offset = (np.asarray(layer['gate'][name], np.float64) for name in ('kernel', 'bias'))
    _, groups, cardinality = weight.shape
    gamma = np.zeros((groups, cardinality))
    for j in range(cardinality):
        logits = pooled @ weight[:, :, j] + offset[:, j]
        gamma[:, j] = _gate(logits, gate)
    # Each cardinal position mixes its own groups; the positions lie one after the other along the output channels.
    mixed = [sum(gamma[i, j] * kernel[..., i, j, :] for i in range(groups)) for j in range(cardinality)]
    offsets = [sum(gamma[i, j] * bias[i, j] for i in range(groups)) for j in range(cardinality)]
    return np.concatenate(mixed, axis=-1), np.concatenate(offsets)


def _gate(logits, gate):
    if gate == 'softmax':
        exponentials = np.exp(logits - logits.max())
        return exponentials / exponentials.sum()
    if gate == 'sigmoid':
        return 1 / (1 + np.exp(-logits))
    if gate == 'uniform':
        return np.full(len(logits), 1 / len(logits))
    if gate == 'hard':
        return np.eye(len(logits))[logits.argmax()]
    raise AssertionError(gate)


def _shuffle(y, scale):
    """(H, W, C*s*s), the channels ordered (C, row within the cell, column within the cell), -> (s*H, s*W, C)."""
    height, width, channels = y.shape
    channels //= scale * scale
    out = np.zeros((height * scale, width * scale, channels))
    for channel in range(channels):
        for row in range(scale):
            for column in range(scale):
                out[row::scale, column::scale, channel] = y[..., channel * scale * scale + row * scale + column]
    return out


def self_ensemble(predictor, image):
    """The mean of a predictor over the eight flips and transposes of a whole image (H, W, C), in float64."""
    predictions = []
    for transposed, down, across in itertools.product((False, True), (1, -1), (1, -1)):
        turned = (image.swapaxes(0, 1) if transposed else image)[::down, ::across]
        prediction = predictor(np.ascontiguousarray(turned))[::down, ::across].astype(np.float64)
        predictions.append(prediction.swapaxes(0, 1) if transposed else prediction)
    return np.mean(predictions, axis=0)
