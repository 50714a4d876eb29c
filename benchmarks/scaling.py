"""A model of training on many devices: the bytes that they send to one another, and the time of a step.

    python -m benchmarks.scaling --output=scaling.json
    python -m benchmarks.scaling --step_times=train_step.json --devices=8,256 --bandwidth=50 --host_bandwidth=450

The model predicts the bytes, and the same run checks them against what XLA compiles for meshes of 8 virtual CPU
devices; no accelerator is used. Within a host a device sends at --host_bandwidth; a ring that spans hosts crosses from
one to the next over the network ports of all its devices there, of --bandwidth each. The defaults are NVIDIA's figures
for a DGX H100: 450 GB/s of NVLink in each direction, a port of 400 Gb/s for each GPU. The model assumes that no
communication is hidden behind computation, and counts no latency. The time of a step on one device comes from the JSON
of `python -m benchmarks.train_step`; for a preset that is not in it, the time is FLOPs / (--peak_tflops * --share),
marked as assumed, or left out.
"""

import json
import math
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags
from jax.sharding import AbstractMesh, AxisType

from benchmarks import report
from benchmarks.train_step import WHOLE, preset_config
from configs.presets import PRESETS
from nsr_jax import command_line
from nsr_jax.data.store import ImageStore
from nsr_jax.errors import UserError
from nsr_jax.losses import find_losses
from nsr_jax.models.build import Network, build_network
from nsr_jax.models.cost import count_multi_adds, count_parameters, parameter_shapes
from nsr_jax.optimizers import find_optimizer, find_schedule
from nsr_jax.planning import hlo
from nsr_jax.planning.collectives import Collective, find_collectives
from nsr_jax.training.sharding import BATCH_AXES, make_mesh, state_shardings
from nsr_jax.training.state import abstract_state
from nsr_jax.training.step import make_train_steps

CHECKED_PRESET, CHECKED_MESHES = 'edsr_s_nsr', ((8, 1), (2, 4), (1, 8))
TOLERANCE = 0.002  # by which the bytes that a device sends may differ, as a share
SCALE = 2  # of the super-resolution presets


def predict(network: Network, data: int, fsdp: int) -> Iterator[Collective]:
    """The collectives of a step on a mesh, without those over a single device.

    A parameter that is split over `fsdp` is gathered once; its gradient is summed over `fsdp`, where each device keeps
    its part, and each part over `data`. The gradient of a parameter that is not split, because `fsdp` divides none of
    its axes, is summed over all devices. The norm of the gradient and the metrics, a few numbers, are not counted.

    Args:
        network: to train.
        data: devices that hold the same parameters.
        fsdp: devices that split them.
    """
    mesh = AbstractMesh((data, fsdp), BATCH_AXES, axis_types=(AxisType.Auto,) * 2)
    shapes = parameter_shapes(network)
    for leaf, sharding in zip(jax.tree.leaves(shapes), jax.tree.leaves(state_shardings(mesh, shapes)), strict=True):
        nbytes = math.prod(leaf.shape) * leaf.dtype.itemsize
        if sharding.is_fully_replicated:
            found = [Collective('all-reduce', nbytes, data * fsdp, BATCH_AXES)]
        else:
            found = [
                Collective('all-gather', nbytes, fsdp, ('fsdp',)),
                Collective('reduce-scatter', nbytes, fsdp, ('fsdp',)),
                Collective('all-reduce', nbytes / fsdp, data, ('data',)),
            ]
        yield from (each for each in found if each.devices > 1)


def read(program: str) -> Iterator[Collective]:
    """The collectives of one step in the text of a compiled program, each listed once."""
    parsed = hlo.parse(program)
    for computation in parsed.computations.values():
        for instruction in computation.values():
            yield from find_collectives(parsed, instruction)


def compiled_step(network: Network, data: int, fsdp: int) -> str:
    """The program of a train step on a mesh, as text. Batch and patches are tiny: bytes do not depend on them."""
    mesh = make_mesh(data, fsdp, data * fsdp)
    optimizer = find_optimizer('adam', find_schedule('constant', 1e-3))
    abstract = abstract_state(network, optimizer, mesh)

    def make_batch(store, first_step, step, indices):
        inputs = jnp.ones((1, 8, 8, network.channels)) * jnp.sin(step + indices)[:, None, None, None]
        return inputs, jnp.repeat(jnp.repeat(inputs, network.scale, axis=1), network.scale, axis=2)

    train_steps = make_train_steps(
        network,
        make_batch,
        losses=find_losses({'l1': 1.0}),
        optimizer=optimizer,
        batch_size=data * fsdp,
        stop_after_skipped=1,
        mesh=mesh,
        microbatch_size=1,
        abstract=abstract,
    )
    images = jax.ShapeDtypeStruct((1, 8, 8, network.channels), jnp.uint8)
    store = ImageStore(images, None, jax.ShapeDtypeStruct((1, 2), jnp.int32))
    lowered = train_steps.lower(abstract, store, jax.ShapeDtypeStruct((), jnp.int32))
    return lowered.compile({'xla_backend_optimization_level': '0'}).as_text()  # collectives exist before optimization


