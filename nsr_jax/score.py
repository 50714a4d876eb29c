"""Score images that any program has restored, by all protocols that fit.

    python -m nsr_jax.score swinir_x2/ Set5/HR --scale=2
    python -m nsr_jax.score denoised/ CBSD68/HR --protocol=denoise --metrics=psnr,ms_ssim --output=scores/ --report

The first folder holds the predictions, the second the true images, as PNG, JPEG, BMP, TIFF or WebP of 8 bits, without
transparency. They belong together by their names without extension; the names of all predictions may have the same
ending besides, such as _x2 or _SwinIR, and so may those of all true images, such as _HR.
"""

from nsr_jax import command_line, markdown, streams

# isort: split
import importlib
import itertools
import pathlib
import types
from collections.abc import Mapping, Sequence
from multiprocessing.pool import ThreadPool

from absl import flags, logging

from nsr_jax.atomic_files import make_output_folder
from nsr_jax.cpu_cores import count_cores
from nsr_jax.errors import UserError, listed
from nsr_jax.evaluation.folders import TRUTH_FOLDERS, find_refusals, match, read_pair
from nsr_jax.evaluation.protocols import score
from nsr_jax.evaluation.scores import Score, means
from nsr_jax.evaluation.tables import write_tables
from nsr_jax.images.reading import check_name
from nsr_jax.metrics import METRICS, Metric, find_metrics
from nsr_jax.pace import shown
from nsr_jax.paths import local_path
from nsr_jax.tasks import TASKS, Degradation, published_so_for
from nsr_jax.tasks.task import Protocol

ALL = 'all'
_HEAD = ['protocol', 'what it compares', 'published so for']


def choose_protocols(names: Sequence[str], scale: int) -> dict[str, tuple[Protocol, str]]:
    """The protocols of these names, or `ALL`, for images of this scale; each with its task's degradation in words.

    Raises:
        UserError: no name is given, one is unknown, or its task has no such scale.
    """
    fitting = {}
    for task in TASKS.values():
        if not task.scales or (1 in task.scales) == (scale == 1):
            degradation = task.name if task.check_level else str(Degradation(task.name, scale))
            fitting |= {protocol.name: (protocol, degradation) for protocol in task.protocols}
    for name in names or ['']:
        if name not in (ALL, *fitting):
            raise UserError(f'no protocol {name!r} for --scale={scale}: there are {", ".join((ALL, *fitting))}')
    return fitting if ALL in names else {name: fitting[name] for name in names}


def to_table(scores: Sequence[Score], protocols: Sequence[Protocol], metrics: Mapping[str, Metric]) -> str:
    """The means of one model on one dataset as Markdown, with what each protocol compares and whose papers use it."""
    rows = []
    for mean, protocol in zip(means(scores), protocols, strict=True):
        published = ', '.join(published_so_for(protocol.name)) or '–'
        numbers = [metric.text(mean.values[name]) for name, metric in metrics.items()]
        rows.append([protocol.name, protocol.description, published, *numbers])
    return markdown.table([*_HEAD, *(metric.heading for metric in metrics.values())], rows, left=len(_HEAD))


def _name(folder: str) -> str:
    path = pathlib.Path(folder).resolve()
    path = path.parent if path.name.lower() in TRUTH_FOLDERS else path  # the folder above has the dataset's name
    check_name(path.name, path.parent)
    return path.name


def _load_report() -> types.ModuleType:
    try:
        return importlib.import_module('nsr_jax.evaluation.report')
    except ImportError as error:
        raise UserError(f'--report needs an extra: pip install nsr-jax[evaluate] ({error})') from error


def main(argv: Sequence[str]) -> None:
    """Check the flags and all images, then score them."""
    asked = flags.FLAGS
    if len(argv) != 3:
        raise UserError(f'two folders are needed, PREDICTIONS and TRUTH, not {" ".join(argv[1:]) or "none"}')
    if asked.report and asked.output is None:
        raise UserError('--report needs --output=FOLDER, where it is written')
    predictions, truths = (local_path(path, 'a folder') for path in argv[1:])
    metrics, scale, report = find_metrics(asked.metrics), asked.scale, _load_report() if asked.report else None
    chosen = choose_protocols(asked.protocol, scale)
    (pairs, ending, truth_ending), model, dataset = match(predictions, truths), _name(predictions), _name(truths)
    if truth_ending:
        logging.info('names end in %r, those of true images in %r, and are the same before', ending, truth_ending)
    refusals = find_refusals(pairs, [protocol for protocol, _ in chosen.values()], scale, metrics)
    if refusals and (ALL not in asked.protocol or len(refusals) == len(chosen)):
        raise UserError(listed([*itertools.chain(*refusals.values())], 'predictions do not fit a protocol'))
    for name, reasons in refusals.items():
        logging.info('not scored by %s, which does not fit %d images: %s', name, len(reasons), reasons[0])
        del chosen[name]
    output = asked.output and make_output_folder(local_path(asked.output, '--output'))

    def score_pair(paths: tuple[pathlib.Path, pathlib.Path]) -> list[Score]:
        given, hr = read_pair(*paths, scale)
        known, scores = {}, []
        for protocol, degradation in chosen.values():
            compares = protocol.truth, protocol.compared, protocol.shave(scale)
            if compares not in known:  # protocols may differ in the network's input alone
                known[compares] = score(protocol, given / 255, hr, scale, metrics)
            scores.append(Score(dataset, degradation, model, protocol.name, paths[1].name, known[compares]))
        return scores

    with ThreadPool(count_cores()) as threads:
        scored = shown(threads.imap(score_pair, pairs), f'{model} on {dataset}', len(pairs))
        scores = [each for of_image in scored for each in of_image]
    if output:
        about = {'predictions': predictions, 'ending': ending, 'truth_ending': truth_ending}
        write_tables(output, scores, {model: about})
        if report:
            report.write_report(output, f'Scores of {model}', scores, [], {})
        logging.info('written to %s', output)
    logging.info(
        '%s on %s, means of %d images; what they were restored from is not checked', model, dataset, len(pairs)
    )
    streams.print_text(to_table(scores, [protocol for protocol, _ in chosen.values()], metrics))


def define_flags() -> None:
    """Define the command's flags."""
    flags.DEFINE_list('protocol', [ALL], 'One or more protocols; all: every one that fits.')
    flags.DEFINE_integer('scale', 1, 'Of super-resolution: 2, 3, 4, …; 1 for other tasks.', lower_bound=1)
    flags.DEFINE_list('metrics', ['psnr', 'ssim'], f'One or more of {", ".join(METRICS)}.')
    flags.DEFINE_string('output', None, 'Folder for scores.{json,csv,md} and index.html.')
    flags.DEFINE_bool('report', False, 'Write index.html, an offline page of tables.')


def start() -> None:
    """Run the command; the entry point of `nsr-score`."""
    define_flags()
    command_line.describe(__name__)
    command_line.run(main, computes=lambda: False)


if __name__ == '__main__':
    start()
