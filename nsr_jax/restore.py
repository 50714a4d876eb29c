"""Restore images: enlarge them, remove noise or JPEG artifacts.

    python -m nsr_jax.restore photo.jpg scans/ --output=out/ --task=sr --scale=2
    python -m nsr_jax.restore 'scans/**/*.tif' --output=out/ --task=denoise --format=png
    python -m nsr_jax.restore photo.jpg --output=large.png --scale=2
    python -m nsr_jax.restore - --output=- --model=runs/x2 < photo.png > large.png
    python -m nsr_jax.restore --serve --task=sr --scale=2

Weights for these tasks come with the package (`--models` lists them); `--model` takes the name of one of them, or the
folder of a network of your own. An image keeps its name, and its format unless there is a `--format`. Images that are
in the output folder already are not restored again. `--serve` opens a page onto which images are dropped instead.
"""

from nsr_jax import environment  # noqa: F401  before whatever imports JAX

# isort: split
import os
import pathlib
import sys
import time
from collections.abc import Sequence

import jax
from absl import flags, logging

from nsr_jax import agreement, command_line, shipped, streams
from nsr_jax.atomic_files import make_output_folder
from nsr_jax.errors import UserError, printable
from nsr_jax.images.formats import FORMATS, check_quality, check_quality_of_any, suffix_of
from nsr_jax.images.reading import LARGEST_PIXELS
from nsr_jax.images.writing import JPEG_QUALITY
from nsr_jax.inference.devices import find_devices
from nsr_jax.inference.restorer import TILE, Restorer, make_tiling
from nsr_jax.models.build import COMPUTE_DTYPES
from nsr_jax.paths import is_folder_here, local_path
from nsr_jax.restoring.before_after import write_comparison
from nsr_jax.restoring.plan import STANDARD, Job, is_file, plan
from nsr_jax.restoring.restore_files import restore_files
from nsr_jax.restoring.serve import Limits, Server, is_loopback
from nsr_jax.restoring.workload import describe_work
from nsr_jax.trained import WHICH, fingerprint

EXIT_SOME_FAILED = 1
PAGE = 'compare.html'
SERVED_PIXELS = 25_000_000  # of an image that is sent to a server
OF_FILES = ('output', 'suffix', 'dry_run', 'recursive', 'overwrite', 'compare')  # flags that do not fit --serve
OF_SERVER = ('host', 'port', 'serve_as', 'largest_upload', 'queue')  # flags that need it
TASKS = list(dict.fromkeys(task for task, _, _ in shipped.SHIPPED.values()))


def choose_model(model: str | None, task: str | None, scale: int | None) -> str:
    """The name or folder for `Restorer.load` that `--model`, `--task` and `--scale` stand for; loads nothing.

    Raises:
        UserError: they are not enough, contradict one another, or there is no such model.
    """
    if model is None:
        if task is None and scale is None:
            raise UserError('say what to do: --task=sr with a --scale, --task=denoise, --task=jpeg, or a --model')
        task = task or 'sr'
        if task == 'sr' and scale is None:
            raise UserError('--task=sr needs a --scale: 2, 3 or 4')
        if task != 'sr' and scale not in (None, 1):
            raise UserError(f'--task={task} keeps the size: --scale={scale} does not fit')
        model = f'sr_x{scale}' if task == 'sr' else task
        if task == 'sr':
            shipped.find_shipped(model)
        if is_folder_here(model):  # which was not named, so there is nothing to refuse
            model = model.upper()
    for part in shipped.find_parts(model):
        if part in shipped.SHIPPED:
            check_model(model, *shipped.SHIPPED[part][:2], task, scale)
    return model


def check_model(model: str, its_task: str, its_scale: int, task: str | None, scale: int | None) -> None:
    """Raise `UserError` if a model's task or scale is not that of `--task` and `--scale`."""
    if task not in (None, its_task):
        raise UserError(f'--model={model} is for --task={its_task}, not {task}')
    if scale not in (None, its_scale):
        raise UserError(f'--model={model} has scale {its_scale}, not {scale}')


def list_models() -> str:
    """The networks that come with the package, with their scores and terms, as text."""
    cards = [shipped.read_card(name) for name in shipped.shipped_names()]
    if not cards:
        raise UserError('no weights come with this package')
    text = ''
    for card in cards:
        about = [f'{card.size / 1e6:.2f} MB, {card.origin} on {card.data}', *card.score_lines, card.terms]
        text += f'{card.name}: {card.title}\n' + ''.join(f'    {line}\n' for line in about)
    return text


