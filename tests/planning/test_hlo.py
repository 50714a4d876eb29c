"""Reading the text of programs: a short one as the compiler for TPUs writes them, by hand, and one of this machine."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from nsr_jax.planning import hlo

TEXT = """\
HloModule jit_train_steps, is_scheduled=true

%cut (param_0: u8[800,1020,1020,3], param_1: s32[]) -> u8[1,48,48,3] {
  %param_0 = u8[800,1020,1020,3]{2,1,3,0:T(8,128)(4,1)} parameter(0)
  %param_1 = s32[]{:T(128)} parameter(1)
  ROOT %ds = u8[1,48,48,3]{2,1,3,0:T(8,128)(4,1)} dynamic-slice(%param_0, %param_1, %param_1, %param_1, %param_1)
}

%convolve (param_0.1: bf16[4,48,48,64], param_1.1: bf16[3,3,64,64]) -> bf16[4,48,48,64] {
  %param_0.1 = bf16[4,48,48,64]{3,2,1,0:T(8,128)(2,1)S(1)} parameter(0)
  %param_1.1 = bf16[3,3,64,64]{3,2,1,0:T(8,128)(2,1)} parameter(1)
  %conv = bf16[4,48,48,64]{3,2,1,0:T(8,128)(2,1)} convolution(%param_0.1, %param_1.1), window={size=3x3}
  ROOT %max = bf16[4,48,48,64]{3,2,1,0:T(8,128)(2,1)} maximum(%conv, %conv)
}

%shift (param_0.2: f32[8,128]) -> f32[8,128] {
  %param_0.2 = f32[8,128]{1,0:T(8,128)} parameter(0)
  %zero = f32[]{:T(128)} constant(0)
  %pad = f32[9,128]{1,0:T(8,128)} pad(%param_0.2, %zero), padding=1_0x0_0
  ROOT %slice = f32[8,128]{1,0:T(8,128)} slice(%pad), slice={[0:8], [0:128]}
}

