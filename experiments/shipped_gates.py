"""Measure what the gates of the networks in the package are worth, and write it into docs/results.md.

    NSR_DATA_DIR=... python -m experiments.shipped_gates

Each network is scored on its held-out training images as it is, with uniform gates, and with hard ones. The numbers are
kept in experiments/shipped_gates.json, by which the page of results is written; networks whose weights have been
measured are left out.
"""

# isort: split
import json
from collections.abc import Sequence
from typing import Any

from absl import logging

from configs.shipped import get_config
from experiments import page, same_data
from nsr_jax import command_line, shipped
from nsr_jax.atomic_files import write_atomically
from nsr_jax.errors import UserError
from nsr_jax.evaluation.validation import open_validation
from nsr_jax.studies.gates_worth import REPLACEMENTS, measure_gates


def measure(name: str) -> dict[str, Any]:
    """The record of a network in the package: a row of the table in docs/results.md.

    Returns:
        'sha256': of its weights; 'score': the score's name, as in 'sr-y/x2/psnr'; 'own', 'uniform', 'hard': that score
        in dB, with each kind of gates; 'entropy', 'deviation': as in `gate_statistics`.

    Raises:
        UserError: its training images are not there.
    """
    model = shipped.load_shipped(name)
    config = get_config(f'model={name}').copy_and_resolve_references()
    config.validation.samples, config.evaluation.metrics = 0, config.validation.metric
    validation = open_validation(config)
    found = measure_gates(config, model.params)
    if validation is None or not found:
        raise UserError(f'{name} has no gates or no validation images: there is nothing to measure')
    _, scores = validation.evaluate(model.params)
    score = next(each.partition('/')[2] for each in scores if each.startswith('validation/'))  # of the first level
    return {
        'sha256': shipped.read_card(name).sha256,
        'score': score,
        'own': scores[f'validation/{score}'],
        **{gate: found[f'{gate}/{score}'] for gate in REPLACEMENTS},
        **{each: found[f'gates/{each}'] for each in ('entropy', 'deviation')},
    }


def main(argv: Sequence[str]) -> None:
    """Measure the networks whose weights are new, and write the page."""
    del argv
    records = page.read_gates()
    for name in shipped.shipped_names():
        if records.get(name, {}).get('sha256') != shipped.read_card(name).sha256:
            records[name] = measure(name)
            logging.info('%s: %s', name, records[name])
            write_atomically(page.GATES, json.dumps(records, indent=1) + '\n')
    page.write(same_data.read_records())


if __name__ == '__main__':
    command_line.run(main)