def find_jobs(inputs: Sequence[str], output: str, suffix: str | None) -> tuple[list[Job], list[Job]]:
    """All jobs, and those still to do, as the first process finds them, so that all processes do the same.

    Raises:
        UserError: as in `plan`.
    """

    def look() -> list[tuple]:
        given = flags.FLAGS
        jobs = plan(inputs, output, suffix=suffix, ending=given.suffix, recursive=given.recursive)
        return [(*(path and os.fspath(path) for path in job), given.overwrite or not job.is_done) for job in jobs]

    jobs, waiting = [], []
    for *paths, waits in agreement.by_first(look):
        job = Job(*(path and pathlib.Path(path) for path in paths))
        jobs.append(job)
        if waits:
            waiting.append(job)
    return jobs, waiting


def list_jobs(jobs: Sequence[Job], waiting: Sequence[Job]) -> str:
    """A line for each image: what it becomes, and whether that is there already."""
    lines = []
    for job in jobs:
        target = 'standard output' if job.target is None else job.target
        lines.append(f'{job} -> {target}' + ('' if job in waiting else ' (already there)'))
    return ''.join(f'{printable(line)}\n' for line in lines)


def main(argv: Sequence[str]) -> int:
    """Command line: check all options, then restore."""
    given = flags.FLAGS
    if given.models:
        if agreement.is_first():
            streams.print_text(list_models())
        return 0
    if given.serve:
        return serve(argv)
    if unused := [name for name in OF_SERVER if given[name].present]:
        raise UserError(f'--{unused[0]} is of use with --serve alone')
    if given.output is None:
        raise UserError('give --output=FOLDER for the restored images, or --output=- for standard output')
    form, output = given.format and given.format.upper(), local_path(given.output, '--output')
    inputs = [local_path(each, 'an input') for each in argv[1:]]
    with agreement.agreed():
        model = choose_model(given.model, given.task, given.scale)
        tiling = make_tiling(given.tile)
        find_devices(given.device)
    jobs, waiting = find_jobs(inputs, output, form and suffix_of(form))
    # Without --format, standard output may turn out to be a JPEG.
    check_quality_of_any({form or job.format or 'JPEG' for job in jobs}, given.quality)
    uses_standard = any(None in job for job in jobs)
    writes_one = is_file(inputs, output)
    if given.compare and (uses_standard or writes_one):
        raise UserError('--compare needs files as input and a folder as --output')
    if jax.process_count() > 1 and uses_standard:
        raise UserError('several processes need files as input and a folder as --output')
    largest_pixels = given.largest_pixels or LARGEST_PIXELS
    work = describe_work(jobs, waiting, tiling, largest_pixels) if agreement.is_first() else ''
    if given.dry_run:
        if agreement.is_first():
            streams.print_text(list_jobs(jobs, waiting))
            logging.info(work)
        return 0
    if output == STANDARD and sys.stdout.isatty():
        raise UserError('standard output is a terminal: send it to a file or a program, or give a folder as --output')
    if any(job.source is None for job in jobs) and sys.stdin.isatty():
        raise UserError('standard input is a terminal: send an image there, or name a file')
    with agreement.agreed():
        restorer = load(model)
    agreement.check_alike({'weights': [fingerprint(params) for _, params in restorer.networks]})
    if output != STANDARD:
        folder = pathlib.Path(output).parent if writes_one else output
        agreement.by_first(lambda: os.fspath(make_output_folder(folder)))

    logging.info('%s: %s', model, work)
    if len(waiting) < len(jobs):
        logging.info('%d of them are already in %s; --overwrite replaces them', len(jobs) - len(waiting), output)
    started = time.monotonic()
    reading = {'largest_pixels': largest_pixels}
    failed, megapixels = restore_files(waiting, restorer, output_format=form, quality=given.quality, **reading)
    done, seconds = len(waiting) - len(failed), time.monotonic() - started
    speed = f'{seconds:.1f} s, {megapixels / seconds:.3g} megapixels of output a second'
    logging.info('%d of %d images restored to %s: %s', done, len(waiting), output, speed)
    if given.compare:
        shown = [job for job in jobs if job not in failed]
        page, largest = pathlib.Path(output) / PAGE, largest_pixels * restorer.scale**2
        number = agreement.by_first(lambda: write_comparison(page, shown, f'Restored by {model}', largest))
        logging.info('%s shows %d of %d images before and after', page, number, len(shown))
    return EXIT_SOME_FAILED if failed else 0


