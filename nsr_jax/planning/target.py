"""What `--compile_for` names: chips that need not be there, as devices that one can compile for."""

import importlib.util
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from nsr_jax.errors import UserError
from nsr_jax.planning.chips import CHIPS, Chip

EXAMPLES = 'v4:2x2x1, v5e:2x2, v5e:16x16, v5p:4x4x4, v6e:2x2, tpu7x:2x2x1, h100, h100:8 and h100:2x8 (hosts x GPUs)'

_TPU = re.compile(r'(v4|v5e|v5p|v6e|tpu7x):\d+x\d+(?:x\d+)?')
_GPU = re.compile(r'(h100|h200)(?::(?:([1-9]\d*)x)?([1-9]\d*))?')

_HIDING = {
    'CUDA_VISIBLE_DEVICES': '-1',
    # The compiler for TPUs asks neither the machine nor its network for a TPU, and locks none.
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
    'TPU_ACCELERATOR_TYPE': 'v5litepod-4',
    'TPU_SKIP_MDS_QUERY': '1',
    'TPU_WORKER_HOSTNAMES': 'localhost',
    'TPU_WORKER_ID': '0',
}


class Target(NamedTuple):
    """Devices to compile for.

    Attributes:
        name: as the user gave it.
        kind: a name in `CHIPS`.
        chip: its figures.
        devices: JAX's, which nothing can be computed on.
        devices_per_chip: 2 for chips of two devices that share the memory and the links.
        devices_per_host: how many are linked directly; more of them talk over a network.
    """

    name: str
    kind: str
    chip: Chip
    devices: Sequence[Any]
    devices_per_chip: int
    devices_per_host: int


def hide_accelerators() -> None:
    """Make this process, which only plans, leave alone all accelerators of the machine. JAX must not have begun yet."""
    os.environ.update(_HIDING)
    jax.config.update('jax_platforms', 'cpu')


def find_platform(name: str) -> str:
    """JAX's name of the platform that the chips of `find_target` belong to."""
    return 'cuda' if _GPU.fullmatch(name) else 'tpu'


def find_target(name: str) -> Target:
    """The devices of a name such as those in `EXAMPLES`, after `hide_accelerators`.

    Raises:
        UserError: there are no such chips, or the package with their compiler is missing.
    """
    if match := _TPU.fullmatch(name):
        _require(name, ['libtpu'], 'tpu-compile')
        # The two cores of a TPU v4 are one device, as on every TPU v4 that one can rent.
        options = {'chip_config_name': 'megacore'} if match[1] == 'v4' else {}
        devices = _describe(name, 'tpu', name, **options)
        per_chip = len(devices) // len({tuple(device.coords) for device in devices})
        return Target(name, match[1], CHIPS[match[1]], devices, per_chip, len(devices))
    if match := _GPU.fullmatch(name):
        _require(name, ['jax_cuda12_plugin', 'jax_cuda13_plugin'], 'cuda-compile')
        per_host = int(match[3] or 1)
        config = pathlib.Path(__file__).with_name(f'{match[1]}.txtpb').read_text(encoding='utf-8')
        devices = _describe(name, 'cuda', '', target_config=config, topology=f'1x{match[2] or 1}x{per_host}')
        return Target(name, match[1], CHIPS[match[1]], devices, 1, per_host)
    raise UserError(
        f'--compile_for={name} names no chips that can be planned for; accepted are, for example, {EXAMPLES}'
    )


def _require(name: str, packages: Sequence[str], extra: str) -> None:
    if not any(map(importlib.util.find_spec, packages)):
        raise UserError(f'--compile_for={name} needs the package {packages[0]}: pip install "nsr-jax[{extra}]"')


def _describe(name: str, platform: str, topology_name: str, **options: str) -> Sequence[Any]:
    try:
        return topologies.get_topology_desc(topology_name, platform, **options).devices
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f'--compile_for={name}: {str(error).splitlines()[0]}') from error
