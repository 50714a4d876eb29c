"""Write a network that comes with the package as a folder that can be pushed to a model hub.

    python -m nsr_jax.hub_folder --name=sr_x2 --output=hub/sr_x2

The folder holds README.md, the model card with the metadata that hubs read, model.safetensors and config.json.
`Restorer.load` and `nsr-restore --model` take such a folder, also one that was downloaded.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import flags, logging

from nsr_jax import command_line, shipped
from nsr_jax.atomic_files import make_output_folder, write_atomically
from nsr_jax.errors import UserError
from nsr_jax.metrics import METRICS
from nsr_jax.paths import local_path

# What hubs call the tasks.
_TAGS = {'sr': 'super-resolution', 'denoise': 'denoising', 'jpeg': 'jpeg-artifact-removal'}


def write_hub_folder(name: str, folder: pathlib.Path) -> None:
    """Write README.md, model.safetensors and config.json of a shipped network.

    Args:
        name: in `shipped.SHIPPED`.
        folder: is made if it is missing; other files in it stay.

    Raises:
        UserError: there is no such network, its files are damaged, or the folder cannot be written into.
    """
    model, card = shipped.load_shipped(name), shipped.read_card(name)
    make_output_folder(folder)
    write_atomically(folder / shipped.HUB_WEIGHTS, model.path.read_bytes())
    write_atomically(folder / shipped.HUB_CARD, model.path.with_suffix('.json').read_bytes())
    write_atomically(folder / 'README.md', to_readme(card))


def to_readme(card: shipped.Card) -> str:
    """A model card: metadata between two lines of dashes, in YAML, whose values are written as JSON; then the text."""
    metadata = ''.join(f'{key}: {json.dumps(value)}\n' for key, value in _metadata(card).items())
    rows = ''.join(f'- {line}\n' for line in card.score_lines)
    return f"""---
{metadata}---

# {card.name}

{card.title.capitalize()}. A network of neural sparse representation
([Fan et al., NeurIPS 2020](https://arxiv.org/abs/2006.04357)) with {card.parameters:,} parameters in float16.

```python
from nsr_jax import Restorer

model = Restorer.load('FOLDER')  # where this repository was downloaded to
output = model(image)  # uint8, uint16 or float; (H, W) or (H, W, C)
```

## Training

- {card.origin} of {card.config['batch_size']} patches on {card.hardware}
- images: {card.data}
- `{card.command}`

## Scores

PSNR in dB and SSIM; each protocol is described in docs/evaluation.md of the package.

{rows}
## Terms

{card.terms}
"""


def _metadata(card: shipped.Card) -> dict[str, Any]:
    task = card.config['task']
    results = [
        {
            'task': {'type': 'image-to-image', 'name': card.title},
            'dataset': {
                'type': score['dataset'].lower(),
                'name': f'{score["dataset"]}, {score["degradation"]}, protocol {score["protocol"]}',
            },
            'metrics': [{'type': name, 'value': score[name]} for name in METRICS if name in score],
        }
        for score in card.scores
        if 'tiling' in score or score['model'].startswith(card.name)  # not those of its input
    ]
    return {
        'library_name': 'nsr_jax',
        'license': 'other',
        'license_name': 'apache-2.0-with-terms-of-the-training-images',
        'license_link': 'README.md#terms',
        'pipeline_tag': 'image-to-image',
        'tags': ['image-restoration', _TAGS[task], 'jax', 'flax'],
        'datasets': [card.config['data']['source']],
        'metrics': [name for name in METRICS if any(name in score for score in card.scores)],
        'model-index': [{'name': card.name, 'results': results}],
    }


def main(argv: Sequence[str]) -> None:
    """Command line: `--name` and `--output`."""
    if argv[1:]:
        raise UserError(f'unexpected argument {argv[1]!r}: options start with --')
    folder = pathlib.Path(local_path(flags.FLAGS.output, '--output'))
    write_hub_folder(shipped.find_shipped(flags.FLAGS.name), folder)
    logging.info('written to %s', folder)


if __name__ == '__main__':
    flags.DEFINE_string('name', None, f'Of the network: {", ".join(shipped.SHIPPED)}.')
    flags.DEFINE_string('output', None, 'Folder for README.md, model.safetensors and config.json.')
    flags.mark_flags_as_required(['name', 'output'])
    command_line.run(main)
