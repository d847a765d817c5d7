"""What is read from the text of compiled programs, by hand."""

import types

import pytest

from kd_jax.preflight import collectives, hlo, moves, roofline, topologies

V5E_8 = topologies.find("v5e-8")
# Shortened from programs for v5e and v6e; numbers are small enough to count.
TEXT = """\
HloModule jit_train_step, is_scheduled=true

%region_0.0 (a: f32[], b: f32[]) -> f32[] {
  ROOT %add = f32[]{:T(128)} add(%a, %b)
}

%copy_fusion (input: u8[4,6,6,3]) -> u8[4,6,6,3] {
  %input = u8[4,6,6,3]{3,2,1,0} parameter(0)
  ROOT %copy.1 = u8[4,6,6,3]{0,3,2,1} copy(%input)
}

%fused_add (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  %t = f32[8]{0} copy(%p)
  ROOT %sum = f32[8]{0} add(%t, %t)
}

%async_collective_fusion.1 (w: bf16[8,2]) -> bf16[8,16] {
  %all-gather.1 = bf16[8,16]{0,1:T(8,128)(2,1)} all-gather(%w), channel_id=7, \
replica_groups=[1,8]<=[8], dimensions={1}
}

%async_collective_fusion.2 (w: bf16[8,2]) -> bf16[8,16] {
  %all-gather.2 = bf16[8,16]{0,1:T(8,128)(2,1)} all-gather(%w), channel_id=7, \
replica_groups=[1,8]<=[8], dimensions={1}
}

%body (state: (s32[], f32[64])) -> (s32[], f32[64]) {
  %state = (s32[]{:T(128)}, f32[64]{0:T(128)}) parameter(0)
  %all-reduce.9 = f32[64]{0:T(128)S(1)} all-reduce(%x), channel_id=9, \
replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%region_0.0
  %transpose.3 = bf16[2,5]{1,0} transpose(%y), dimensions={1,0}, \
backend_config={"window_config":{"estimated_cycles":"20"}}, \
metadata={op_name="jit(train_step)/scan/transpose" stack_frame_id=3}
  ROOT %out = (s32[]{:T(128)}, f32[64]{0:T(128)}) tuple(%i, %all-reduce.9)
}

%condition (state: (s32[], f32[64])) -> pred[] {
  ROOT %less = pred[]{:T(512)} compare(%a, %b), direction=LT
}

ENTRY %main_spmd (param: s32[], param.1: f32[64]) -> (f32[64], f32[3,3,8,8]) {
  %param.1 = f32[64]{0:T(128)} parameter(1)
  %all-reduce = (f32[3,3,8,8]{3,2,1,0:T(8,128)}, /*index=1*/bf16[10]{0:T(512)\
(128)(4,1)}) all-reduce(%a, %b), channel_id=1, replica_groups=mesh['axis_0'=4,\
'axis_1'=2] {'axis_0','axis_1'}, use_global_device_ids=true, \
to_apply=%region_0.0, metadata={op_name="jit(train_step)/jvp/bn1/reduce_sum"}
  %all-gather-start = (f32[8]{0}, f32[64]{0}) all-gather-start(%c), \
replica_groups=[1,8]<=[8], dimensions={0}
  %all-gather-done = f32[64]{0} all-gather-done(%all-gather-start)
  %reduce-scatter = bf16[16]{0} reduce-scatter(%d), \
replica_groups=mesh['axis_0'=8] {'axis_0':(2)4}, to_apply=%region_0.0
  %copy_fusion.2 = u8[4,6,6,3]{0,3,2,1} fusion(%e), kind=kLoop, \
calls=%copy_fusion, metadata={op_name="jit(train_step)/view"}
  %fusion.7 = f32[8]{0} fusion(%f), kind=kLoop, calls=%fused_add, \
backend_config={"window_config":{"estimated_cycles":"1800"}}
  %fusion.8 = bf16[8,16]{0,1} fusion(%w), calls=%async_collective_fusion.1
  %fusion.9 = bf16[8,16]{0,1} fusion(%w), calls=%async_collective_fusion.2
  %copy-start = (f32[8]{0:S(1)}, f32[8]{0}, u32[]{:S(2)}) copy-start(%g)
  %copy-done = f32[8]{0:S(1)} copy-done(%copy-start)
  %while.5 = (s32[]{:T(128)}, f32[64]{0:T(128)}) while(%h), \
condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"5"},"flag_configs":[]}
  ROOT %tuple = (f32[64]{0}, f32[3,3,8,8]{3,2,1,0}) tuple(%i, %j)
}
"""


@pytest.fixture(scope="module")
def program():
  return hlo.parse(TEXT)


