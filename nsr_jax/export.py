"""Write a network with its weights to one file for other programs, in the format that the suffix names.

    python -m nsr_jax.export --checkpoint=runs/x2 --output=x2.stablehlo

.stablehlo runs with JAX alone on CPUs, CUDA GPUs and TPUs, and .onnx in ONNX Runtime and its like, both for every
batch, height and width; .pth is the layout of the method's PyTorch code; .safetensors holds the weights under their
names here. Beside each, x2.stablehlo.json and so on describe the network; docs/export.md shows how to use them.

    python -m nsr_jax.export --checkpoint=runs/x2 --output=x2.onnx --gate=fixed --images=photos/

folds the gates for images such as those of a folder into plain convolutions, and says what this costs in dB.

    python -m nsr_jax.export --checkpoint=runs/x2 --compile_for=v5e:2x2 --size=16x96x96

compiles the function of .stablehlo for chips that need not be there, and shows what the compiler says of it.

    python -m nsr_jax.export --checkpoint=runs/x2 --output=x2.stablehlo --platform=tpu --size=16x96x96

writes it for one platform and one size of input alone, which lets it hold the package's own kernels for TPUs.
"""

from nsr_jax import environment  # noqa: F401  before whatever imports JAX

# isort: split
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from absl import flags, logging

import nsr_jax
from nsr_jax import command_line, shipped, streams
from nsr_jax.atomic_files import make_output_folder, write_atomically
from nsr_jax.errors import UserError
from nsr_jax.evaluation.tables import to_record
from nsr_jax.exporting.export_formats import EXPORT_FORMATS, ExportFormat
from nsr_jax.exporting.stablehlo import PLATFORMS, Use, export_network
from nsr_jax.inference.restorer import TILING
from nsr_jax.models.build import build_network
from nsr_jax.models.cost import count_parameters
from nsr_jax.paths import local_path
from nsr_jax.planning.compiled_restoring import plan_restoring
from nsr_jax.planning.description import describe_restoring
from nsr_jax.planning.target import EXAMPLES, find_platform, hide_accelerators
from nsr_jax.trained import WHICH


def write_export(
    model: str | os.PathLike,
    output: str | os.PathLike,
    overwrite: bool = False,
    which: str = 'best',
    fix_gates_for: str | None = None,
    levels: Sequence[float | str] = (),
    use: Use | None = None,
) -> dict[str, Any]:
    """Write a network to the file `output`, and its description to `output`.json.

    Args:
        model: the folder of a training run or of one checkpoint, or a name in `shipped.SHIPPED`.
        output: the file to write, with a suffix in `EXPORT_FORMATS`; its folder is made if it is missing.
        overwrite: whether existing files are replaced.
        which: of a training run's checkpoints to take: the best one, or the last one ('last').
        fix_gates_for: a folder of images or a dataset's name, for whose images gates are fixed; None: they stay.
        levels: as for `fixed_gates.open_domain`.
        use: as for `stablehlo.export_network`; None: every platform and size.

    Returns:
        The contents of the JSON file.

    Raises:
        UserError: there is no such model; the format has no room for it or needs a package that is missing; `output`
            has another suffix, exists, is a folder or cannot be written; or as for `fixed_gates.open_domain`.
    """
    path, card_path = _check_output(output, overwrite)
    form = _find_format(path)
    if use is not None and not form.has_uses:
        raise UserError(f'--platform and --size are of use with .stablehlo alone, not with --output={output}')
    part = _find_part(model)
    loaded, scores = shipped.load_part(part, which), []
    if fix_gates_for is None:
        make_output_folder(path.parent)
    else:
        _require(('array_record', 'tensorflow_datasets'), 'fix gates', extra='evaluate')
        from nsr_jax.exporting import fixed_gates  # imports these packages

        domain = fixed_gates.open_domain(loaded.config, fix_gates_for, levels)
        make_output_folder(path.parent)
        loaded, scores = fixed_gates.fix_gates(loaded, domain)
        for gated, fixed in zip(scores[::2], scores[1::2], strict=True):
            logging.info('%s', fixed_gates.describe_cost(gated, fixed))
    network = build_network(loaded.config.model)

    about = {
        'task': loaded.config.task,
        'scale': network.scale,
        'channels': network.channels,
        'mean': network.mean,
        # For restoring images as `nsr_jax.restore` does.
        'gated': network.is_gated,
        'tile': TILING.tile,
        'overlap': TILING.overlap,
        'versions': {'nsr_jax': nsr_jax.__version__}
        | {package: importlib.metadata.version(package) for package in form.packages},
        'checkpoint': os.fspath(model),
        'step': loaded.step,
        'weights': loaded.kind or 'of the step',
        'parameters': count_parameters(network),
        'config': json.loads(loaded.config.to_json()),
    }
    if part in shipped.SHIPPED:
        about['terms'] = shipped.read_card(part).terms
    if scores:
        about['fixed_gates'] = [to_record(score) for score in scores]
    options = {} if use is None else {'use': use}
    contents, of_file = form.encode(network, loaded.params, about, **options)
    card = {'file': path.name, 'sha256': hashlib.sha256(contents).hexdigest(), **about, **of_file}
    # If only the first file is written, the checksum in the second one shows it.
    write_atomically(path, contents)
    write_atomically(card_path, json.dumps(card, indent=1, allow_nan=False) + '\n')
    return card


def _find_part(model: str | os.PathLike) -> str:
    parts = shipped.find_parts(model)
    if len(parts) > 1:
        raise UserError(f'--checkpoint={model} stands for {" and ".join(parts)}: name one of them')
    return parts[0]


