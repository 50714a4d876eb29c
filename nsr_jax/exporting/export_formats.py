"""The files that a network can be written to, by their suffix."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import safetensors.numpy
from flax import traverse_util

from nsr_jax.exporting import stablehlo
from nsr_jax.models.build import Network
from nsr_jax.torch_file import encode_torch_checkpoint
from nsr_jax.torch_layout import to_state_dict


@dataclasses.dataclass(frozen=True)
class ExportFormat:
    """A kind of file.

    Attributes:
        encode: maps a network, its parameters and what describes them to the contents of a file, and to what describes
            the file besides. Raises `UserError` if the format has no room for the network.
        packages: that writing needs, and whose versions describe the file.
        has_uses: whether `encode` also takes a keyword `use`, as `stablehlo.export_network` does.
    """

    encode: Callable[..., tuple[bytes, dict[str, Any]]]
    packages: tuple[str, ...] = ()
    has_uses: bool = False


def _encode_stablehlo(
    network: Network, params: Mapping[str, Any], about: Mapping[str, Any], use: stablehlo.Use | None = None
) -> tuple[bytes, dict]:
    exported = stablehlo.export_network(network, params, use)
    sizes = 'batch, height, width', f'batch, {network.scale} * height, {network.scale} * width'
    if use is not None:
        batch, height, width = use.size
        sizes = f'{batch}, {height}, {width}', f'{batch}, {network.scale * height}, {network.scale * width}'
    return bytes(exported.serialize()), {
        'input': f'float32 ({sizes[0]}, {network.channels}), nominally on [0, 1]',
        'output': f'float32 ({sizes[1]}, {network.channels}), not clipped',
        'platforms': list(exported.platforms),
        'calling_convention': exported.calling_convention_version,
    }


def _encode_onnx(network: Network, params: Mapping[str, Any], about: Mapping[str, Any]) -> tuple[bytes, dict]:
    from nsr_jax.exporting import onnx_graph  # imports the package onnx, which is an extra

    sides = 'height, width' if network.scale == 1 else f'{network.scale} * height, {network.scale} * width'
    of_file = {
        'input': f'{onnx_graph.INPUT}: float32 (batch, {network.channels}, height, width), nominally on [0, 1]',
        'output': f'{onnx_graph.OUTPUT}: float32 (batch, {network.channels}, {sides}), not clipped',
        'opset': onnx_graph.OPSET,
    }
    model = onnx_graph.build_model(network, params, _as_texts({**about, **of_file}))
    return model.SerializeToString(deterministic=True), of_file


def _encode_torch(network: Network, params: Mapping[str, Any], about: Mapping[str, Any]) -> tuple[bytes, dict]:
    return encode_torch_checkpoint(to_state_dict(params)), {}


def _encode_safetensors(network: Network, params: Mapping[str, Any], about: Mapping[str, Any]) -> tuple[bytes, dict]:
    leaves = traverse_util.flatten_dict(params, sep='/')
    tensors = {name: np.ascontiguousarray(leaf, np.float32) for name, leaf in leaves.items()}
    return safetensors.numpy.save(tensors, _as_texts(about)), {}


def _as_texts(about: Mapping[str, Any]) -> dict[str, str]:
    """Metadata as files keep them: texts as they are, other values as JSON."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in about.items()}


EXPORT_FORMATS: dict[str, ExportFormat] = {
    '.stablehlo': ExportFormat(_encode_stablehlo, ('jax', 'jaxlib', 'flatbuffers'), has_uses=True),
    '.onnx': ExportFormat(_encode_onnx, ('onnx',)),
    '.pth': ExportFormat(_encode_torch),
    '.safetensors': ExportFormat(_encode_safetensors),
}
