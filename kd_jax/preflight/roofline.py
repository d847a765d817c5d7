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
  """

  compute: float
  memory: float
  interconnect: float

  @property
  def step(self) -> float:
    """An estimate: computing and memory overlap, collectives wait for both."""
    return max(self.compute, self.memory) + self.interconnect

  @property
  def bound(self) -> str:
    """What takes the most."""
    every = dataclasses.asdict(self)
    return max(every, key=every.__getitem__)


def times(step: Step, topology: Topology) -> Times:
  """The times of a step; zeros if it does not fit."""
  return Times(
    compute=step.flops / topology.chip.peak_flops,
    memory=step.bytes / topology.chip.memory_rate,
    interconnect=sum(each.seconds for each in step.collectives),
  )
