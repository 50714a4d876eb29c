"""Networks as ONNX graphs with open batch, height and width, of ONNX's own operators alone.

ONNX's convolution takes one kernel for all samples, but its kernel may be computed. So where a gate mixes kernels,
`Scan` goes through the samples and convolves each with its own. Other convolutions are ONNX's own, with weight
normalisation folded.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

import nsr_jax
from nsr_jax.errors import UserError
from nsr_jax.exporting.folding import fold_known_gates
from nsr_jax.models.build import Network
from nsr_jax.models.chain import ChainNetwork
from nsr_jax.models.residual import RestorationNetwork
from nsr_jax.nn import gates
from nsr_jax.nn.layers import fold_weight_norm
from nsr_jax.ops.enlarge import phase_weights

OPSET = 17  # which runtimes know from 2022 on, such as ONNX Runtime 1.12
_IR_VERSION = 8  # of the file format, which came with this opset
INPUT, OUTPUT = 'image', 'restored'
_FLOAT = onnx.TensorProto.FLOAT


def build_model(network: Network, params: Mapping[str, Any], metadata: Mapping[str, str]) -> onnx.ModelProto:
    """A network and its parameters as an ONNX model from images to restored images, like `network.apply`.

    It maps float32 `image` (batch, channels, height, width), nominally on [0, 1], to float32 `restored` (batch,
    channels, scale height, scale width), not clipped. Batch, height and width may differ from call to call.

    Args:
        network: in an architecture of the package, with one of its gates.
        params: its parameters.
        metadata: of the model.

    Raises:
        UserError: the network or its gate is one that a plug-in has added.
    """
    if type(network) not in _NETWORKS:
        raise UserError(f'the network {type(network).__name__} cannot be written as ONNX: a .stablehlo file takes any')
    network, params = fold_known_gates(network, params)
    if network.is_gated:
        _check_gate(network)
    graph = _Graph()
    _NETWORKS[type(network)](graph, network, _to_numpy(fold_weight_norm(params)))
    graph.nodes[-1].output[0] = OUTPUT
    larger = '' if network.scale == 1 else 'restored_'
    sides = {INPUT: ('height', 'width'), OUTPUT: (f'{larger}height', f'{larger}width')}
    image, output = (
        helper.make_tensor_value_info(name, _FLOAT, ['batch', network.channels, *names])
        for name, names in sides.items()
    )
    model = helper.make_model(
        helper.make_graph(graph.nodes, 'nsr_jax', [image], [output], list(graph.constants.values())),
        opset_imports=[helper.make_opsetid('', OPSET)],
        ir_version=_IR_VERSION,
        producer_name='nsr_jax',
        producer_version=nsr_jax.__version__,
    )
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model


def _check_gate(network: Any) -> None:
    for kind, name, is_known in (
        ('gate', network.gate, gates.find_gate(network.gate) in _ACTIVATIONS),
        ('gate_pooling', network.gate_pooling, gates.find_pooling(network.gate_pooling) in _POOLINGS),
    ):
        if not is_known:
            raise UserError(
                f'the {kind} {name!r} cannot be written as ONNX: --gate=fixed or a .stablehlo file takes any'
            )


def _to_numpy(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {name: _to_numpy(leaf) for name, leaf in tree.items()}
    return np.asarray(tree, np.float32)


class _Graph:
    """Nodes in the order of computation, and the constants that they use, by name."""

    def __init__(self):
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Append a node with one output; returns the output's name."""
        name = f'{operator}_{len(self.nodes)}'
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, array: Any) -> str:
        """Keep an array, as float32 or int64, unless there is one of this name; returns the name."""
        if name not in self.constants:
            array = np.asarray(array)
            array = np.ascontiguousarray(array, np.float32 if array.dtype.kind == 'f' else np.int64)
            self.constants[name] = numpy_helper.from_array(array, name)
        return name

    def integers(self, *values: int) -> str:
        """The name of a constant vector."""
        return self.constant(f'integers_{"_".join(map(str, values))}', values)

    def number(self, value: float) -> str:
        """The name of a constant number."""
        return self.constant(f'number_{value}', np.array(value, np.float32))


# --- Networks ---


