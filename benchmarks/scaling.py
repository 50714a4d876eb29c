"""A plan on paper for many devices: bytes that they send each other, and what a step takes then.

    python -m benchmarks.scaling --output=scaling.json
    python -m benchmarks.scaling --step_times=train_step.json --devices=8,256 --bandwidth=50 --host_bandwidth=450

Bytes are those of `benchmarks/collectives.py`, a model that is checked in the same run against what XLA compiles for
meshes of 8 virtual CPU devices; no accelerator is used. Within a host a device sends them over --host_bandwidth; a ring
that spans hosts crosses from one to the next over the network ports, of --bandwidth each, of all its devices there. By
default these are NVIDIA's figures for a DGX H100: 450 GB/s of NVLink in each direction, a port of 400 Gb/s for each
GPU. Nothing is taken to be hidden behind computation, no latency is counted. What one device takes for a step stands
in the JSON of `python -m benchmarks.train_step`; where a preset is not in it, it is FLOPs / (--peak_tflops * --share),
marked as assumed, or left out.
"""

import json
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags

from benchmarks import collectives, report
from benchmarks.step_parts import WHOLE, preset_config
from configs.presets import PRESETS
from nsr_jax import command_line
from nsr_jax.data.store import ImageStore
from nsr_jax.errors import UserError
from nsr_jax.losses import find_losses
from nsr_jax.models.build import Network, build_network
from nsr_jax.models.cost import count_multi_adds, count_parameters
from nsr_jax.optimizers import find_optimizer, find_schedule
from nsr_jax.training.sharding import make_mesh
from nsr_jax.training.state import abstract_state
from nsr_jax.training.step import make_train_steps

CHECKED_PRESET, CHECKED_MESHES = 'edsr_s_nsr', ((8, 1), (2, 4), (1, 8))
TOLERANCE = 0.002  # of the bytes that a device sends
SCALE = 2  # of super-resolution presets

_Cell = Callable[[dict[str, Any]], str]


def compiled_step(network: Network, data: int, fsdp: int) -> str:
    """The program of a train step on a mesh, as text; batch and patches are tiny, bytes do not depend on them."""
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
    return lowered.compile({'xla_backend_optimization_level': '0'}).as_text()  # collectives are there before that


