"""Images to restore, a network that does it, and what was written."""

import jax
import ml_collections
import numpy as np
import PIL.Image

from nsr_jax.models.cost import parameter_shapes
from nsr_jax.models.residual import RestorationNetwork
from nsr_jax.training.checkpoints import save_model

MODEL = {
    'scale': 2, 'channels': 3, 'num_blocks': 1, 'features': 4, 'width_multiplier': 1, 'groups': 2, 'cardinality': 2,
    'gate': 'softmax',
}  # fmt: skip


def random_parameters(network):
    generator = np.random.RandomState(5)
    return jax.tree.map(lambda leaf: generator.normal(0, 0.3, leaf.shape).astype(np.float32), parameter_shapes(network))


def save(folder, task='sr', **changes):
    config = ml_collections.ConfigDict({'task': task, 'model': MODEL | changes})
    save_model(folder, random_parameters(RestorationNetwork(**config.model.to_dict())), config)
    return folder


def write(path, shape=(7, 9, 3), seed=0, **options):
    pixels = np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)
    path.parent.mkdir(exist_ok=True, parents=True)
    PIL.Image.fromarray(pixels).save(path, **options)
    return pixels


def names_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file())