%samples.body (p: (s32[], u8[800,1020,1020,3])) -> (s32[], u8[800,1020,1020,3]) {
  %p = (s32[]{:T(128)}, u8[800,1020,1020,3]{2,1,3,0:T(8,128)(4,1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %images = u8[800,1020,1020,3]{2,1,3,0:T(8,128)(4,1)} get-tuple-element(%p), index=1
  %cut.1 = u8[1,48,48,3]{2,1,3,0:T(8,128)(4,1)S(1)} fusion(%images, %i), kind=kLoop, calls=%cut, \
backend_config={"estimated_cycles":"2000"}
  ROOT %t = (s32[]{:T(128)}, u8[800,1020,1020,3]{2,1,3,0:T(8,128)(4,1)}) tuple(%i, %images)
}

%samples.condition (q: (s32[], u8[800,1020,1020,3])) -> pred[] {
  %q = (s32[]{:T(128)}, u8[800,1020,1020,3]{2,1,3,0:T(8,128)(4,1)}) parameter(0)
  %j = s32[]{:T(128)} get-tuple-element(%q), index=0
  %four = s32[]{:T(128)} constant(4)
  ROOT %less = pred[]{:T(512)} compare(%j, %four), direction=LT
}

%steps.body (s: (f32[8,128], u8[800,1020,1020,3])) -> (f32[8,128], u8[800,1020,1020,3]) {
  %s = (f32[8,128]{1,0:T(8,128)}, u8[800,1020,1020,3]{2,1,3,0:T(8,128)(4,1)}) parameter(0)
  %x = f32[8,128]{1,0:T(8,128)} get-tuple-element(%s), index=0
  %a = bf16[4,48,48,64]{3,2,1,0:T(8,128)(2,1)S(1)} custom-call(), custom_call_target="tpu_custom_call"
  %k = bf16[3,3,64,64]{3,2,1,0:T(8,128)(2,1)} custom-call(), custom_call_target="AllocateBuffer"
  %samples = (s32[]{:T(128)}, u8[800,1020,1020,3]{2,1,3,0:T(8,128)(4,1)}) while(%s), \
condition=%samples.condition, body=%samples.body
  %convolve.1 = bf16[4,48,48,64]{3,2,1,0:T(8,128)(2,1)S(1)} fusion(%a, %k), kind=kOutput, calls=%convolve, \
metadata={op_name="jit(train_steps)/while/body/block_00/conv_1/conv_general_dilated"}, \
backend_config={"estimated_cycles":"3000"}
  %shift.1 = f32[8,128]{1,0:T(8,128)} fusion(%x), kind=kLoop, calls=%shift, backend_config={"estimated_cycles":"50"}
  %sum = f32[8,128]{1,0:T(8,128)} all-reduce(%shift.1), replica_groups={{0,1,2,3}}, to_apply=%shift
  %start = (f32[8,128]{1,0:T(8,128)S(1)}, f32[8,128]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%sum)
  %done = f32[8,128]{1,0:T(8,128)S(1)} copy-done(%start)
  %add = f32[8,128]{1,0:T(8,128)} add(%sum, %done), backend_config={"estimated_cycles":"7"}
  ROOT %u = (f32[8,128]{1,0:T(8,128)}, u8[800,1020,1020,3]{2,1,3,0:T(8,128)(4,1)}) tuple(%add, %samples)
}

%steps.condition (v: (f32[8,128], u8[800,1020,1020,3])) -> pred[] {
  %v = (f32[8,128]{1,0:T(8,128)}, u8[800,1020,1020,3]{2,1,3,0:T(8,128)(4,1)}) parameter(0)
  %ten = s32[]{:T(128)} constant(10)
  %c.1 = pred[]{:T(512)} compare(%ten, %ten), direction=LT
  %yes = pred[]{:T(512)} constant(true)
  ROOT %and = pred[]{:T(512)} and(%c.1, %yes)
}

ENTRY %main (state: f32[8,128], store: u8[800,1020,1020,3]) -> (f32[8,128], u8[800,1020,1020,3]) {
  %state = f32[8,128]{1,0:T(8,128)} parameter(0)
  %store = u8[800,1020,1020,3]{2,0,3,1:T(32,128)(4,1)} parameter(1)
  %copy = u8[800,1020,1020,3]{2,1,3,0:T(8,128)(4,1)} copy(%store), backend_config={"estimated_cycles":"35043680"}
  %both = (f32[8,128]{1,0:T(8,128)}, u8[800,1020,1020,3]{2,1,3,0:T(8,128)(4,1)}) tuple(%state, %copy)
  ROOT %steps = (f32[8,128]{1,0:T(8,128)}, u8[800,1020,1020,3]{2,1,3,0:T(8,128)(4,1)}) while(%both), \
condition=%steps.condition, body=%steps.body
}
"""
STORE = 800 * 3 * 1024 * 1024  # 1020 rows in tiles of 8, 1020 columns in tiles of 128


@pytest.fixture
def program():
    return hlo.parse(TEXT)


@pytest.fixture
def executions(program):
    return {each.instruction.name: each for each in hlo.find_executions(program)}


def test_the_loop_over_the_steps_counts_once_and_loops_of_a_known_length_as_often_as_they_run(executions):
    found = {name: (each.times, each.in_step) for name, each in executions.items()}
    once = dict.fromkeys(['a', 'k', 'convolve.1', 'shift.1', 'sum', 'start', 'add'], (1, True))
    assert found == {'copy': (1, False), 'cut.1': (4, True)} | once


def test_what_instructions_do(program, executions):
    kinds = {name: hlo.find_kind(program, each.instruction) for name, each in executions.items()}
    assert kinds == {
        'a': hlo.KERNELS,
        'add': hlo.OTHERS,
        'convolve.1': hlo.PRODUCTS,
        'copy': hlo.MOVES,
        'cut.1': hlo.MOVES,
        'k': hlo.OTHERS,
        'shift.1': hlo.MOVES,
        'start': hlo.MOVES,
        'sum': hlo.COLLECTIVES,
    }


def test_bytes_that_reach_the_memory(program, executions):
    moved = {
        name: hlo.count_moved(program, executions[name]) for name in ('copy', 'cut.1', 'convolve.1', 'start', 'add')
    }
    assert moved == {
        'copy': STORE + 1020 * 3 * 800 * 1024,  # 800 images in tiles of 32, 1020 columns in tiles of 128
        'cut.1': 3 * 48 * 128 + 4,  # one patch, not the store, and its place; it goes to memory on the chip
        'convolve.1': 3 * 3 * 64 * 128 * 2,  # the kernel alone; images stay on the chip
        'start': 8 * 128 * 4,
        'add': 2 * 8 * 128 * 4,
    }


def test_estimated_cycles(executions):
    assert {name: each.instruction.cycles for name, each in executions.items() if each.instruction.cycles} == {
        'copy': 35043680,
        'cut.1': 2000,
        'convolve.1': 3000,
        'shift.1': 50,
        'add': 7,
    }


@pytest.mark.parametrize(
    ('shape', 'nbytes'),
    [
        ('f32[]', 4),
        ('bf16[3,5]{1,0}', 30),
        ('bf16[3,5]{1,0:T(8,128)(2,1)}', 8 * 128 * 2),
        ('bf16[3,5]{0,1:T(8,128)(2,1)}', 8 * 128 * 2),
        ('f32[1,130,9]{1,2,0:T(8,128)}', 16 * 256 * 4),
        ('(f32[2]{0}, /*index=1*/u8[7]{0:T(256)S(1)})', 8 + 256),
        ('token[]', 0),
    ],
)
def test_bytes_of_a_shape(shape, nbytes):
    assert hlo.count_bytes(shape) == nbytes


def test_a_program_of_this_machine():
    @jax.jit
    def compute(x):
        return lax.fori_loop(0, 7, lambda _, x: jnp.sin(x @ x), x)

    program = hlo.parse(compute.lower(jnp.ones((64, 64))).compile().as_text())
    products = [
        each for each in hlo.find_executions(program) if hlo.find_kind(program, each.instruction) == hlo.PRODUCTS
    ]
    assert [each.times for each in products] == [7]