def check(network: Network, meshes: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """Compare the model with the compiled program on each mesh (data, fsdp); a row whose 'failure' is not '' is off."""
    rows = []
    for data, fsdp in meshes:
        found = list(collectives.read(compiled_step(network, data, fsdp)))
        sent = sum(each.sent for each in found)
        model = sum(each.sent for each in collectives.predict(network, data, fsdp))
        kinds = {
            kind: sum(each.nbytes for each in found if each.kind == kind) for kind in {each.kind for each in found}
        }
        wrong = '' if abs(model / sent - 1) <= TOLERANCE else f'the model is off by {model / sent - 1:+.1%}'
        rows.append({'mesh': [data, fsdp], 'model': model, 'compiled': sent, 'arrays': kinds, 'failure': wrong})
    return rows


def check_table(rows: Sequence[dict[str, Any]], network: Network) -> tuple[dict[str, Any], str]:
    """The rows of `check` as data and as Markdown."""
    blocks, parameters = network.num_blocks, count_parameters(network)
    title = f'model and compiled program, {CHECKED_PRESET} with {blocks} block, {parameters:,} parameters, virtual CPUs'
    lines = ['| mesh (data, fsdp) | by the model, each device sends | compiled | arrays in it |']
    lines += ['| --- | ---: | ---: | --- |']
    for row in rows:
        arrays = ', '.join(f'{kind} {nbytes / 1e6:.3f} MB' for kind, nbytes in sorted(row['arrays'].items()))
        sent = f'{row["model"] / 1e6:.3f} MB | {row["compiled"] / 1e6:.3f} MB ({row["failure"] or "agrees"})'
        lines.append(f'| {tuple(row["mesh"])} | {sent} | {arrays} |')
    return {'title': title, 'rows': list(rows)}, '\n'.join([f'**{title}**', '', *lines, ''])


def measured_seconds(path: str, batch_size: int, patch_size: int) -> tuple[dict[str, float], str]:
    """Median seconds of the whole step by preset, and the device they were measured on.

    Raises:
        UserError: the file is not what `benchmarks.train_step` writes, or of another batch, patch or several devices.
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
    """What a mesh is expected to do, by a step of one device: a row without the preset's name."""
    devices = mesh[0] * mesh[1]
    found = list(collectives.predict(network, *mesh))
    sent, waiting = sum(each.sent for each in found), sum(each.sent / _bandwidth(each, mesh, options) for each in found)
    row = {'mesh': list(mesh), 'batch_size': devices * options.batch_size, 'sent_bytes': sent}
    row['communication_seconds'] = waiting
    if seconds is None:
        return row
    total = seconds + waiting
    return row | {
        'step_seconds': total,
        'efficiency': seconds / total,
        'images_per_second': row['batch_size'] / total,
    }


def _bandwidth(each: collectives.Collective, mesh: tuple[int, int], options: flags.FlagValues) -> float:
    """Bytes a second that each of its devices sends; those along `fsdp` are neighbours."""
    apart = mesh[1] if each.axes == ('data',) else 1
    if each.devices * apart <= options.devices_per_host:
        return 1e9 * options.host_bandwidth
    in_a_host = max(options.devices_per_host // apart, 1)
    return 1e9 * min(options.host_bandwidth, options.bandwidth * in_a_host)


def meshes(options: flags.FlagValues) -> list[tuple[int, int]]:
    """For each number of devices: all share the parameters, or --fsdp neighbours split them."""
    found = []
    for devices in map(int, options.devices):
        fsdp = min(options.fsdp, devices)
        if devices % fsdp:
            raise UserError(f'--devices: {devices} is no multiple of --fsdp={fsdp}')
        found += dict.fromkeys([(devices, 1), (devices // fsdp, fsdp)])
    return found


def plan_tables(options: flags.FlagValues) -> list[tuple[dict[str, Any], str]]:
    """What is sent by each preset on each mesh; and, where one device's step is known or assumed, times."""
    measured, device = {}, ''
    if options.step_times:
        measured, device = measured_seconds(options.step_times, options.batch_size, options.patch_size)
    sizes = {'scale': SCALE, 'num_blocks': 0, 'batch_size': options.batch_size, 'patch_size': options.patch_size}
    assumed = f'assumed, {options.share:.0%} of {options.peak_tflops:g} TFLOP/s'
    rows = []
    for preset in options.presets:
        config = preset_config(preset, **sizes)
        network = build_network(config.model)
        side = options.patch_size * config.model.scale
        flops = 3 * 2.0 * options.batch_size * count_multi_adds(network, (side, side)).total
        seconds, source = measured.get(preset), f'measured on {device}'
        if seconds is None and options.share:
            seconds, source = flops / (1e12 * options.peak_tflops * options.share), assumed
        shared = {'preset': preset, 'parameters': count_parameters(network), 'flops': flops}
        shared |= {'device_seconds': seconds, 'from': source if seconds else None}
        rows += [shared | plan(network, mesh, seconds, options) for mesh in meshes(options)]
    setting = f'{options.batch_size} patches {options.patch_size}x{options.patch_size} a device'
    links = f'{options.host_bandwidth:g} GB/s in a host of {options.devices_per_host}, {options.bandwidth:g} between'
    sent = _by_preset(rows, 'parameters', lambda row: f'{row["parameters"]:,}', _sent)
    found = [_table(f'each device sends in a step (MB), and how long that takes (ms) with {links}', rows, sent)]
    timed = [row for row in rows if row['from']]
    if timed:
        sources = [
            f'* {source}' if source == assumed else source for source in dict.fromkeys(row['from'] for row in timed)
        ]
        title = f'a step of {setting} (ms), efficiency, images a second over all; one device {", ".join(sources)}'

        def alone(row: dict[str, Any]) -> str:
            return f'{1e3 * row["device_seconds"]:.4g}{"*" if row["from"] == assumed else ""}'

        lines = _by_preset(timed, 'one device (ms)', alone, _times)
        found.append(_table(title, timed, lines))
    return found


def _sent(row: dict[str, Any]) -> str:
    return f'{row["sent_bytes"] / 1e6:.1f} / {1e3 * row["communication_seconds"]:.2f}'


def _times(row: dict[str, Any]) -> str:
    return f'{1e3 * row["step_seconds"]:.4g}, {row["efficiency"]:.1%}, {row["images_per_second"]:,.0f}'


def _by_preset(rows: Sequence[dict[str, Any]], head: str, first: _Cell, cell: _Cell) -> list[str]:
    """Lines of a table with a row for each preset, a column for `first` and one for each mesh of several devices."""
    shown = [mesh for mesh in dict.fromkeys(tuple(row['mesh']) for row in rows) if mesh != (1, 1)]
    lines = [f'| preset | {head} | {" | ".join(map(str, shown))} |', '| --- | ---: ' + '| ---: ' * len(shown) + '|']
    for preset in dict.fromkeys(row['preset'] for row in rows):
        own = {tuple(row['mesh']): row for row in rows if row['preset'] == preset}
        cells = [first(next(iter(own.values()))), *(cell(own[mesh]) for mesh in shown)]
        lines.append(f'| {preset} | {" | ".join(cells)} |')
    return lines


def _table(title: str, rows: Sequence[dict[str, Any]], lines: Sequence[str]) -> tuple[dict[str, Any], str]:
    return {'title': title, 'rows': list(rows)}, '\n'.join([f'**{title}**', '', *lines, ''])


def main(argv: Sequence[str]) -> int:
    """Plan, check and print; 1 where the model is not what was compiled."""
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
    written.add(*check_table(check(network, CHECKED_MESHES), network))
    return written.exit_code


if __name__ == '__main__':
    flags.DEFINE_list('presets', list(PRESETS), 'Names in configs/presets.py.')
    flags.DEFINE_list('devices', ['8', '64', '256'], 'How many.')
    flags.DEFINE_integer('fsdp', 8, 'Neighbours that split parameters in every second mesh.', lower_bound=1)
    flags.DEFINE_integer('batch_size', 16, 'Patches on each device.', lower_bound=1)
    flags.DEFINE_integer('patch_size', 48, 'Side of an input patch.', lower_bound=1)
    flags.DEFINE_integer('devices_per_host', 8, 'Linked by --host_bandwidth.', lower_bound=1)
    flags.DEFINE_float('host_bandwidth', 450, 'GB/s that a device sends within its host.', lower_bound=1e-3)
    flags.DEFINE_float('bandwidth', 50, 'GB/s that a device sends to other hosts.', lower_bound=1e-3)
    flags.DEFINE_string('step_times', None, 'JSON of benchmarks.train_step on one device.')
    flags.DEFINE_float('peak_tflops', 989, "Where nothing was measured: of the chip, by its vendor (H100's bfloat16).")
    flags.DEFINE_float('share', 0, 'Where nothing was measured: of that peak, assumed; 0: give no times.', 0, 1)
    flags.DEFINE_string('output', None, 'JSON file for every row; the tables are written beside it as .md.')
    jax.config.update('jax_platforms', 'cpu')
    jax.config.update('jax_num_cpu_devices', 8)
    command_line.run(main)
