import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from nsr_jax.errors import UserError
from nsr_jax.models.residual import RestorationNetwork
from nsr_jax.optimizers import adam
from nsr_jax.training.sharding import make_mesh, state_shardings
from nsr_jax.training.state import create_state


def test_state_is_a_function_of_the_seed():
    network = RestorationNetwork(scale=2, channels=3, num_blocks=1, features=8, groups=2, cardinality=4)
    mesh = make_mesh(data=-1, fsdp=1, batch_size=4)
    first, again, other = (create_state(network, adam(lambda step: 1e-3), mesh, seed).params for seed in (0, 0, 1))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), first, again))
    assert not bool((first['head']['direction'] == other['head']['direction']).any())


@pytest.mark.parametrize(
    ('data', 'fsdp', 'batch_size', 'message'),
    [
        (3, 1, 4, 'needs 3 devices, there are 1'),
        (-1, 2, 4, 'needs 2 devices, there are 1'),
        (0, 1, 4, 'sizes must be from 1'),
        (1, 0, 4, 'sizes must be from 1'),
    ],
)
def test_a_wrong_mesh_is_refused(data, fsdp, batch_size, message):
    with pytest.raises(UserError, match=message):
        make_mesh(data, fsdp, batch_size)


@pytest.mark.parametrize(
    ('cores', 'fsdp', 'batch_size', 'taken'), [(6, 1, 16, 4), (6, 1, 12, 6), (8, 2, 12, 6), (5, 1, 7, 1), (4, 4, 8, 4)]
)
def test_cpu_devices_that_do_not_divide_the_batch_are_left(cores, fsdp, batch_size, taken, monkeypatch):
    class Core:
        platform = 'cpu'

    devices = [Core() for _ in range(cores)]
    monkeypatch.setattr(jax, 'devices', lambda: devices)
    monkeypatch.setattr(jax, 'make_mesh', lambda shape, axes, *, axis_types, devices: (shape, devices))
    assert make_mesh(-1, fsdp, batch_size) == ((taken // fsdp, fsdp), devices[:taken])
    Core.platform = 'gpu'
    if batch_size % cores:
        with pytest.raises(UserError, match=f'batch_size {batch_size} does not divide over {cores} devices'):
            make_mesh(-1, fsdp, batch_size)
    else:
        assert make_mesh(-1, fsdp, batch_size) == ((cores // fsdp, fsdp), devices)


def test_the_largest_axis_that_divides_is_split():
    mesh = jax.sharding.AbstractMesh((1, 4), ('data', 'fsdp'))
    shapes = {'kernel': np.zeros((3, 3, 8, 12)), 'odd': np.zeros((3, 5)), 'step': np.zeros(())}
    specs = jax.tree.map(lambda sharding: sharding.spec, state_shardings(mesh, shapes))
    assert specs == {'kernel': PartitionSpec(None, None, None, 'fsdp'), 'odd': PartitionSpec(), 'step': PartitionSpec()}
