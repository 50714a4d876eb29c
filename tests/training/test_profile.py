import re

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from nsr_jax.training import profile as profiling
from nsr_jax.training.profile import Event, profile, read_trace, row_of, rows_of, share_time

FORWARD = 'jit(train_steps)/while/body/jvp(RestorationNetwork)/RestorationNetwork.body/'
BACKWARD = 'jit(train_steps)/while/body/transpose(jvp(RestorationNetwork))/RestorationNetwork.body/'


@pytest.mark.parametrize(
    ('op_name', 'row'),
    [
        ('jit(train_steps)/while/body/sample/vmap(jit(_randint))/vmap()/add', profiling.SAMPLE),
        ('jit(train_steps)/while/body/optimizer/jit(_where)/select_n', profiling.OPTIMIZER),
        (f'{FORWARD}block_00/conv_1/gate/div', profiling.GATE),
        (f'{BACKWARD}block_00/conv_1/gate/mul', profiling.GATE),
        (f'{FORWARD}block_00/conv_2/mix/dot_general', profiling.MIX),
        (f'{BACKWARD}head/normalize/mul', profiling.NORMALIZE),
        (f'{FORWARD}block_15/conv_2/while/body/closed_call/conv_general_dilated', profiling.FORWARD),
        (f'{FORWARD}head/transpose', profiling.FORWARD),  # an operation, not a derivative
        (f'{BACKWARD}tail/cond/branch_0_fun/while', profiling.BACKWARD),
        (f'{BACKWARD}block_01/conv_1/jvp(RestorationNetwork)/checkpoint/while', profiling.BACKWARD),
        (f'{FORWARD}block_00/add', profiling.NETWORK),
        ('jit(train_steps)/while/body/transpose(jvp())/select_n', profiling.NETWORK),
        ('jit(train_steps)/while/body/add', profiling.UNNAMED),
        ('', profiling.UNNAMED),
    ],
)
def test_scopes_have_rows(op_name, row):
    assert row_of(op_name) == row


def test_instructions_of_a_compiled_program_have_rows():
    @jax.jit
    def program(x, kernel):
        with jax.named_scope('sample'):
            x = lax.map(lambda row: jnp.fft.fft(row).real, x)
        with jax.named_scope('optimizer'):
            return jnp.sort(x @ kernel, axis=0)

    text = program.lower(jnp.ones((8, 8)), jnp.ones((8, 8))).compile().as_text()
    rows = rows_of(text)
    found = {kind: {rows[name] for name in re.findall(rf'%?([\w.-]+) = [^=]* {kind}\(', text)} for kind in
             ('fft', 'while', 'sort', 'dot')}  # fmt: skip
    assert found == {
        'fft': {profiling.SAMPLE},
        'while': {None},
        'sort': {profiling.OPTIMIZER},
        'dot': {profiling.OPTIMIZER},
    }


def test_what_has_no_name_belongs_where_it_is_used():
    program = """
  %bare.1 = f32[8]{0} copy(%parameter.1)
  %packed.1 = (f32[8]{0}, /*index=1*/s32[]) tuple(%bare.1, %zero)
  %loop = (f32[8]{0}, s32[]) while(%packed.1), condition=%test, body=%run, metadata={op_name="jit(f)/optimizer/while"}
  ROOT %unused.2 = f32[8]{0} copy(%parameter.1)
"""
    rows = rows_of(program)
    assert rows['bare.1'] == profiling.OPTIMIZER
    assert rows['loop'] is None
    assert rows['unused.2'] == profiling.UNNAMED


OPERATIONS = {'a': profiling.SAMPLE, 'b': profiling.OPTIMIZER, 'c': profiling.SAMPLE, 'loop': None}
EVENTS = st.builds(
    lambda name, start, length: Event(name, start, start + length),
    st.sampled_from([*OPERATIONS, 'unknown']),
    st.integers(-5, 40),
    st.integers(0, 20),
)


