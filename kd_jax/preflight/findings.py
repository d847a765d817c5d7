"""What a run takes on a slice: as JSON, as tables, and as lines for people."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from kd_jax.preflight import compiling, roofline
from kd_jax.preflight.chips import GIB
from kd_jax.preflight.compiling import Step
from kd_jax.preflight.hosts import Reading
from kd_jax.preflight.topologies import Topology
from kd_jax.report.tables import Table

_PARTS = {
  "student": "student",
  "projectors": "projectors",
  "optimizer": "optimizer",
  "kept": "average, best weights",
  "teacher": "teacher",
  "batch": "batch",
  "padding": "padding of inputs",
  "outputs": "outputs",
  "temporaries": "temporaries",
  "code": "code",
}


@dataclasses.dataclass(frozen=True)
class Findings:
  """A preflight.

  Attributes:
    topology: the slice.
    steps: of every phase.
    batch_size: global, in views.
    crops: views of an image.
    reading: what a core of this machine reads.
    price_per_chip_hour: in whatever money; 0 if unknown.
    assumed: what stands in for things that are not here.
  """

  topology: Topology
  steps: tuple[Step, ...]
  batch_size: int
  crops: int
  reading: Reading
  price_per_chip_hour: float
  assumed: tuple[str, ...]

  @property
  def fits(self) -> bool:
    """Whether every phase does."""
    return all(step.fits for step in self.steps)

  @property
  def seconds(self) -> float:
    """Estimate for all steps; 0 if a phase does not fit."""
    if not self.fits:
      return 0.0
    return sum(
      step.steps * roofline.times(step, self.topology).step
      for step in self.steps
    )

  @property
  def images_per_s(self) -> float:
    """Estimate; an image may give several views. 0 if it does not fit."""
    count = sum(step.steps for step in self.steps)
    views = count * self.batch_size / self.seconds if self.seconds else 0.0
    return views / self.crops

  @property
  def hours(self) -> float:
    """Estimate of the whole run, without evaluations and saving."""
    return self.seconds / 3600

  @property
  def cost(self) -> float:
    """Of the whole run."""
    return self.hours * self.topology.chips * self.price_per_chip_hour

  def as_json(self) -> dict[str, Any]:
    """Everything, as JSON values."""
    chip = self.topology.chip
    return {
      "topology": self.topology.name,
      "chips": self.topology.chips,
      "hosts": self.topology.hosts,
      "chip": dataclasses.asdict(chip),
      "usable_bytes": chip.usable_bytes,
      "assumed": list(self.assumed),
      "batch_size": self.batch_size,
      "fits": self.fits,
      "phases": [self._phase(step) for step in self.steps],
      "images_per_s": self.images_per_s,
      "hours": self.hours,
      "price_per_chip_hour": self.price_per_chip_hour,
      "cost": self.cost,
      "images_per_s_per_host": self.images_per_s / self.topology.hosts,
      "reading": dataclasses.asdict(self.reading),
    }

  def _phase(self, step: Step) -> Mapping[str, Any]:
    times = roofline.times(step, self.topology)
    estimate = {
      **dataclasses.asdict(times),
      "step": times.step,
      "bound": times.bound,
    }
    return {**compiling.as_json(step), "seconds": estimate}

  def lines(self) -> dict[str, str]:
    """{label: value} of the whole run, for people."""
    slice_, worst = self.topology, max(step.needs for step in self.steps)
    room = slice_.chip.usable_bytes / GIB
    need = f"{worst / GIB:.2f} of {room:.2f} GiB per chip"
    found = {
      "topology": f"{slice_.name}: {slice_.chips} chips, {slice_.hosts} hosts",
      **{f"assumed {i + 1}": text for i, text in enumerate(self.assumed)},
      "fits": f"{'yes' if self.fits else 'NO'}, {need if worst else '?'}",
    }
    if not self.fits:
      found["advice"] = (
        "lower --config.batch_size, raise --config.accum_steps, set "
        "--config.fsdp=true, or name a larger --config.topology"
      )
      return found
    found["estimate"] = (
      f"{self.images_per_s:,.0f} images/s, {self.hours:.3g} hours; never run"
    )
    if self.price_per_chip_hour:
      found["cost"] = (
        f"{self.cost:,.2f} at {self.price_per_chip_hour:g} per chip and hour"
      )
    return found | {"reading": self._reading()}

  def _reading(self) -> str:
    reading, hosts = self.reading, self.topology.hosts
    need = self.images_per_s / hosts
    cores = need / reading.images_per_core
    text = (
      f"each host {need:,.0f} images/s, {cores:.1f} cores like this one, which "
      f"makes {reading.images_per_core:,.0f} ({reading.what})"
    )
    if reading.bytes_per_image:
      text += f"; {need * reading.bytes_per_image / 1e6:,.0f} MB/s to read"
    return text

  def table(self) -> Table:
    """A column per phase."""
    columns = [_column(step, self) for step in self.steps]
    labels = dict.fromkeys(label for column in columns for label in column)
    rows = [
      [label, *(column.get(label) for column in columns)] for label in labels
    ]
    title = f"Compiled for {self.topology.name}, per chip and step; never run"
    return Table.of(title, ["", *(step.phase for step in self.steps)], rows)


def _column(step: Step, found: Findings) -> dict[str, Any]:
  """{label: value} of a phase."""
  head = {"steps": step.steps, "fits": "yes" if step.fits else "NO"}
  if step.needs:
    head["memory, GiB"] = step.needs / GIB
  counted = {"TFLOP, counted": step.counted / 1e12}
  if step.memory is None or step.moves is None:
    return head | counted
  memory = dataclasses.asdict(step.memory)
  times = roofline.times(step, found.topology)
  parts = {f"{_PARTS[k]}, GiB": v / GIB for k, v in memory.items() if v}
  return {
    **head,
    **parts,
    "TFLOP": step.flops / 1e12,
    **counted,
    "GB read and written": step.bytes / 1e9,
    **_spoken(step),
    "copies and transposes": step.moves.count,
    "of them, MB": step.moves.bytes / 1e6,
    "compute, ms": times.compute * 1e3,
    "memory, ms": times.memory * 1e3,
    "interconnect, ms": times.interconnect * 1e3,
    "hidden of it, ms": times.hidden * 1e3,
    "step, ms": times.step * 1e3,
    "bound by": times.bound,
    "cycles by the compiler, millions": step.cycles / 1e6,
  }


def _spoken(step: Step) -> dict[str, Any]:
  found: dict[str, Any] = {}
  for each in step.collectives:
    found[each.kind] = each.count
    found[f"{each.kind}, MB"] = each.bytes / 1e6
  return found