def check(network: Network, meshes: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """Compare the model with the compiled program on each mesh (data, fsdp); a row's 'failure' says how they differ."""
    rows = []
    for data, fsdp in meshes:
        found = list(read(compiled_step(network, data, fsdp)))
        sent = sum(each.sent for each in found)
        model = sum(each.sent for each in predict(network, data, fsdp))
        kinds = {
            kind: sum(each.nbytes for each in found if each.kind == kind) for kind in {each.kind for each in found}
        }
        wrong = '' if abs(model / sent - 1) <= TOLERANCE else f'the model is off by {model / sent - 1:+.1%}'
        rows.append({'mesh': [data, fsdp], 'model': model, 'compiled': sent, 'arrays': kinds, 'failure': wrong})
    return rows


CHECK_COLUMNS = {
    'mesh (data, fsdp)': lambda row: tuple(row['mesh']),
    'by the model, each device sends (MB)': lambda row: f'{row["model"] / 1e6:.3f}',
    'compiled (MB)': lambda row: f'{row["compiled"] / 1e6:.3f} ({row["failure"] or "agrees"})',
    'arrays in it (MB)': lambda row: ', '.join(
        f'{kind} {size / 1e6:.3f}' for kind, size in sorted(row['arrays'].items())
    ),
}


def measured_seconds(path: str, batch_size: int, patch_size: int) -> tuple[dict[str, float], str]:
    """Median seconds of the whole step by preset, and the device on which they were measured.

    Raises:
        UserError: `benchmarks.train_step` did not write the file, or for another batch or patch or for several devices.
    """
    try:
        written = json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
        device, tables = written['environment']['device'], written['tables']
        (table,) = (table for table in tables if table['title'].startswith(f'{WHOLE}, '))
        rows = {row['candidate']: row['time']['median'] for row in table['rows'] if not row['failure']}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f'--step_times={path} is not what benchmarks.train_step writes: {error!r}') from error
    wanted = f'{WHOLE}, batch {batch_size}, patches {patch_size}x{patch_size}, '
    if not table['title'].startswith(wanted) or 'blocks' in table['title']:
        raise UserError(f'--step_times={path} holds {table["title"]!r}, not {wanted!r} of whole networks')
    count, _, kind = device.partition(' x ')
    if count != '1' and '(cpu)' not in kind:
        raise UserError(f'--step_times={path} was measured on {device}: measure on one')
    times = {name.removesuffix(f' {WHOLE}'): seconds for name, seconds in rows.items() if name.endswith(f' {WHOLE}')}
    return times, device if count == '1' else f'a machine with {device}'


def plan(network: Network, mesh: tuple[int, int], seconds: float | None, options: flags.FlagValues) -> dict[str, Any]:
    """The expected performance of a mesh, from a step of one device."""
    devices = mesh[0] * mesh[1]
    found = list(predict(network, *mesh))
    sent, waiting = sum(each.sent for each in found), sum(each.sent / _bandwidth(each, mesh, options) for each in found)
    row = {'batch_size': devices * options.batch_size, 'sent_bytes': sent}
    row['communication_seconds'] = waiting
    if seconds is None:
        return row
    total = seconds + waiting
    return row | {
        'step_seconds': total,
        'efficiency': seconds / total,
        'images_per_second': row['batch_size'] / total,
    }


