"""Where a benchmark ran: what its numbers depend on."""

import os
import pathlib
import platform
import resource
import sys
from importlib import metadata, util

import jax

_VARIABLES = ('XLA_FLAGS', 'JAX_DEFAULT_MATMUL_PRECISION', 'OMP_NUM_THREADS', 'OMP_WAIT_POLICY')


def environment(dtype: str) -> dict[str, str]:
    """Device, versions and settings that the numbers depend on."""
    device = jax.devices()[0]
    packages = [name for name in ('jax', 'jaxlib', 'flax', 'numpy', 'torch') if util.find_spec(name) is not None]
    found = {
        'device': f'{jax.device_count()} x {device.device_kind} ({device.platform})',
        'processor': f'{_processor()}, {len(os.sched_getaffinity(0))} cores',
        'python': platform.python_version(),
        **{name: metadata.version(name) for name in packages},
        'dtype': dtype,
    }
    return found | {name: os.environ[name] for name in _VARIABLES if name in os.environ}


def _processor() -> str:
    cpuinfo = pathlib.Path('/proc/cpuinfo')
    lines = cpuinfo.read_text(encoding='utf-8').splitlines() if cpuinfo.exists() else []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.machine()


def peak_memory() -> dict[str, object]:
    """The most memory that has been in use so far: the device's, or the process's where the device does not tell."""
    stats = jax.devices()[0].memory_stats()
    if stats and 'peak_bytes_in_use' in stats:
        return {'of': "the device, JAX's arrays and programs", 'bytes': stats['peak_bytes_in_use']}
    unit = 1 if sys.platform == 'darwin' else 1024
    return {'of': 'the process', 'bytes': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
