"""How long a step takes at least, by published figures of the chip."""

from __future__ import annotations

import dataclasses

from kd_jax.preflight.compiling import Step
from kd_jax.preflight.topologies import Topology


@dataclasses.dataclass(frozen=True)
class Times:
  """Seconds of a step if one thing alone took time.

  Attributes:
    compute: its operations at the chip's peak.
    memory: its bytes at the rate of the chip's memory.
    interconnect: its collectives, each with its latency.
    hidden: those of `interconnect` in which the program computes.
  """

  compute: float
  memory: float
  interconnect: float
  hidden: float

  @property
  def step(self) -> float:
    """An estimate: all overlaps but the collectives that the program awaits."""
    waits = self.interconnect - self.hidden
    return max(self.compute, self.memory, self.hidden) + waits

  @property
  def bound(self) -> str:
    """What takes the most."""
    every = dataclasses.asdict(self)
    del every["hidden"]
    return max(every, key=every.__getitem__)


def times(step: Step, topology: Topology) -> Times:
  """The times of a step; zeros if it does not fit."""
  return Times(
    compute=step.flops / topology.chip.peak_flops,
    memory=step.bytes / topology.chip.memory_rate,
    interconnect=sum(each.seconds for each in step.collectives),
    hidden=sum(each.hidden for each in step.collectives),
  )
