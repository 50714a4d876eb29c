"""The work of a compiled program, and its time by a chip's published speeds."""

from nsr_jax.planning import hlo
from nsr_jax.planning.chips import CHIPS
from nsr_jax.planning.target import Target
from nsr_jax.planning.work import bound, read_work
from nsr_jax.training.profile import rows_of
from tests.planning.test_hlo import TEXT


def test_the_work_of_a_program():
    work = read_work(TEXT, rows_of(TEXT))
    assert work.by_kind == {
        hlo.PRODUCTS: 3000,
        hlo.MOVES: 4 * 2000 + 50,
        hlo.OTHERS: 7,
        hlo.COLLECTIVES: 0,
        hlo.KERNELS: 0,
    }
    assert work.by_part['convolutions, forward'] == 3000
    assert work.kernels == {'a': 1}
    assert sum(work.by_part.values()) == sum(work.by_kind.values())
    assert [(each.kind, each.nbytes, each.devices) for each in work.collectives] == [('all-reduce', 4096, 4)]
    assert work.cycles_of_call == 35043680
    assert work.moved_by_call > 4 * 10**9 > 10**6 > work.moved


def test_collectives_at_the_speed_of_links():
    found = {}
    for name, kind, per_host in (('v5e:2x2', 'v5e', 4), ('h100:4', 'h100', 4), ('h100:2x2', 'h100', 2)):
        target = Target(name, kind, CHIPS[kind], [None] * 4, 1, per_host)
        found[name] = bound(target, 10**12, read_work(TEXT, rows_of(TEXT)))
    sent = 2 * 3 / 4 * 4096
    seconds = {name: step['seconds_at_least_by']['collectives'] for name, step in found.items()}
    assert seconds == {'v5e:2x2': sent / 200e9, 'h100:4': sent / 450e9, 'h100:2x2': sent / 50e9}
    step = found['v5e:2x2']
    assert step['collectives'] == {'all-reduce': {'count': 1, 'bytes': 4096, 'sent': sent}}
    assert step['seconds_at_least'] == 10**12 / 197e12
    assert abs(sum(step['share_by_kind'].values()) - 1) < 1e-9