def _find_format(path: pathlib.Path) -> ExportFormat:
    """The format that a file's suffix names, whose packages are installed."""
    form = EXPORT_FORMATS.get(path.suffix)
    if form is None:
        raise UserError(f'--output={path} must end in {", ".join(EXPORT_FORMATS)}, each of which is a format')
    _require(form.packages, f'write {path.suffix}', extra='export')
    return form


def _require(packages: Sequence[str], purpose: str, extra: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise UserError(f"to {purpose}, the package {package} is needed: pip install 'nsr-jax[{extra}]'")


def _check_output(output: str | os.PathLike, overwrite: bool) -> tuple[pathlib.Path, pathlib.Path]:
    """The paths of the file and of its description."""
    if os.path.isdir(output) or os.fspath(output).endswith('/'):
        raise UserError(f'--output={output} is a folder: name a file, such as x2.stablehlo')
    paths = pathlib.Path(output), pathlib.Path(f'{os.fspath(output)}.json')
    for path in paths:
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:  # for example a name that is too long
            raise UserError(f'{path} cannot be written: {error.strerror}') from error
        if not os.path.isfile(path):
            raise UserError(f'{path} is a folder, a device or a link to nothing, not a file')
        if not overwrite:
            raise UserError(f'{path} already exists: --overwrite replaces it')
    return paths


def main(argv: Sequence[str]) -> None:
    """Command line: `--checkpoint`, `--output`, and `--gate`."""
    if argv[1:]:
        raise UserError(f'unexpected argument {argv[1]!r}: options start with --')
    given = flags.FLAGS
    use = _read_use(given.platform, given.size, given.compile_for)
    if given.compile_for is not None:
        for name in ('gate', 'images', 'levels', 'overwrite'):
            if given[name].value != given[name].default:
                raise UserError(f'--{name} is of use with --output alone: a plan, by --compile_for, writes no file')
        _plan(given.checkpoint, given.which, given.compile_for, _read_size(given.size), use)
        return
    checkpoint, output = given.checkpoint, local_path(given.output, '--output')
    if given.gate == 'fixed' and not given.images:
        raise UserError('--gate=fixed needs --images: a folder, or a dataset such as set5, of what will be restored')
    for name in ('images', 'levels'):
        if given[name].value and given.gate != 'fixed':
            raise UserError(f'--{name} is of use with --gate=fixed alone')
    card = write_export(checkpoint, output, given.overwrite, given.which, given.images, given.levels, use)
    size = os.path.getsize(output) / 1e6
    origin = f'step {card["step"]}, weights {card["weights"]}'
    logging.info('%s, %s: %.2f MB in %s', checkpoint, origin, size, output)
    logging.info('its description: %s.json', output)


def _read_size(size: str | None) -> tuple[int, int, int]:
    if re.fullmatch(r'[1-9]\d*x[1-9]\d*x[1-9]\d*', size or '') is None:
        raise UserError(f'--compile_for and --platform need --size=BATCHxHEIGHTxWIDTH, such as 16x96x96, not {size}')
    batch, height, width = map(int, str(size).split('x'))
    return batch, height, width


def _read_use(platform: str | None, size: str | None, chips: str | None) -> Use | None:
    """What the flags ask to export for; None: for all."""
    if platform is None:
        if size is not None and chips is None:
            raise UserError(f'--size={size} is of use with --platform or --compile_for alone: sizes are open otherwise')
        return None
    if chips is not None and platform != find_platform(chips):
        raise UserError(f'--platform={platform} is not that of --compile_for={chips}: {find_platform(chips)}')
    return Use(platform, _read_size(size))


def _plan(model: str, which: str, chips: str, size: tuple[int, int, int], use: Use | None) -> None:
    """Print the plan of restoring for chips."""
    loaded = shipped.load_part(_find_part(model), which)
    network = build_network(loaded.config.model)
    found = plan_restoring(network, export_network(network, loaded.params, use), size, chips)
    streams.print_text(describe_restoring(found))


def _computes() -> bool:
    """Whether accelerators are used; from a plan they are hidden."""
    if flags.FLAGS.compile_for is not None:
        hide_accelerators()
    return flags.FLAGS.compile_for is None


if __name__ == '__main__':
    names = ', '.join(shipped.SHIPPED)
    flags.DEFINE_string('checkpoint', None, f'The folder of a training run or of one checkpoint, or one of: {names}.')
    flags.DEFINE_enum('which', 'best', WHICH, "Of a training run's checkpoints to take.")
    flags.DEFINE_string(
        'output',
        None,
        f'File to write, with the suffix of a format: {", ".join(EXPORT_FORMATS)}. Its description gets .json added.',
    )
    gate = 'own: gates choose for each input; fixed: their mean choice for --images, folded into plain convolutions.'
    flags.DEFINE_enum('gate', 'own', ['own', 'fixed'], gate)
    flags.DEFINE_string('images', None, 'Folder or dataset of clean images, for which gates are fixed.')
    flags.DEFINE_list('levels', [], 'Sigmas or JPEG qualities to fix gates for; default: config.evaluation.levels.')
    flags.DEFINE_bool('overwrite', False, 'Replace existing files.')
    flags.DEFINE_string(
        'compile_for', None, f'Chips to plan restoring for instead of writing a file: {EXAMPLES}. It needs --size.'
    )
    flags.DEFINE_string(
        'size', None, 'Batch, height and width of the input to plan or to write for, in pixels, such as 16x96x96.'
    )
    flags.DEFINE_enum(
        'platform', None, PLATFORMS, 'The one platform that .stablehlo is for, with --size; default: all, at all sizes.'
    )
    flags.mark_flag_as_required('checkpoint')
    flags.register_multi_flags_validator(
        ['output', 'compile_for'],
        lambda given: (given['output'] is None) != (given['compile_for'] is None),
        message='give --output=FILE to write, or --compile_for=CHIPS to plan',
    )
    command_line.run(main, _computes)
