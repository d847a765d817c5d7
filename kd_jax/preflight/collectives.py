"""What chips say to each other in a step, by the compiled program."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable

from kd_jax.preflight import hlo
from kd_jax.preflight.topologies import Topology

KINDS = (
  "all-reduce",
  "all-gather",
  "reduce-scatter",
  "all-to-all",
  "collective-permute",
)
_CHANNEL = re.compile(r"channel_id=(\d+)")
_GROUPS = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_IOTA = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=")
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}")
# How often the data crosses a link of a chip, on a ring of many.
_PASSES = {"all-reduce": 2.0}
# As often as its latency counts: there and back.
_PHASES = {"all-reduce": 2}


@dataclasses.dataclass(frozen=True)
class Collective:
  """One instruction that moves data between chips.

  Attributes:
    kind: one of `KINDS`.
    bytes: what it sums, gathers or sends, per chip.
    group: chips that take part; 0 if the program does not tell.
    times: how often it runs in a step.
    source: the operation of the JAX program.
    hidden: whether the chip computes meanwhile.
  """

  kind: str
  bytes: int
  group: int
  times: int
  source: str
  hidden: bool = False

  def seconds(self, topology: Topology) -> float:
    """What it takes at least: bandwidth, and a message's way there.

    Groups smaller than the slice are taken to have its links and distances.
    """
    group = self.group or topology.chips
    if group == 1:
      return 0.0
    rate = topology.collective_rate
    if self.kind == "collective-permute":
      return self.times * (topology.latency + self.bytes / rate)
    sent = _PASSES.get(self.kind, 1.0) * self.bytes * (group - 1) / group
    waits = _PHASES.get(self.kind, 1) * topology.latency
    return self.times * (sent / rate + waits)


@dataclasses.dataclass(frozen=True)
class Sum:
  """All collectives of a kind.

  Attributes:
    kind: one of `KINDS`.
    count: how many run in a step.
    bytes: of all of them, per chip.
    seconds: see `Collective.seconds`.
    hidden: those of `seconds` in which the chip computes.
  """

  kind: str
  count: int
  bytes: int
  seconds: float
  hidden: float


def find(program: hlo.Program) -> list[Collective]:
  """The collectives of a program.

  One instruction over several arrays counts once; of an asynchronous pair the
  start counts, and the end does not. One that is spread over several fusions,
  which compute meanwhile, has the same channel in all of them and counts once.
  """
  found: dict[str, Collective] = {}
  alone = {id(each) for each, _ in program.runs()}
  for each, times in program.runs(fused=True):
    kind = each.opcode.removesuffix("-start")
    if kind not in KINDS:
      continue
    channel = _CHANNEL.search(each.rest)
    name = channel.group(1) if channel else each.name
    if name in found:
      continue
    group = group_size(each.rest)
    found[name] = Collective(
      kind=kind,
      bytes=_payload(each, kind, group),
      group=group,
      times=times,
      source=each.source,
      hidden=kind != each.opcode or id(each) not in alone,
    )
  return list(found.values())


def sums(found: Iterable[Collective], topology: Topology) -> list[Sum]:
  """The same by kind."""
  every = list(found)
  return [
    Sum(
      kind=kind,
      count=sum(each.times for each in one),
      bytes=sum(each.times * each.bytes for each in one),
      seconds=sum(each.seconds(topology) for each in one),
      hidden=sum(each.seconds(topology) for each in one if each.hidden),
    )
    for kind in KINDS
    if (one := [each for each in every if each.kind == kind])
  ]


def _payload(each: hlo.Instruction, kind: str, group: int) -> int:
  """Bytes of the whole array that is summed, gathered or scattered."""
  arrays = hlo.parts(each.shape)
  if each.opcode.endswith("-start") and kind != "all-reduce":
    arrays = arrays[1:2]  # (what comes in, what goes out, signals)
  total = sum(map(hlo.size, arrays))
  return total * max(group, 1) if kind == "reduce-scatter" else total


def group_size(text: str) -> int:
  """Chips of a group, however the program lists them; 0 if it does not."""
  if found := _GROUPS.search(text):
    return len([x for x in found.group(1).split(",") if x])
  if found := _IOTA.search(text):
    return int(found.group(2))
  if found := _MESH.search(text):
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", found.group(1)))
    used = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", found.group(2))
    return math.prod(int(part or sizes[name]) for name, part in used)
  return 0
