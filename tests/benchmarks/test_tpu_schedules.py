"""Counting the cycles of schedules: short ones in the form that libtpu writes."""

import pytest

from benchmarks import tpu_schedules

UNITS = tpu_schedules.Units(count=2, rows=16)
HEAD = """\
LB: loop body
= control target key end

     0   :  { %9 = vsyncpa [#allocation3], 0  ;;  %s1_s0 = inlined_call_operand.hbm [shape: f32[8,128]] }
"""
# Bundles 1 to 16 are the outer loop of 3 trips, 3 to 9 the inner one of 5: each ends 4 bundles after its jump.
NESTED = """\
   0x1 LB: > { %s10_s1 = smov 0 } /* Start region 20 */
   0x2   : > { %s11_s2 = smov 0 } /* Start region 7 :: End region 7 */
   0x3 LB: >> { %s12_s2 = sadd.s32 1, %s11_s2 } /* Start region 30 */
   0x4   : >> { %p40_p1 = scmp.ge.s32.totalorder %s12_s2, 5 /* loop exit test */ }
   0x5   : >> { %30 = sbr.rel (!%p40_p1) target = $region30 } /* End region 30 */
   0x6   : >> { %v1_v0 = vld [vmem:[%s1]]
   ;; %v2_v0 = vld [vmem:[%s2]] }
   0x7   : >> {}
   0x8   : >> {}
   0x9   : >> {}
   0xa   : > { %p41_p2 = scmp.eq.s32.totalorder %s10_s1, 3 /* loop exit test */ }
   0xb   : > { %203 = sbr.rel (%p41_p2) target = $region36 }
   0xc   : > { %20 = sbr.rel (!%p41_p2) target = $region20 }
   0xd   : > {}
   0xe   : > {}
   0xf   : > {}
  0x10   : > {}
  0x11   :  {} /* Start region 36 */
"""


def test_bundles_of_loops_count_as_often_as_they_run():
    inner, outer = 7, 16  # bundles 3 to 9 and 1 to 16, of 18
    assert tpu_schedules.count_cycles(HEAD + NESTED, UNITS) == 18 - outer + 3 * (outer - inner + 5 * inner)


def test_a_loop_in_stages_computes_in_two_trips_less():
    staged = NESTED.replace(
        'smov 0 } /* Start region 20', 'smov 0 /* iteration index, stage = 0 */ } /* Start region 20'
    )
    assert staged != NESTED
    assert tpu_schedules.count_cycles(HEAD + staged, UNITS) == 18 - 16 + 1 * (16 - 7 + 5 * 7)


@pytest.mark.parametrize(
    ('product', 'rows'),
    [('vmatmul.bf16.gmra.mxu0', 16), ('vmatmul.f32.gmra.mxu0', 8), ('vmatmul.lmr.bf16.gmra.8.mxu1', 8)],
)
def test_products_take_a_cycle_for_each_row(product, rows):
    assert '%v1_v0 = vld' in NESTED
    products = ' ;; '.join([f'%v1_v0 = {product}'] * 9)
    found = tpu_schedules.count_cycles(HEAD + NESTED.replace('%v1_v0 = vld', products), UNITS)
    assert found == 9 * rows * 3 * 5 / UNITS.count > 18


def test_a_loop_of_unknown_length_is_an_error():
    unknown = NESTED.replace('%s12_s2, 5', '%s12_s2, %s13_s3')
    with pytest.raises(ArithmeticError, match=r'not known: 0x5 .*region30'):
        tpu_schedules.count_cycles(HEAD + unknown, UNITS)


def test_each_operation_is_read_once(tmp_path):
    (tmp_path / '12-fusion.2-00-schedule-analysis_final_bundles.txt').write_text('nothing')
    (tmp_path / '12-fusion.2-01-final_bundles.txt').write_text(HEAD + NESTED)
    (tmp_path / '12-<late-initialization>-01-final_bundles.txt').write_text(HEAD)
    (tmp_path / '12-fusion.2-02-vmem_report.html').write_text('')
    (found,) = tpu_schedules.take_schedules(tmp_path, UNITS).items()
    assert found == ('fusion.2', tpu_schedules.count_cycles(HEAD + NESTED, UNITS))
    assert tpu_schedules.take_schedules(tmp_path, UNITS) == {}
