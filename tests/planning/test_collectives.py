"""What devices send, by hand."""

import pytest

from nsr_jax.planning import hlo
from nsr_jax.planning.collectives import Collective, find_collectives

TEXT = """\
%scatter (p: f32[40]) -> f32[10] {
  %p = f32[40]{0} parameter(0)
  ROOT %r = f32[10]{0} reduce-scatter(%p), replica_groups=mesh['a'=2,'b'=4], device_ids=([2,4]T(1,0)) {'b'}
}

ENTRY %main (a: f32[4]) -> f32[4] {
  %a = f32[4]{0} parameter(0)
  %all-reduce.1 = (f32[3,3,8,8]{3,2,1,0}, f32[]) all-reduce(%a), channel_id=1, replica_groups=[2,4]<=[8], to_apply=%sum
  %g = bf16[16,10]{1,0} all-gather(%a), replica_groups={{0,2},{1,3}}, dimensions={0}
  %fusion = f32[10]{0} fusion(%a), kind=kCustom, calls=%scatter
  %e = (f32[5]{0}, f32[5]{0}) all-to-all(%a, %a), replica_groups=mesh['a'=8,'b'=1] {'a'}
  %s = (f32[4]{0}, f32[8]{0}) all-gather-start(%a), replica_groups={{0,1}}, dimensions={0}
  %d = f32[8]{0} all-gather-done(%s)
  %q = f32[4]{0} collective-permute(%a), source_target_pairs={{0,1},{1,0}}
  ROOT %other = f32[4]{0} add(%all-reduce.1, %all-reduce.1)
}
"""


def find_all(text):
    program = hlo.parse(text)
    return [found for each in program.computations['main'].values() for found in find_collectives(program, each)]


def test_collectives_of_a_program():
    assert find_all(TEXT) == [
        ('all-reduce', 4 * 577, 4, ()),
        ('all-gather', 320, 2, ()),
        ('reduce-scatter', 160, 4, ()),
        ('all-to-all', 40, 8, ()),
        ('all-gather', 32, 2, ()),
        ('collective-permute', 16, 2, ()),
    ]


def test_an_unknown_collective_is_an_error():
    with pytest.raises(ArithmeticError, match='ragged-all-to-all is not counted'):
        find_all('ENTRY %main (a: f32[4]) -> f32[4] {\n  %p = f32[4]{0} ragged-all-to-all(%a), channel_id=1\n}')


def ring_all_reduce(pieces):
    """What one of `len(pieces)` devices sends while sums go round and then results go round, a piece at a time."""
    devices = len(pieces)
    return sum(pieces[(0 - step) % devices] for step in range(devices - 1)) + sum(
        pieces[(1 - step) % devices] for step in range(devices - 1)
    )


def test_what_a_device_sends_in_a_ring():
    assert Collective('all-reduce', 800, 8).sent == ring_all_reduce([100] * 8) == 1400
    assert Collective('all-gather', 800, 8).sent == Collective('reduce-scatter', 800, 8).sent == 700
    assert Collective('all-reduce', 800, 1).sent == 0
    assert Collective('collective-permute', 800, 2).sent == 800