def test_sizes_of_shapes():
  assert hlo.size("f32[3,3,8,8]{3,2,1,0:T(8,128)}") == 4 * 576
  assert hlo.size(
    "(bf16[10]{0:T(512)(128)(4,1)}, /*index=1*/pred[]{:S(2)})"
  ) == (20 + 1)
  assert hlo.size("f8e4m3fn[6]") == 6 and hlo.size("s4[6]") == 3
  assert hlo.parts("((f32[2]{0}, u8[3]{0}), s32[]{:S(2)})") == [
    "(f32[2]{0}, u8[3]{0})",
    "s32[]{:S(2)}",
  ]


def test_collectives_by_hand(program):
  every = collectives.find(program)
  gathers = [x for x in every if x.kind == "all-gather"]
  (looped,) = (x for x in every if x.times > 1)
  tuples, scattered = (x for x in every if x not in (*gathers, looped))
  assert tuples.bytes == 4 * 576 + 2 * 10 and tuples.group == 8
  assert tuples.source == "jit(train_step)/jvp/bn1/reduce_sum"
  # A pair counts once, with what is gathered and not what is given; what two
  # fusions do together too.
  assert sorted(x.bytes for x in gathers) == [256, 2 * 8 * 16]
  assert all(x.group == 8 and x.hidden for x in gathers)
  # What goes in is as many times larger than what comes out.
  assert (scattered.bytes, scattered.group) == (4 * 2 * 16, 4)
  assert (looped.times, looped.bytes, looped.group) == (5, 256, 4)
  assert not any(x.hidden for x in (tuples, scattered, looped))


def test_collectives_add_up_by_kind(program):
  sums = {x.kind: x for x in collectives.sums(collectives.find(program), V5E_8)}
  assert set(sums) == {"all-reduce", "all-gather", "reduce-scatter"}
  assert sums["all-reduce"].count == 1 + 5
  assert sums["all-reduce"].bytes == 4 * 576 + 20 + 5 * 256
  assert sums["all-reduce"].hidden == 0 < sums["all-reduce"].seconds
  assert sums["all-gather"].hidden == sums["all-gather"].seconds > 0


def test_a_collective_takes_bandwidth_and_hops():
  def seconds(kind, size=10**9, group=8):
    found = collectives.Collective(kind, size, group, 1, "")
    return found.seconds(V5E_8)

  # 2 x 4 chips without rings: a link along each axis, 1 + 3 hops.
  sent, way = 1e9 * 7 / 8 / 100e9, 4e-6
  assert seconds("all-gather") == pytest.approx(sent + way)
  assert seconds("all-reduce") == pytest.approx(2 * (sent + way))
  assert seconds("all-reduce", size=4) == pytest.approx(2 * way, rel=1e-3)
  assert seconds("collective-permute") == pytest.approx(1e9 / 100e9 + way)
  assert seconds("all-reduce", group=1) == 0
  whole = collectives.Collective("all-reduce", 8, 8, 1, "")
  assert seconds("all-reduce", size=8, group=0) == whole.seconds(V5E_8)


def test_moves_are_what_does_nothing_else(program):
  found = moves.find(program)
  # A fusion that only copies, and five turns of a transpose; neither the copy
  # inside of a sum nor a prefetch.
  assert found.count == 1 + 5
  assert found.bytes == 4 * 6 * 6 * 3 + 5 * 2 * 10
  assert found.largest == (
    ("jit(train_step)/view", 432),
    ("jit(train_step)/scan/transpose", 100),
  )
  assert moves.find(program, most=1).largest == found.largest[:1]


def test_cycles_of_loops_count_every_turn(program):
  assert hlo.cycles(program) == 1800 + 5 * 20


def test_what_a_chip_waits_for_adds_to_its_step():
  open_ = collectives.Sum("all-reduce", 1, 8, seconds=3.0, hidden=0.0)
  both = collectives.Sum("all-gather", 1, 8, seconds=5.0, hidden=4.0)
  step = types.SimpleNamespace(
    flops=2 * 197e12, bytes=819e9, collectives=(open_, both)
  )
  found = roofline.times(step, V5E_8)
  assert (found.compute, found.memory) == (2.0, 1.0)
  assert found.interconnect == 8.0 and found.bound == "interconnect"
  # Four hidden seconds are longer than computing; four more are waited for.
  assert found.step == 4.0 + 4.0
  step.collectives = ()
  assert roofline.times(step, V5E_8).step == 2.0
  assert roofline.times(step, V5E_8).bound == "compute"


def test_a_program_has_an_entry():
  with pytest.raises(ValueError, match="no ENTRY"):
    hlo.parse("HloModule empty\n")