def _bandwidth(each: Collective, mesh: tuple[int, int], options: flags.FlagValues) -> float:
    """Bytes a second that each of its devices sends. Devices along `fsdp` are neighbours."""
    apart = mesh[1] if each.axes == ('data',) else 1
    if each.devices * apart <= options.devices_per_host:
        return 1e9 * options.host_bandwidth
    in_a_host = max(options.devices_per_host // apart, 1)
    return 1e9 * min(options.host_bandwidth, options.bandwidth * in_a_host)


def meshes(options: flags.FlagValues) -> list[tuple[int, int]]:
    """Two meshes for each number of devices: each device holds all parameters, or --fsdp neighbours split them."""
    found = []
    for devices in map(int, options.devices):
        fsdp = min(options.fsdp, devices)
        if devices % fsdp:
            raise UserError(f'--devices: {devices} is no multiple of --fsdp={fsdp}')
        found += dict.fromkeys([(devices, 1), (devices // fsdp, fsdp)])
    return found


def plan_tables(options: flags.FlagValues) -> list[tuple[dict[str, Any], dict[str, report.Column]]]:
    """Tables of the bytes sent for each preset and mesh, and of times if one device's step is known or assumed."""
    measured, device = {}, ''
    if options.step_times:
        measured, device = measured_seconds(options.step_times, options.batch_size, options.patch_size)
    sizes = {'scale': SCALE, 'num_blocks': 0, 'batch_size': options.batch_size, 'patch_size': options.patch_size}
    assumed = f'assumed, {options.share:.0%} of {options.peak_tflops:g} TFLOP/s'
    planned = [mesh for mesh in meshes(options) if mesh != (1, 1)]
    rows = []
    for preset in options.presets:
        config = preset_config(preset, **sizes)
        network = build_network(config.model)
        side = options.patch_size * config.model.scale
        flops = 3 * 2.0 * options.batch_size * count_multi_adds(network, (side, side)).total
        seconds, source = measured.get(preset), f'measured on {device}'
        if seconds is None and options.share:
            seconds, source = flops / (1e12 * options.peak_tflops * options.share), assumed
        rows.append(
            {
                'preset': preset,
                'parameters': count_parameters(network),
                'flops': flops,
                'device_seconds': seconds,
                'from': source if seconds else None,
                'meshes': {str(mesh): plan(network, mesh, seconds, options) for mesh in planned},
            }
        )
    links = f'{options.host_bandwidth:g} GB/s in a host of {options.devices_per_host}, {options.bandwidth:g} between'
    title = f'each device sends in a step (MB), and how long that takes (ms) with {links}'
    columns = {'preset': lambda row: row['preset'], 'parameters': lambda row: f'{row["parameters"]:,}'}
    found = [({'title': title, 'rows': rows}, columns | _of_meshes(planned, _sent))]
    if timed := [row for row in rows if row['from']]:
        sources = [f'* {name}' if name == assumed else name for name in dict.fromkeys(row['from'] for row in timed)]
        setting = f'{options.batch_size} patches {options.patch_size}x{options.patch_size} a device'
        title = f'a step of {setting} (ms), efficiency, images a second over all; one device {", ".join(sources)}'

        def alone(row: Mapping[str, Any]) -> str:
            return f'{1e3 * row["device_seconds"]:.4g}{"*" if row["from"] == assumed else ""}'

        columns = {'preset': columns['preset'], 'one device (ms)': alone}
        found.append(({'title': title, 'rows': timed}, columns | _of_meshes(planned, _times)))
    return found


def _of_meshes(planned: Sequence[tuple[int, int]], cell: report.Column) -> dict[str, report.Column]:
    return {name: lambda row, name=name: cell(row['meshes'][name]) for name in map(str, planned)}


def _sent(plan: Mapping[str, Any]) -> str:
    return f'{plan["sent_bytes"] / 1e6:.1f} / {1e3 * plan["communication_seconds"]:.2f}'


def _times(plan: Mapping[str, Any]) -> str:
    return f'{1e3 * plan["step_seconds"]:.4g}, {plan["efficiency"]:.1%}, {plan["images_per_second"]:,.0f}'


def main(argv: Sequence[str]) -> int:
    """Plan, check and print; returns 1 if the model differs from the compiled program."""
    options = flags.FLAGS
    if argv[1:]:
        raise UserError(f'unexpected argument {argv[1]!r}: options start with --')
    if wrong := [text for text in options.devices if not re.fullmatch('[1-9][0-9]*', text)]:
        raise UserError(f'--devices takes whole numbers from 1, not {wrong[0]!r}')
    tables = plan_tables(options)
    if len(jax.devices()) != 8:
        raise UserError(f'8 virtual CPU devices are needed, XLA_FLAGS or JAX_PLATFORMS gives {len(jax.devices())}')
    written = report.Report(options.output, 'float32')
    for table in tables:
        written.add(*table)
    config = preset_config(CHECKED_PRESET, scale=SCALE, num_blocks=1, batch_size=8, patch_size=8)
    network = build_network(config.model)
    title = f'model and compiled program, {CHECKED_PRESET} with one block, virtual CPUs'
    written.add({'title': title, 'rows': check(network, CHECKED_MESHES)}, CHECK_COLUMNS)
    return written.exit_code


if __name__ == '__main__':
    flags.DEFINE_list('presets', list(PRESETS), 'Names in configs/presets.py.')
    flags.DEFINE_list('devices', ['8', '64', '256'], 'Numbers of devices.')
    flags.DEFINE_integer('fsdp', 8, 'Neighbours that split parameters in every second mesh.', lower_bound=1)
    flags.DEFINE_integer('batch_size', 16, 'Patches on each device.', lower_bound=1)
    flags.DEFINE_integer('patch_size', 48, 'Side of an input patch.', lower_bound=1)
    flags.DEFINE_integer('devices_per_host', 8, 'Devices in a host, linked at --host_bandwidth.', lower_bound=1)
    flags.DEFINE_float('host_bandwidth', 450, 'GB/s that a device sends within its host.', lower_bound=1e-3)
    flags.DEFINE_float('bandwidth', 50, 'GB/s that a device sends to other hosts.', lower_bound=1e-3)
    flags.DEFINE_string('step_times', None, 'JSON of benchmarks.train_step on one device.')
    flags.DEFINE_float('peak_tflops', 989, "Vendor's peak, for presets without a measured step (H100's bfloat16).")
    flags.DEFINE_float('share', 0, 'Share of that peak that is assumed for them; 0: give no times.', 0, 1)
    flags.DEFINE_string('output', None, 'JSON file for every row; the tables are written beside it as .md.')
    jax.config.update('jax_platforms', 'cpu')
    jax.config.update('jax_num_cpu_devices', 8)
    command_line.run(main)
