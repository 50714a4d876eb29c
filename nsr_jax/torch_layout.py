"""The layout of the method's PyTorch code: which array of its files is which parameter of `RestorationNetwork`.

Its arrays are `weight_v (k*Cout, Cin, kh, kw)` with the filters ordered (k, d, Cout/d), `weight_g (k*Cout, 1, 1, 1)`,
`bias (k*Cout,)`, `mlp.0.weight (k*d, Cin)` and `mlp.0.bias (k*d,)`, where plain convolutions have k = d = 1 and no
`mlp`. Head, blocks (from 1) and tail are one list, `body`.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from nsr_jax.errors import UserError, first_of

_MOST_LISTED = 6

# The name of each parameter within its convolution: here, and in the PyTorch file.
_LEAVES = {
    ('direction',): 'weight_v',
    ('scale',): 'weight_g',
    ('bias',): 'bias',
    ('gate', 'kernel'): 'mlp.0.weight',
    ('gate', 'bias'): 'mlp.0.bias',
}


def to_parameters(state_dict: Mapping[str, np.ndarray], shapes: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of a PyTorch file as a parameter tree of `RestorationNetwork`; it works for gradients, too.

    Args:
        state_dict: arrays by key, of the shapes above.
        shapes: the parameter tree to fill, whose leaves have a `shape` (`parameter_shapes` of the network).

    Returns:
        A tree like `shapes` of float32 NumPy arrays.

    Raises:
        UserError: keys are missing or left over, or have other shapes, and the message lists them; or the layout has no
            place for a parameter of `shapes`.
    """
    leaves: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(shapes)
    expected = {_torch_key(path, shapes): (path, leaf.shape) for path, leaf in leaves.items()}
    missing = [key for key in expected if key not in state_dict]
    left_over = [key for key in state_dict if key not in expected]
    if missing or left_over:
        parts = [f'missing: {", ".join(missing)}'] if missing else []
        parts += [f'left over: {first_of(left_over, _MOST_LISTED)}'] if left_over else []
        raise UserError(f'the weights are not those of the network of the config; {"; ".join(parts)}')
    wrong, parameters = [], {}
    for key, (path, shape) in expected.items():
        array = np.asarray(state_dict[key])
        torch_shape, axes = _in_torch(path, shape)
        if array.shape == torch_shape:
            parameters[path] = np.ascontiguousarray(array.transpose(axes).reshape(shape), np.float32)
        else:
            wrong.append(f'{key} is {array.shape}, not {torch_shape}')
    if wrong:
        raise UserError(f'the weights are not those of the network of the config; {first_of(wrong, _MOST_LISTED)}')
    return traverse_util.unflatten_dict(parameters)


def to_state_dict(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The inverse of `to_parameters`: float32 arrays by their keys in a PyTorch file.

    Raises:
        UserError: the layout has no place for a parameter.
    """
    state_dict = {}
    leaves: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(params)
    for path, leaf in leaves.items():
        torch_shape, axes = _in_torch(path, leaf.shape)
        array = np.asarray(leaf, np.float32).reshape([torch_shape[axis] for axis in axes])
        state_dict[_torch_key(path, params)] = np.ascontiguousarray(array.transpose(np.argsort(axes)))
    return state_dict


def _torch_key(path: tuple[str, ...], tree: Mapping[str, Any]) -> str:
    """A parameter's name in the PyTorch file."""
    blocks = sum(name.startswith('block_') for name in tree)
    prefixes: dict[tuple[str, ...], str]
    prefixes = {('head',): 'body.0', ('tail',): f'body.{blocks + 1}', ('skip',): 'skip.0'}
    for block in range(blocks):
        for conv, index in (('conv_1', 0), ('conv_2', 2)):
            prefixes[f'block_{block:02}', conv] = f'body.{block + 1}.body.{index}'
    for length in (1, 2):
        if path[:length] in prefixes and path[length:] in _LEAVES:
            return f'{prefixes[path[:length]]}.{_LEAVES[path[length:]]}'
    raise UserError(
        f'the PyTorch layout has no place for the parameter {"/".join(path)}: it is that of residual networks with '
        'threshold relu'
    )


def _in_torch(path: tuple[str, ...], shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape in the PyTorch file of a parameter of `shape`, and the order of its axes here, where filters are last.

    The axis of the filters is unfolded here.
    """
    if path[-1] == 'direction':
        height, width, channels, *filters = shape
        return (math.prod(filters), channels, height, width), (2, 3, 1, 0)
    if path[-1] == 'scale':
        return (math.prod(shape), 1, 1, 1), (0, 1, 2, 3)
    if path[-2:] == ('gate', 'kernel'):
        return (math.prod(shape[1:]), shape[0]), (1, 0)
    return (math.prod(shape),), (0,)
