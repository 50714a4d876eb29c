"""Put the weights of a checkpoint into the package, with a card that describes their origin.

    python eval.py --config=configs/shipped.py:model=sr_x2 --checkpoint=runs/sr_x2 --datasets=set5,set14,bsd100 \\
        --baselines=bicubic --output=runs/sr_x2/eval
    python -m nsr_jax.package_weights --checkpoint=runs/sr_x2 --name=sr_x2 --scores=runs/sr_x2/eval/scores.json \\
        --hardware='2 CPU cores (Intel Xeon), 40 minutes'
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
from absl import flags, logging

from nsr_jax import command_line, shipped
from nsr_jax.atomic_files import make_output_folder, write_atomically
from nsr_jax.errors import UserError
from nsr_jax.evaluation.cells import digest_weights, name_in_tables
from nsr_jax.evaluation.scores import means
from nsr_jax.evaluation.tables import from_json, read_models, to_record
from nsr_jax.models.build import build_network
from nsr_jax.models.cost import count_parameters
from nsr_jax.paths import local_path
from nsr_jax.trained import load_model

_BSDS500 = (
    '399 photographs of BSDS500: its train and test splits without one image that Set5 holds too; its val split, '
    'which holds BSD100, BSD68 and CBSD68, was not seen',
    'The training images are BSDS500 (UC Berkeley), whose terms are non-commercial research and education; '
    'the weights hold none of them. For other uses, train on images whose terms allow it.',
)
# By config.data.source: the images, and the terms of weights that are trained on them.
TRAINING_DATA = {
    'bsds500': _BSDS500,
    'bsds400': _BSDS500,  # the same images, by a list of their names
    't91_bsds200': (
        "289 images, VDSR's and DRRN's 291 without two: 90 of the 91 of Yang et al. (T91, without t20, which is too "
        'small for the patches) and 199 photographs of BSDS500, its train split without one image that Set5 holds too; '
        'its val split, which holds BSD100, was not seen',
        'Of the training images those of BSDS500 (UC Berkeley) come for non-commercial research and education, those '
        'of T91 (Yang et al., 2010) for research, without a stated licence; the weights hold none of them. For other '
        'uses, train on images whose terms allow it.',
    ),
    'train400': (
        "400 gray images of 180x180 pixels, DnCNN's own training set (Zhang et al., 2017); one of them, test_135, "
        'comes from a photograph that Set5 holds too, none from Set12 or BSD68',
        "The training images come without a stated licence of their own. One comes from BSDS500's 302003 for certain, "
        'and the terms of BSDS500 (UC Berkeley) are non-commercial research and education; the weights hold none of '
        'them. For other uses, train on images whose terms allow it.',
    ),
}


def package_weights(
    checkpoint: str | pathlib.Path, name: str, scores: Sequence[str | pathlib.Path], hardware: str, training: str
) -> shipped.Card:
    """Write NAME.safetensors and NAME.json into the package, and update README.md; returns the card.

    Args:
        checkpoint: the folder of a training run or of one checkpoint.
        name: one of `shipped.SHIPPED`.
        scores: scores.json files of eval.py, of this checkpoint and of baselines.
        hardware: on which it was trained.
        training: the command that trains it.

    Raises:
        UserError: the name is unknown; the checkpoint has another task, scale or number of channels; its training data
            are not in `TRAINING_DATA`; the scores are of other weights; or float16 cannot hold the parameters.
    """
    if name not in shipped.SHIPPED:
        raise UserError(f'unknown name {name!r}: one of {", ".join(shipped.SHIPPED)}')
    model = load_model(checkpoint)
    network = build_network(model.config.model)
    found = model.config.task, network.scale, network.channels
    if found != shipped.SHIPPED[name]:
        raise UserError(f'{model.path} is of task, scale and channels {found}; {name} is of {shipped.SHIPPED[name]}')
    data = model.config.get('data')
    source = data.get('source') if isinstance(data, ml_collections.ConfigDict) else None
    if source not in TRAINING_DATA:
        raise UserError(f'no terms are known for weights trained on {source!r}, only for {", ".join(TRAINING_DATA)}')
    contents = shipped.pack(model.params)
    card = shipped.Card(
        name=name,
        config=json.loads(model.config.to_json()),
        step=model.step,
        parameters=count_parameters(network),
        sha256=hashlib.sha256(contents).hexdigest(),
        data=TRAINING_DATA[source][0],
        terms=TRAINING_DATA[source][1],
        hardware=hardware,
        command=training,
        kind=model.kind,
        scores=[score for path in scores for score in _read_scores(pathlib.Path(path), name, model.params)],
    )
    folder = make_output_folder(shipped.FOLDER)
    write_atomically(folder / f'{name}.safetensors', contents)
    write_atomically(folder / f'{name}.json', json.dumps(dataclasses.asdict(card), indent=1, allow_nan=False) + '\n')
    write_atomically(folder / 'README.md', to_markdown([shipped.read_card(each) for each in shipped.shipped_names()]))
    return card


def _read_scores(path: pathlib.Path, name: str, params: Mapping[str, Any]) -> list[dict[str, str | int | float]]:
    """Records of the means in a scores.json, under the shipped name of the network.

    Raises:
        UserError: the file cannot be read, or holds scores of other weights.
    """
    try:
        text = path.read_text(encoding='utf-8')
        models, found = read_models(text), means(from_json(text))
    except (OSError, UnicodeDecodeError, UserError) as error:
        raise UserError(f'{path}: {error}') from error
    records, weights_here = [], digest_weights(params)
    for mean in found:
        applied = models.get(mean.model)
        if applied is None or applied.get('weights', weights_here) != weights_here:
            raise UserError(f'{path}: scores of {mean.model}, not of the weights of the checkpoint')
        way = {key: applied[key] for key in ('tiling', 'ensemble') if key in applied}
        if way:
            mean = dataclasses.replace(mean, model=name_in_tables(name, **way))
        records.append(to_record(mean) | way)
    return records


def to_markdown(cards: Sequence[shipped.Card]) -> str:
    """All cards as a Markdown page."""
    parts = [
        '# Weights that come with the package\n\n'
        'Parameters in float16, as safetensors; made and described by `python -m nsr_jax.package_weights`. The JSON '
        'file beside each holds its whole config, its checksum and its scores.\n'
    ]
    for card in cards:
        about = {
            'does': card.title,
            'size': f'{card.parameters:,} parameters, {card.size / 1e6:.2f} MB',
            'trained': f'{card.origin} of {card.config["batch_size"]} patches on {card.hardware}',
            'training data': card.data,
            'terms': card.terms,
            'command': f'`{card.command}`',
            'SHA-256': f'`{card.sha256}`',
        }
        parts.append(f'\n## {card.name}\n\n' + ''.join(f'- {key}: {value}\n' for key, value in about.items()))
        parts.append(''.join(f'- {line}\n' for line in card.score_lines))
    return ''.join(parts)


def main(argv: Sequence[str]) -> None:
    """Command line: `--checkpoint`, `--name`, `--scores` and `--hardware`."""
    if argv[1:]:
        raise UserError(f'unexpected argument {argv[1]!r}: options start with --')
    given = flags.FLAGS
    training = f'python train.py --config=configs/shipped.py:model={given.name} --workdir=runs/{given.name}'
    scores = [local_path(path, '--scores') for path in given.scores]
    card = package_weights(given.checkpoint, given.name, scores, given.hardware, given.command or training)
    logging.info('%s, %s, in %s (%.2f MB)', card.name, card.origin, shipped.FOLDER, card.size / 1e6)


if __name__ == '__main__':
    flags.DEFINE_string('checkpoint', None, "A training run's workdir, or one checkpoint.")
    flags.DEFINE_string('name', None, f'Name of the weights: {", ".join(shipped.SHIPPED)}.')
    flags.DEFINE_list('scores', None, 'One or more scores.json of eval.py.')
    flags.DEFINE_string('hardware', None, 'Hardware and duration of the training.')
    flags.DEFINE_string('command', None, 'Command of the training; default: train.py with configs/shipped.py.')
    flags.mark_flags_as_required(['checkpoint', 'name', 'scores', 'hardware'])
    command_line.run(main)