def load(model: str) -> Restorer:
    """Load a model with the options of the command line; raises `UserError` if it is for another task or scale."""
    given = flags.FLAGS
    options = {'tile': given.tile, 'ensemble': given.ensemble, 'dtype': given.dtype, 'device': given.device}
    restorer = Restorer.load(model, which=given.which, **options)
    check_model(model, restorer.task, restorer.scale, given.task, given.scale)
    return restorer


def serve(argv: Sequence[str]) -> int:
    """Restore what clients send, until a signal ends it."""
    given = flags.FLAGS
    if asked := [*argv[1:], *(f'--{name}' for name in OF_FILES if given[name].present)]:
        raise UserError(f'--serve restores what is sent to it: {asked[0]} does not fit')
    if jax.process_count() > 1:
        raise UserError('--serve is for one process')
    form = given.format and given.format.upper()
    check_quality(form or 'JPEG', given.quality)
    model = choose_model(given.model, given.task, given.scale)
    limits = Limits(given.largest_upload, given.largest_pixels or SERVED_PIXELS, given.queue)
    options = {'names': given.serve_as, 'output_format': form, 'quality': given.quality}
    title = f'Restore images by {model}'
    server = Server(load(model), title=title, host=given.host, port=given.port, limits=limits, **options)
    if not is_loopback(given.host):
        logging.warning('whoever reaches %s over a network may use this server', server.url)
    logging.info('%s restores by %s; Ctrl-C ends it', server.url, model)
    server.run()
    logging.info('ended')
    return 0


def define_flags() -> None:
    """Define the command's flags."""
    names = ', '.join(shipped.SHIPPED)
    flags.DEFINE_string('output', None, 'Folder for the restored images; a file, for one input; - for standard output.')
    flags.DEFINE_string('suffix', '', 'Added to the names of the outputs, before the extension: _x2.')
    flags.DEFINE_bool('dry_run', False, 'Only list which image would become which file.')
    flags.DEFINE_enum('task', None, TASKS, 'What to do, with weights that come with the package.')
    flags.DEFINE_integer('scale', None, 'Size of the output over size of the input, for --task=sr.', lower_bound=1)
    flags.DEFINE_string('model', None, f'Instead of a task: {names}; or the folder of a training run or checkpoint.')
    flags.DEFINE_enum('which', 'best', WHICH, "Of a training run's checkpoints to take as --model.")
    flags.DEFINE_bool('models', False, 'Only list the weights that come with the package, with their scores.')
    flags.DEFINE_bool('recursive', False, 'Restore images in subfolders, too.')
    flags.DEFINE_bool('overwrite', False, 'Restore images again that are already in the output folder.')
    flags.DEFINE_enum('format', None, FORMATS, "Of the outputs; default: each input's own.", case_sensitive=False)
    flags.DEFINE_integer('quality', None, f'Of JPEG and WebP, 1 to 100; default: JPEG {JPEG_QUALITY}, lossless WebP.')
    flags.DEFINE_bool('compare', False, f'Write {PAGE}, which shows images before and after, into the output folder.')
    flags.DEFINE_bool('ensemble', False, 'Average over eight flips and transposes: a bit better, 8 times slower.')
    flags.DEFINE_integer('tile', TILE, 'Side of the tiles that a network sees at once, in input pixels.', lower_bound=2)
    flags.DEFINE_enum('dtype', 'float32', list(COMPUTE_DTYPES), 'Of the convolutions.')
    flags.DEFINE_string('device', None, "cpu, gpu or tpu, for all devices of a kind; default: JAX's choice.")
    limits = f'default: {LARGEST_PIXELS:,}, and {SERVED_PIXELS:,} with --serve'
    flags.DEFINE_integer('largest_pixels', None, f'Refuse larger images; {limits}.', lower_bound=1)
    flags.DEFINE_bool('serve', False, 'Instead of files, restore what browsers and programs of this machine send.')
    flags.DEFINE_string('host', '127.0.0.1', 'Address at which --serve listens.')
    flags.DEFINE_integer('port', 8000, 'Port at which --serve listens; 0: any.', lower_bound=0, upper_bound=2**16 - 1)
    flags.DEFINE_list('serve_as', [], 'Names of this machine that clients of --serve may use beside localhost.')
    flags.DEFINE_integer('largest_upload', 64, 'Megabytes of a file that --serve accepts.', lower_bound=1)
    flags.DEFINE_integer('queue', 8, 'Images that may wait while --serve restores another one.', lower_bound=0)


def start() -> None:
    """Run the command; the entry point of `nsr-restore`."""
    define_flags()
    command_line.describe(__name__)
    command_line.run(main)


if __name__ == '__main__':
    start()
