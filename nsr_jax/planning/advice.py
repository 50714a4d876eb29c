"""What to change in a config that does not fit on a chip."""

from collections.abc import Mapping

import ml_collections

_WORTH_CHANGING = 0.05  # of the memory


def find_advice(memory: Mapping[str, float], config: ml_collections.ConfigDict, devices: int) -> list[str]:
    """What would take less memory, the largest part first; nothing if there is room.

    Args:
        memory: bytes by part, as in a plan; without 'temporaries' and 'peak' if the compiler did not get that far.
        config: of the planned run.
        devices: of the mesh.
    """
    available = memory['available']
    if memory.get('peak', available + 1) <= available:
        return []
    known = sum(memory[part] for part in ('parameters', 'optimizer_and_averages', 'images'))
    samples = config.microbatch_size or config.batch_size // devices
    found = []
    if config.data.resident_megabytes:
        text = '--config.data.resident_megabytes=0 streams the images from a file'
        found.append((memory['images'], text))
    activations = memory.get('temporaries', max(available - known, 0))
    if samples > 1:
        text = f'--config.microbatch_size={samples // 2 if samples % 2 == 0 else 1} computes fewer samples at once'
        found.append((activations, text))
    if not config.remat and config.model.get('architecture', 'residual') == 'residual':
        found.append((activations, '--config.remat=true computes each block again instead of keeping what is in it'))
    if config.batch_size > devices:
        found.append((activations, f'a --config.batch_size below {config.batch_size}, or more devices'))
    if config.mesh.fsdp < devices:
        text = f'--config.mesh.fsdp={devices} splits parameters and moments among the devices'
        found.append((memory['parameters'] + memory['optimizer_and_averages'], text))
    worth = [each for each in found if each[0] > _WORTH_CHANGING * available] or found
    return [text for _, text in sorted(worth, key=lambda each: -each[0])]