def _restore_by_blocks(graph: _Graph, network: RestorationNetwork, params: Mapping[str, Any]) -> str:
    """As `models.residual.RestorationNetwork`."""
    mean = graph.number(network.mean)
    x = graph.add('Sub', INPUT, mean)
    y = _convolve(graph, x, 'head', params['head'])
    for index in range(network.num_blocks):
        block = f'block_{index:02}'
        z = _convolve_in_block(graph, y, f'{block}/conv_1', params[block]['conv_1'], network)
        if network.threshold == 'soft':
            z = _soften(graph, z, f'{block}/threshold', params[block]['threshold']['threshold'])
        else:
            z = graph.add('Relu', z)
        y = graph.add('Add', y, _convolve_in_block(graph, z, f'{block}/conv_2', params[block]['conv_2'], network))
    y = _convolve(graph, y, 'tail', params['tail'])
    y = graph.add('Add', y, _convolve(graph, x, 'skip', params['skip']) if network.has_skip_conv else x)
    return graph.add('Add', _shuffle(graph, y, network.scale), mean)


def _restore_by_chain(graph: _Graph, network: ChainNetwork, params: Mapping[str, Any]) -> str:
    """As `models.chain.ChainNetwork`."""
    x = y = _enlarge(graph, INPUT, network.scale, network.channels) if network.scale > 1 else INPUT
    for index in range(len(network.kernel_sizes)):
        name = f'conv_{index:02}'
        y = _convolve(graph, y, name, params[name])
        if index < len(network.features):
            y = graph.add('Relu', y)
    return graph.add('Add', x, y) if network.adds_input else y


_NETWORKS: dict[type[Network], Callable[..., str]] = {
    RestorationNetwork: _restore_by_blocks,
    ChainNetwork: _restore_by_chain,
}


# --- Layers ---


