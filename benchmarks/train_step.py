"""Time the whole train step of networks with and without gates: sample, degrade, restore, compare, update.

    python -m benchmarks.train_step --output=train_step.json
    python -m benchmarks.train_step --presets=resnet,resnet_nsr_capacity --dtype=bfloat16 --notorch
    python -m benchmarks.train_step --memory

Ratios are to the first preset, which should be the plain network of the comparison. Each step draws its own batch
from a resident store of random images. Forward and backward pass, optimizer and sampling are also timed on their own.
The optimizer is Adam at a constant rate. Where PyTorch is installed, the same networks in PyTorch take part, with the
same weights, on batches that are on the device already. Losses and gradients are checked in the same run against
ours, computed sample by sample in float32 at the highest precision. `--memory` compiles the step of each preset and
runs nothing: it prints bytes, and the seconds that compiling takes.
"""

import functools
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags
from jax import lax
from ml_collections import ConfigDict

from benchmarks import report
from benchmarks.timing import (
    Candidate,
    Measurement,
    check_errors,
    fastest,
    matmul_candidate,
    peak_of,
    relative_errors,
    take_turns,
)
from configs import denoise, sr
from configs.presets import PRESETS
from nsr_jax import command_line
from nsr_jax.data.sampling import sample_patches
from nsr_jax.data.store import ImageStore
from nsr_jax.errors import UserError
from nsr_jax.inference.devices import replicated
from nsr_jax.losses import find_losses
from nsr_jax.models.build import build_network
from nsr_jax.models.cost import count_multi_adds, count_parameters
from nsr_jax.optimizers import find_optimizer, find_schedule
from nsr_jax.tasks.denoise import Noise
from nsr_jax.training.gradients import compare_and_differentiate, find_microbatch_size
from nsr_jax.training.placing import place_store
from nsr_jax.training.sharding import make_mesh, over_batch
from nsr_jax.training.state import TrainState, abstract_state, create_state
from nsr_jax.training.step import make_train_steps

TIMED = ('edsr_s', 'edsr_s_nsr')
COMPILED = ('edsr_s', 'edsr_s_nsr', 'edsr_l_nsr', 'resnet', 'resnet_nsr_efficient', 'resnet_nsr_capacity', 'wdsr_s')
WHOLE, GRADIENT, OPTIMIZER, SAMPLING = 'whole step', 'forward + backward', 'optimizer', 'sampling'
IMAGES, MARGIN = 16, 32  # of the resident store; how many pixels larger than a patch each is

# Relative to the gradient's norm; a tenth of it for the loss. L1's derivative is a sign, which rounding flips near 0.
_TOLERANCES = {'float32 on cpu': 1e-3, 'float32': 5e-2, 'bfloat16': 2e-1}


def preset_config(preset: str, *, scale: int, num_blocks: int, batch_size: int, patch_size: int) -> ConfigDict:
    """The config of a preset's training: super-resolution, or gray denoising at sigma 25 for `resnet…`.

    Args:
        preset: a name in configs/presets.py.
        scale: of super-resolution.
        num_blocks: 0 for the preset's own.
        batch_size: over all devices.
        patch_size: side of an input patch.

    Raises:
        UserError: the preset or the scale is unknown.
    """
    if preset not in PRESETS:
        raise UserError(f'unknown preset {preset!r}: one of {", ".join(PRESETS)}')
    try:
        if preset.startswith('resnet'):
            config = denoise.get_config(f'sigma=25,channels=1,preset={preset}')
        else:
            config = sr.get_config(f'scale={scale},preset={preset}')
    except ValueError as error:
        raise UserError(str(error)) from error
    config.model.num_blocks = num_blocks or config.model.num_blocks
    config.batch_size, config.data.patch_size = batch_size, patch_size
    return config