@settings(deadline=None)
@given(st.lists(EVENTS, max_size=8))
def test_every_moment_belongs_to_what_runs_in_it(events):
    expected = dict.fromkeys(profiling.ROWS, 0.0)
    for moment in range(30):
        running = [event for event in events if event.start <= moment < event.end]
        active = [event.operation for event in running if event.operation != 'loop']
        for operation in active:
            expected[OPERATIONS.get(operation, profiling.UNNAMED)] += 1 / len(active)
        if not active:
            expected[profiling.UNNAMED if running else profiling.IDLE] += 1
    shares = share_time((0, 30), events, OPERATIONS)
    assert shares == pytest.approx(expected)
    assert sum(shares.values()) == pytest.approx(30)


def plane(name, *lines, first=1):
    """A plane of a trace as text; a line is a list of (event, start ns, duration ns, statistics)."""
    events = [event for line in lines for event in line]
    names = sorted({event[0] for event in events})
    statistics = sorted({statistic for event in events for statistic in event[3]})
    text = f'planes {{ name: "{name}" '
    for number, line in enumerate(lines):
        text += f'lines {{ id: {number} timestamp_ns: 0 '
        for event, start, duration, stats in line:
            text += f'events {{ metadata_id: {first + names.index(event)} offset_ps: {start * 1000} '
            text += f'duration_ps: {duration * 1000} '
            for statistic, value in stats.items():
                kind = 'str_value' if isinstance(value, str) else 'int64_value'
                shown = f'"{value}"' if isinstance(value, str) else value
                text += f'stats {{ metadata_id: {1 + statistics.index(statistic)} {kind}: {shown} }} '
            text += '} '
        text += '} '
    for kind, entries in (('event', names), ('stat', statistics)):
        for number, entry in enumerate(entries):
            text += f'{kind}_metadata {{ key: {1 + number} value {{ id: {1 + number} name: "{entry}" }} }} '
    return text + '}\n'


HOST = [('profiled steps', 10, 90, {})]


def read(*planes):
    return read_trace(jax.profiler.ProfileData.from_text_proto(''.join(planes)))


def test_an_operation_on_a_cpu_lasts_until_its_end_is_reported():
    first = [('dot.1', 20, 5, {'hlo_op': 'dot.1', '_p': 7}), ('add.1', 26, 3, {'hlo_op': 'add.1', '_p': 8})]
    second = [('end: dot.1', 59, 1, {'_c': 7}), ('Eigen', 30, 20, {})]
    window, events = read(plane('/host:CPU', HOST, first, second))
    assert window == (10, 100)
    assert sorted(events) == [('add.1', 26, 29), ('dot.1', 20, 60)]


def test_kernels_of_the_first_device_count():
    host = [('fusion.1', 12, 2, {'hlo_op': 'fusion.1'})]  # the launch of the kernel
    kernels = [('fusion_1', 20, 30, {'hlo_op': 'fusion.1'}), ('memcpy', 60, 5, {})]
    others = [('fusion_1', 25, 30, {'hlo_op': 'fusion.1'})]
    planes = plane('/host:CPU', HOST, host), plane('/device:GPU:1', others), plane('/device:GPU:0', kernels)
    assert read(*planes) == ((10, 100), [('fusion.1', 20, 50)])
    assert read(plane('/host:CPU', HOST)) == ((10, 100), [])


def test_the_parts_of_a_step_sum_up_to_it(tmp_path, config):
    config.model.num_blocks = 2
    text = profile(config, tmp_path, 5)
    numbers = {
        name: (float(ms), float(percent)) for name, ms, percent in re.findall(r'\| (.*) \| (.*) \| (.*) \|', text)[2:]
    }
    *parts, total = numbers
    assert tuple(parts) == profiling.ROWS
    assert total == '**total**'
    for column in (0, 1):
        summands = [numbers[part][column] for part in parts]
        assert sum(summands) == pytest.approx(numbers[total][column], abs=0.05 * len(parts))
    for part in (profiling.SAMPLE, profiling.GATE, profiling.FORWARD, profiling.BACKWARD, profiling.OPTIMIZER):
        assert numbers[part][0] > 0, part
    assert '5 steps of 4 patches on 1 x cpu' in text

    folder = tmp_path / 'profile'
    assert (folder / 'profile.md').read_text() == text
    assert len(list(folder.glob('plugins/profile/*/perfetto_trace.json.gz'))) == 1
    assert {path.name for path in tmp_path.iterdir()} == {'profile'}  # neither a checkpoint nor a config
    assert jax.config.jax_enable_compilation_cache
