"""A synthetic task: images that a Gaussian kernel has blurred are made sharp again."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jax import lax

from nsr_jax.errors import UserError
from nsr_jax.tasks import TASKS
from nsr_jax.tasks.task import Protocol, Task

RADIUS = 3


def weights(sigma):
    """The kernel along one axis."""
    distances = np.arange(-RADIUS, RADIUS + 1)
    window = np.exp(-0.5 * np.square(distances / sigma))
    return (window / window.sum()).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Blur:
    """A blur of one standard deviation, in pixels."""

    sigma: float

    def region_size(self, patch_size, channels):
        """The patch and what is blurred into it."""
        return patch_size + 2 * RADIUS

    def __call__(self, key, region, patch_size):
        """Input and target of a sample."""
        clean = region.astype(jnp.float32) / 255
        blurred = clean.transpose(2, 0, 1)[:, None]
        for shape in ((1, 1, -1, 1), (1, 1, 1, -1)):
            blurred = lax.conv(blurred, jnp.asarray(weights(self.sigma)).reshape(shape), (1, 1), 'VALID')
        inside = slice(RADIUS, RADIUS + patch_size)
        return blurred[:, 0].transpose(1, 2, 0), clean[inside, inside]


def check_level(sigma):
    """Refuse what is no blur."""
    if not 0 < sigma < RADIUS:
        raise UserError(f'blur must be above 0 and below {RADIUS} pixels, not {sigma}')


def blurred(example, sigma):
    """The test input."""
    image = example.hr.astype(np.float32) / 255
    for axis in (0, 1):
        width = [(RADIUS, RADIUS) if each == axis else (0, 0) for each in range(3)]
        padded = np.pad(image, width, mode='edge')
        image = sum(
            weight * np.take(padded, np.arange(shift, shift + image.shape[axis]), axis)
            for shift, weight in enumerate(weights(sigma))
        )
    return image


TASKS['deblur'] = Task(
    name='deblur',
    protocols=(Protocol('deblur', 'all channels with one MSE, no shave; blurred by a Gaussian kernel', blurred),),
    corruption=lambda options: Blur(options['blur']),
    check_level=check_level,
    label=lambda sigma: f'blur {sigma:g}',
)