class Training:
    """A network with all that its training needs, put together as in `nsr_jax.training.loop`.

    Attributes:
        preset: its name.
        dtype: of convolutions.
        network: to train.
        abstract: the state's shapes.
        train_steps: the compiled step, (state, store, count) to (state, sums).
        batch_size: over all devices.
        rate: of Adam.
    """

    def __init__(self, preset: str, config: ConfigDict, dtype: str):
        """Prepare the training; nothing is computed or put on a device yet."""
        self.preset, self.dtype, self.batch_size = preset, dtype, config.batch_size
        self.network = build_network(config.model, dtype)
        self._exact = build_network(config.model, 'float32')
        self._mesh = make_mesh(-1, 1, config.batch_size)
        self._microbatch_size = find_microbatch_size(config.microbatch_size, config.batch_size, self._mesh)
        self._losses = find_losses(config.loss)
        self._adam = find_optimizer('adam', find_schedule('constant', config.learning_rate))
        self.abstract = abstract_state(self.network, self._adam, self._mesh)
        self._patch, self._margin, self._scale = config.data.patch_size, config.data.margin, config.model.scale
        sample = functools.partial(
            sample_patches,
            key=jax.random.key(config.seed),
            scale=self._scale,
            patch_size=self._patch,
            margin=self._margin,
            corruption=Noise(*config.degradation.sigma) if config.task == 'denoise' else None,
        )
        self.rate = config.learning_rate
        self.train_steps = make_train_steps(
            self.network,
            lambda store, first_step, step, indices: sample(store, step=step, indices=indices),
            losses=self._losses,
            optimizer=self._adam,
            batch_size=config.batch_size,
            stop_after_skipped=config.stop_after_skipped,
            mesh=self._mesh,
            microbatch_size=self._microbatch_size,
            abstract=self.abstract,
        )
        by_samples = over_batch(self._mesh)

        def sample_batch(store: ImageStore, step: jax.Array) -> tuple[jax.Array, jax.Array]:
            indices = lax.with_sharding_constraint(jnp.arange(config.batch_size), by_samples)
            return sample(store, step=step, indices=indices)

        self._sample = jax.jit(sample_batch, out_shardings=by_samples)

    def abstract_store(self) -> ImageStore:
        """The shapes of `store`."""
        side = self._patch + 2 * self._margin + MARGIN
        scale, channels = self._scale, self.network.channels

        def images(size: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((IMAGES, size, size, channels), jnp.uint8)

        sizes = jax.ShapeDtypeStruct((IMAGES, 2), jnp.int32)
        return ImageStore(images(side * scale), None if scale == 1 else images(side), sizes)

    @functools.cached_property
    def store(self) -> ImageStore:
        """Random images, resident on every device."""
        generator, shapes = np.random.default_rng(0), self.abstract_store()
        images = jax.tree.map(lambda leaf: generator.integers(0, 256, leaf.shape, np.uint8), shapes)
        side = self._patch + 2 * self._margin + MARGIN
        return place_store(images.replace(sizes=np.full((IMAGES, 2), side, np.int32)), self._mesh)

    @functools.cached_property
    def initial(self) -> TrainState:
        """The state before the first step."""
        return create_state(self.network, self._adam, self._mesh, seed=0)

    @property
    def flops(self) -> float:
        """FLOPs of the network's multiply-accumulates in a step: forward, and twice as many backward."""
        side = self._patch * self._scale
        return 3 * 2.0 * self.batch_size * count_multi_adds(self.network, (side, side)).total

    def batch(self, step: int) -> tuple[jax.Array, jax.Array]:
        """The inputs and targets of a step."""
        return self._sample(self.store, jnp.int32(step))

    @functools.cached_property
    def _expected(self) -> dict[str, np.ndarray]:
        """The first step's loss and gradient: means over single samples, in float32 at the highest precision."""
        loss_and_gradient = jax.value_and_grad(functools.partial(_loss, self._exact))

        @jax.jit
        def add(sums, params, *sample):
            return jax.tree.map(jnp.add, sums, loss_and_gradient(params, *sample))

        params = jax.device_put(self.initial.params, jax.devices()[0])
        sums = jax.device_put(jax.tree.map(np.zeros_like, (np.float32(0), params)), jax.devices()[0])
        inputs, targets = (np.asarray(images) for images in self.batch(0))
        with jax.default_matmul_precision('highest'):
            for index in range(self.batch_size):
                sums = add(sums, params, inputs[index : index + 1], targets[index : index + 1])
        loss, gradient = sums
        return {'loss': np.asarray(loss) / self.batch_size, 'gradient': _flat(gradient) / self.batch_size}

    def check(self, loss: Any, gradient: Any = None) -> float:
        """Compare the loss of the first step, and its gradient if given, with the oracle's.

        Raises:
            ArithmeticError: they differ.
        """
        exact = self.dtype == 'float32' and jax.default_backend() == 'cpu'
        tolerance = _TOLERANCES['float32 on cpu' if exact else self.dtype]
        error = check_errors(relative_errors({'loss': np.asarray(loss)}, self._expected), tolerance / 10)
        if gradient is None:
            return error
        return check_errors(relative_errors({'gradient': _flat(gradient)}, self._expected), tolerance)

    def candidates(self, calls: int) -> list[Candidate]:
        """The whole step and its parts, `calls` of them in one timing."""
        return [self._whole_step(calls), self._gradient(calls), self._optimizer(calls), self._sampling(calls)]

    def _candidate(self, group: str, **fields: Any) -> Candidate:
        return Candidate(name=f'{self.preset} {group}', group=group, wait=jax.block_until_ready, **fields)

    def _whole_step(self, calls: int) -> Candidate:
        states = []  # only the current state; each call donates it

        def prepare(seed: int) -> int:
            if seed == 0:
                states[:] = [jax.tree.map(jnp.copy, self.initial)]
            return calls if seed else 1  # no count recompiles; only the first step is checked

        def run(count: int) -> dict[str, jax.Array]:
            state, sums = self.train_steps(states.pop(), self.store, count)
            states.append(state)
            return sums

        return self._candidate(
            WHOLE,
            prepare=prepare,
            run=run,
            calls=calls,
            flops=self.flops,
            check=lambda sums: self.check(sums['loss']),
        )

    def _gradient(self, calls: int) -> Candidate:
        @functools.partial(jax.jit, out_shardings=replicated(self._mesh))
        def compute(params, inputs, targets):
            options = {'losses': self._losses, 'mesh': self._mesh, 'microbatch_size': self._microbatch_size}
            found, gradients = compare_and_differentiate(self.network, params, inputs, targets, **options)
            return found.loss, gradients

        def run(batches):
            return [compute(self.initial.params, *batch) for batch in batches]

        return self._candidate(
            GRADIENT,
            prepare=lambda seed: [self.batch(seed * calls + index) for index in range(calls)],
            run=run,
            calls=calls,
            flops=self.flops,
            check=lambda results: self.check(*results[0]),
        )

    def _optimizer(self, calls: int) -> Candidate:
        @functools.partial(jax.jit, donate_argnums=(0, 1))
        def update(params, optimizer, gradient):
            updates, optimizer = self._adam.update(gradient, optimizer, params, step=jnp.int32(0))
            return optax.apply_updates(params, updates), optimizer

        @jax.jit
        def random_like(params, seed):
            leaves, structure = jax.tree.flatten(params)
            sizes = [leaf.size for leaf in leaves]
            parts = jnp.split(jax.random.normal(jax.random.key(seed), (sum(sizes),)), np.cumsum(sizes)[:-1])
            shaped = [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
            return jax.tree.unflatten(structure, shaped)

        def prepare(seed: int):
            gradient = random_like(self.initial.params, seed)
            return jax.tree.map(jnp.copy, (self.initial.params, self.initial.optimizer)), gradient

        def run(arguments):
            (params, optimizer), gradient = arguments
            for _ in range(calls):
                params, optimizer = update(params, optimizer, gradient)
            return params

        def check(params) -> float:
            """With a constant gradient, each of Adam's steps is the rate times the gradient's sign."""
            change = _flat(params) - _flat(self.initial.params)
            expected = -calls * self.rate * np.sign(_flat(random_like(self.initial.params, 0)))
            return check_errors(relative_errors({'change': change}, {'change': expected}), 1e-2)

        return self._candidate(OPTIMIZER, prepare=prepare, run=run, calls=calls, check=check)

    def _sampling(self, calls: int) -> Candidate:
        return self._candidate(
            SAMPLING,
            prepare=lambda seed: [jnp.int32(seed * calls + index) for index in range(calls)],
            run=lambda steps: [self._sample(self.store, step) for step in steps],
            calls=calls,
        )


def _loss(network, params, inputs, targets) -> jax.Array:
    return jnp.mean(jnp.abs(network.apply({'params': params}, inputs) - targets))


def _flat(tree) -> np.ndarray:
    return np.concatenate([np.asarray(leaf, np.float64).reshape(-1) for leaf in jax.tree.leaves(tree)])


def compile_step(training: Training) -> dict[str, Any]:
    """Compile the whole train step and read how much memory it takes: a row of `MEMORY_COLUMNS`."""
    shapes = training.abstract, training.abstract_store(), jax.ShapeDtypeStruct((), jnp.int32)
    start = time.perf_counter()
    lowered = training.train_steps.lower(*shapes)
    traced = time.perf_counter()
    compiled = lowered.compile()
    done = time.perf_counter()
    memory = compiled.memory_analysis()
    row = {
        'preset': training.preset,
        'parameters': count_parameters(training.network),
        'argument_bytes': memory.argument_size_in_bytes,
        'output_bytes': memory.output_size_in_bytes,
        'alias_bytes': memory.alias_size_in_bytes,
        'temporary_bytes': memory.temp_size_in_bytes,
        'trace_seconds': traced - start,
        'compile_seconds': done - traced,
    }
    held = row['argument_bytes'] + row['output_bytes'] - row['alias_bytes']
    return row | {'peak_bytes': held + row['temporary_bytes']}


MEMORY_COLUMNS = {
    'preset': lambda row: row['preset'],
    'parameters': lambda row: f'{row["parameters"]:,}',
    'arguments (MB)': lambda row: f'{row["argument_bytes"] / 1e6:.1f}',
    'outputs (MB)': lambda row: f'{row["output_bytes"] / 1e6:.1f}',
    'of them in place (MB)': lambda row: f'{row["alias_bytes"] / 1e6:.1f}',
    'temporaries (MB)': lambda row: f'{row["temporary_bytes"] / 1e6:.1f}',
    'peak (MB)': lambda row: f'{row["peak_bytes"] / 1e6:.1f}',
    'trace (s)': lambda row: f'{row["trace_seconds"]:.1f}',
    'compile (s)': lambda row: f'{row["compile_seconds"]:.1f}',
}


def compare(measurements: Sequence[Measurement], trainings: Sequence[Training], setting: str) -> list[dict[str, Any]]:
    """The tables: the peak, steps compared with the first preset's, and the parts of each preset's step."""
    peak = peak_of(measurements)
    work = {'steps': 1, 'images': trainings[0].batch_size}
    by_name = {each.candidate.name: each for each in measurements}
    found = [report.peak_table(measurements, trainings[0].dtype)]
    for group in (WHOLE, GRADIENT):
        rows = [each for each in measurements if each.candidate.group == group]
        notes = []
        for training in trainings:
            ours = by_name[f'{training.preset} {group}']
            peers = [each for each in rows if each.candidate.name.startswith(f'{ours.candidate.name}, ')]
            notes.append(report.comparison(ours, fastest(peers)))
        floor = by_name[f'{trainings[0].preset} {group}']
        found.append(report.section(f'{group}, {setting}', rows, floor, peak, work, ' '.join(filter(None, notes))))
    for training in trainings:
        rows = [by_name[f'{training.preset} {group}'] for group in (WHOLE, GRADIENT, OPTIMIZER, SAMPLING)]
        title = f'parts of a step of {training.preset}, each alone, {setting}'
        found.append(report.section(title, rows, rows[0], peak, work))
    return found


def setting(options: flags.FlagValues) -> str:
    """The setting that all steps have in common, in words."""
    blocks = f', {options.num_blocks} blocks' if options.num_blocks else ''
    side = options.patch_size
    return f'batch {options.batch_size}, patches {side}x{side}{blocks}, {options.dtype}'


def measure(
    trainings: Sequence[Training], variants: Sequence[Any], options: flags.FlagValues, written: report.Report
) -> None:
    """Time all steps and add their report."""
    calls = options.calls or (1 if jax.default_backend() == 'cpu' else 10)
    candidates = [matmul_candidate(options.dtype)]
    for training in trainings:
        candidates += training.candidates(calls)
    if variants:
        from benchmarks import torch_peers

        torch_peers.configure()
        for training in trainings:
            candidates += torch_peers.training_candidates(training, calls, variants, (WHOLE, GRADIENT))
    found = compare(take_turns(candidates, options.rounds), trainings, setting(options))
    memory = report.peak_memory()
    found[-1]['note'] = f'Most memory of {memory["of"]} over the whole run: {memory["bytes"] / 1e6:,.0f} MB.'
    found[-1]['peak_memory'] = memory
    for table in found:
        written.add(table)


def main(argv: Sequence[str]) -> int:
    """Measure the presets and print their tables; returns 1 if a candidate failed."""
    options = flags.FLAGS
    if argv[1:]:
        raise UserError(f'unexpected argument {argv[1]!r}: options start with --')
    presets = options.presets or (COMPILED if options.memory else TIMED)
    if len(set(presets)) != len(presets):
        raise UserError(f'--presets names one twice: {",".join(presets)}')
    sizes = {name: options[name].value for name in ('scale', 'num_blocks', 'batch_size', 'patch_size')}
    trainings = [Training(preset, preset_config(preset, **sizes), options.dtype) for preset in presets]
    variants = [] if options.memory else report.torch_variants(options)
    report.compile_anew()
    written = report.Report(options.output, options.dtype)
    if options.memory:
        rows = [compile_step(training) for training in trainings]
        written.add({'title': f'train step, compiled only, {setting(options)}', 'rows': rows}, MEMORY_COLUMNS)
    else:
        measure(trainings, variants, options, written)
    return written.exit_code


if __name__ == '__main__':
    flags.DEFINE_list('presets', [], f'Names in configs/presets.py; default {",".join(TIMED)}; with --memory, seven.')
    flags.DEFINE_integer('scale', 2, 'Of super-resolution presets.')
    flags.DEFINE_integer('num_blocks', 0, 'Residual blocks; 0: what the preset has.', lower_bound=0)
    flags.DEFINE_integer('batch_size', 16, 'Patches in a step, over all devices.', lower_bound=1)
    flags.DEFINE_integer('patch_size', 48, 'Side of an input patch.', lower_bound=1)
    flags.DEFINE_bool('memory', False, 'Compile only, and print bytes and seconds.')
    report.define_flags()
    command_line.run(main)
