"""What to change where a run does not fit."""

import pytest

from configs import sr
from nsr_jax.planning.advice import find_advice

STORE, STATE = 12e9, 0.06e9


@pytest.fixture
def config():
    config = sr.get_config('scale=2,preset=edsr_s_nsr')
    with config.unlocked():
        config.batch_size = 64
    return config


def memory(available, temporaries=None, state=STATE, images=STORE):
    parts = {'available': available, 'parameters': state / 3, 'optimizer_and_averages': state * 2 / 3, 'images': images}
    return parts if temporaries is None else parts | {'temporaries': temporaries, 'peak': state + images + temporaries}


def test_nothing_is_advised_where_there_is_room(config):
    assert find_advice(memory(16e9, 3e9), config, 4) == []


def test_the_largest_part_comes_first(config):
    advice = find_advice(memory(16e9, 5e9), config, 4)
    assert advice[0].startswith('--config.data.resident_megabytes=0 streams')
    assert [text.partition(' ')[0] for text in advice[1:3]] == ['--config.microbatch_size=8', '--config.remat=true']
    assert not any('fsdp' in text for text in advice)  # 0.06 of 16 GB
    assert find_advice(memory(16e9, 30e9), config, 4)[-1].startswith('--config.data.resident_megabytes=0')
    assert find_advice(memory(16e9, 1e9, state=40e9), config, 4)[0].startswith('--config.mesh.fsdp=4')


def test_advice_where_the_compiler_gave_up(config):
    advice = find_advice(memory(16e9), config, 4)
    assert advice[0].startswith('--config.data.resident_megabytes=0')
    assert any(text.startswith('--config.remat=true') for text in advice)


def test_what_is_already_so_is_not_advised(config):
    with config.unlocked():
        config.data.resident_megabytes, config.remat, config.microbatch_size = 0, True, 1
    (only,) = find_advice(memory(16e9, 20e9, images=0), config, 4)
    assert only == 'a --config.batch_size below 64, or more devices'