def _convolve(graph: _Graph, x: str, name: str, params: Mapping[str, np.ndarray]) -> str:
    """A plain convolution with a kernel (kh, kw, Cin, Cout)."""
    height, width = params['kernel'].shape[:2]
    kernel = graph.constant(f'{name}/kernel', params['kernel'].transpose(3, 2, 0, 1))
    bias = graph.constant(f'{name}/bias', params['bias'])
    return graph.add('Conv', x, kernel, bias, kernel_shape=[height, width], pads=[height // 2, width // 2] * 2)


def _convolve_in_block(graph: _Graph, x: str, name: str, params: Mapping[str, Any], network: RestorationNetwork) -> str:
    """A plain convolution, or as `nn.layers.SparseConv` with a bank (kh, kw, Cin, k, d, Cout / d)."""
    if 'gate' not in params:
        return _convolve(graph, x, name, params)
    gamma = _weigh(graph, x, name, params['gate'], network)
    bank, bias = params['kernel'], params['bias']
    height, width, channels, groups, cardinality, part = bank.shape
    if groups == 1:  # squeeze-and-excitation: a weight for each output channel
        plain = {'kernel': bank.reshape(height, width, channels, -1), 'bias': bias.ravel()}
        y = _convolve(graph, x, name, plain)
        return graph.add('Mul', y, graph.add('Reshape', gamma, graph.integers(0, cardinality, 1, 1)))
    gamma = graph.add('Transpose', gamma, perm=[2, 0, 1])
    matrices = bank.transpose(4, 3, 5, 2, 0, 1).reshape(cardinality, groups, -1)
    mixed = []
    for kind, values, shape in (
        ('kernel', matrices, (channels, height, width)),
        ('bias', bias.transpose(1, 0, 2), ()),
    ):
        products = graph.add('MatMul', gamma, graph.constant(f'{name}/{kind}', values))  # (d, B, Cout / d * ...)
        products = graph.add('Transpose', products, perm=[1, 0, 2])
        mixed.append(graph.add('Reshape', products, graph.integers(0, cardinality * part, *shape)))
    body = _one_sample(name, (cardinality * part, channels, height, width))
    return graph.add('Scan', x, *mixed, body=body, num_scan_inputs=3)


def _one_sample(name: str, shape: tuple[int, int, int, int]) -> onnx.GraphProto:
    """The convolution of one sample `(Cin, H, W)` with its own kernel, of `shape` `(Cout, Cin, kh, kw)`, and bias."""
    outputs, channels, height, width = shape
    shapes = {
        'sample': [channels, 'height', 'width'],
        'kernel': [*shape],
        'bias': [outputs],
        'convolved': [outputs, 'height', 'width'],
    }
    values = {
        each: helper.make_tensor_value_info(f'{name}/sample/{each}', _FLOAT, dims) for each, dims in shapes.items()
    }
    names = {each: value.name for each, value in values.items()}
    batch, axes = f'{name}/sample/batch', helper.make_tensor(f'{name}/sample/axes', onnx.TensorProto.INT64, [1], [0])
    margins = [height // 2, width // 2] * 2
    nodes = [
        helper.make_node('Unsqueeze', [names['sample'], axes.name], [batch]),
        helper.make_node('Conv', [batch, names['kernel'], names['bias']], [f'{batch}/convolved'], pads=margins),
        helper.make_node('Squeeze', [f'{batch}/convolved', axes.name], [names['convolved']]),
    ]
    *inputs, output = values.values()
    return helper.make_graph(nodes, 'one_sample', inputs, [output], [axes])


def _soften(graph: _Graph, x: str, name: str, threshold: np.ndarray) -> str:
    """As `nn.thresholds.SoftThreshold`."""
    threshold = np.abs(threshold)[None, :, None, None]
    low, high = graph.constant(f'{name}/low', -threshold), graph.constant(f'{name}/high', threshold)
    return graph.add('Sub', x, graph.add('Max', graph.add('Min', x, high), low))


def _shuffle(graph: _Graph, x: str, scale: int) -> str:
    """As `ops.pixel_shuffle`."""
    return x if scale == 1 else graph.add('DepthToSpace', x, blocksize=scale, mode='CRD')


def _enlarge(graph: _Graph, x: str, scale: int, channels: int) -> str:
    """As `ops.enlarge`: a convolution of each channel for each phase of the output pixels."""
    weights = phase_weights(scale)
    side = weights.shape[1]
    kernels = np.einsum('iy,jx->ijyx', weights, weights).reshape(-1, 1, side, side)
    kernel = graph.constant('enlarge/kernel', np.tile(kernels, (channels, 1, 1, 1)))
    padded = graph.add('Pad', x, graph.integers(*(0, 0, side // 2, side // 2) * 2), mode='edge')
    return _shuffle(graph, graph.add('Conv', padded, kernel, group=channels), scale)


# --- Gates ---


def _weigh(graph: _Graph, x: str, name: str, params: Mapping[str, np.ndarray], network: RestorationNetwork) -> str:
    """As `nn.gates.Gate`: features to gamma `(B, k, d)`."""
    inputs, groups, cardinality = params['kernel'].shape
    pooled = _POOLINGS[gates.find_pooling(network.gate_pooling)](graph, x)
    kernel = graph.constant(f'{name}/gate/kernel', params['kernel'].reshape(inputs, -1))
    logits = graph.add('Gemm', pooled, kernel, graph.constant(f'{name}/gate/bias', params['bias'].ravel()))
    if network.gate_scale != 1:
        logits = graph.add('Mul', logits, graph.number(network.gate_scale))
    logits = graph.add('Reshape', logits, graph.integers(0, groups, cardinality))
    return _ACTIVATIONS[gates.find_gate(network.gate)](graph, logits, groups)


def _softmax(graph: _Graph, logits: str, groups: int) -> str:
    return graph.add('Softmax', logits, axis=1)


def _sigmoid(graph: _Graph, logits: str, groups: int) -> str:
    return graph.add('Sigmoid', logits)


def _hard(graph: _Graph, logits: str, groups: int) -> str:
    choice = graph.add('ArgMax', logits, axis=1, keepdims=0)
    values = graph.constant('zero_and_one', np.array([0, 1], np.float32))
    return graph.add('OneHot', choice, graph.integers(groups), values, axis=1)


# Without `uniform`, which is folded.
_ACTIVATIONS: dict[gates.Activation, Callable[[_Graph, str, int], str]] = {
    gates.softmax: _softmax,
    gates.sigmoid: _sigmoid,
    gates.hard: _hard,
    gates.gumbel: _hard,
    gates.squeeze_excitation: _sigmoid,
}


def _mean(graph: _Graph, x: str) -> str:
    return graph.add('Flatten', graph.add('GlobalAveragePool', x))


def _normalized_mean(graph: _Graph, x: str) -> str:
    means = _mean(graph, x)
    squares = graph.add('ReduceMean', graph.add('Mul', means, means), axes=[1], keepdims=1)
    return graph.add('Div', means, _root(graph, squares))


def _rms(graph: _Graph, x: str) -> str:
    return _root(graph, _mean(graph, graph.add('Mul', x, x)))


def _mean_and_deviation(graph: _Graph, x: str) -> str:
    means = _mean(graph, x)
    variances = graph.add('Sub', _mean(graph, graph.add('Mul', x, x)), graph.add('Mul', means, means))
    return graph.add('Concat', means, _root(graph, graph.add('Relu', variances)), axis=1)


def _root(graph: _Graph, squares: str) -> str:
    return graph.add('Sqrt', graph.add('Add', squares, graph.number(gates.SMALL)))


_POOLINGS: dict[gates.Pooling, Callable[[_Graph, str], str]] = {
    gates.mean: _mean,
    gates.normalized_mean: _normalized_mean,
    gates.rms: _rms,
    gates.mean_and_deviation: _mean_and_deviation,
}
