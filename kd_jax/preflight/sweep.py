"""Recipes on TPU slices: a preflight for every cell of a table.

Each runs in a process of its own, so that nothing of one reaches the next, and
leaves a folder behind; what is done is not done again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kd_jax.preflight import topologies
from kd_jax.preflight.chips import GIB
from kd_jax.preflight.study import FILE
from kd_jax.report.tables import Table

_HEAD = (
  "recipe",
  "slice",
  "batch",
  "GiB per chip",
  "TFLOP per chip",
  "collectives",
  "MB in them",
  "step, ms",
  "bound by",
  "images/s",
  "hours",
)


@dataclasses.dataclass(frozen=True)
class Cell:
  """One recipe on one slice with one batch.

  Attributes:
    label: of the recipe, for people.
    recipe: FILE[:variant].
    topology: the slice.
    batch_size: global; 0 is the recipe's own.
    overrides: of the recipe, as on the command line.
    price: of a chip and hour; 0 if unknown.
  """

  label: str
  recipe: str
  topology: str
  batch_size: int
  overrides: tuple[str, ...]
  price: float = 0.0

  @property
  def fields(self) -> list[str]:
    """All overrides of the recipe."""
    found = [*self.overrides, "dry_run=True", f"topology={self.topology}"]
    if self.batch_size:
      found.append(f"batch_size={self.batch_size}")
    if self.price:
      found.append(f"price_per_chip_hour={self.price}")
    return found

  @property
  def command(self) -> str:
    """What a person would type."""
    flags = " ".join(f"--config.{field}" for field in self.fields)
    return f"python -m kd_jax.main --config {self.recipe} {flags}"

  @property
  def folder(self) -> str:
    """A name of its own."""
    digest = hashlib.sha256(self.command.encode()).hexdigest()[:8]
    kind = topologies.find(self.topology).name.replace(":", "-")
    return f"{Path(self.recipe.partition(':')[0]).stem}-{kind}-{digest}"


@dataclasses.dataclass(frozen=True)
class Done:
  """A cell and what became of it.

  Attributes:
    cell: the cell.
    found: its preflight.json; {} if there is none.
    error: why there is none.
  """

  cell: Cell
  found: Mapping[str, Any]
  error: str = ""


Run = Callable[[Cell, Path], str]
"""(cell, its folder) -> why it failed; '' leaves preflight.json there."""


def cells(
  rows: Iterable[Sequence[Any]],
  slices: Sequence[str],
  batch_sizes: Sequence[int],
  batch_per_chip: Sequence[int],
  price: float,
) -> list[Cell]:
  """The cells of a table, recipe by recipe.

  Args:
    rows: (label, recipe, overrides) of every recipe.
    slices: names of topologies.
    batch_sizes: global; with none of either kind, the recipe's own.
    batch_per_chip: the same for each chip.
    price: of a chip and hour; 0 if unknown.

  Raises:
    ValueError: there is none, or an unknown topology.
  """
  found = []
  for (label, recipe, overrides), name in itertools.product(rows, slices):
    chips = topologies.find(name).chips
    sizes = [*batch_sizes, *(n * chips for n in batch_per_chip)] or [0]
    found += [
      Cell(label, recipe, name, size, tuple(overrides), price) for size in sizes
    ]
  if not found:
    raise ValueError(
      "there is nothing to compile: name slices with "
      "--config.topologies=\"('v5e-8',)\""
    )
  return found


def fill(cell: Cell, where: Path, run: Run) -> Done:
  """A cell of the table, from its folder or compiled now.

  Args:
    cell: which.
    where: the folder of the sweep.
    run: makes it.
  """
  folder = where / "cells" / cell.folder
  path = folder / FILE
  error = "" if path.exists() else run(cell, folder)
  if error:
    return Done(cell, {}, error)
  try:
    return Done(cell, json.loads(path.read_text(encoding="utf-8")))
  except (OSError, ValueError) as problem:
    return Done(cell, {}, f"{path} cannot be read ({problem}); delete it")


def in_a_process(timeout: float) -> Run:
  """Runs a cell with this Python, for at most so many seconds."""

  def run(cell: Cell, folder: Path) -> str:
    flags = [f"--config.{field}" for field in cell.fields]
    command = [sys.executable, "-m", "kd_jax.main", "--config", cell.recipe]
    try:
      done = subprocess.run(
        [*command, "--workdir", str(folder), *flags],
        capture_output=True,
        text=True,
        timeout=timeout,
      )
    except subprocess.TimeoutExpired:
      return f"not compiled after {timeout:g} s"
    if done.returncode < 0:  # its last line is the stack's, not a reason
      return (
        f"the compiler was ended by signal {-done.returncode}; try another "
        "libtpu (requirements-tpu.txt), or more memory"
      )
    lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
    return lines[-1] if done.returncode else ""

  return run


def table(done: Iterable[Done]) -> Table:
  """A row per cell."""
  rows = [_row(each) for each in done]
  return Table.of("Compiled for TPU slices, never run", _HEAD, rows)


def _row(each: Done) -> list[Any]:
  cell, found = each.cell, each.found
  if not found:
    head = [cell.label, cell.topology, cell.batch_size or None, each.error]
    return head + [None] * (len(_HEAD) - len(head))
  phases = found["phases"]
  spoken = [each for phase in phases for each in phase["collectives"]]
  steps = sum(phase["steps"] for phase in phases)
  worst = max(phase["needs"] for phase in phases) / GIB
  head = [cell.label, cell.topology, found["batch_size"]]
  if not found["fits"]:
    room = found["usable_bytes"] / GIB
    need = f"does not fit: at least {worst:.1f} of {room:.2f}"
    return [*head, need] + [None] * (len(_HEAD) - 4)

  def mean(name: str) -> float:
    """Of a figure of the phases, by their steps."""
    return sum(phase["steps"] * phase[name] for phase in phases) / steps

  seconds = found["hours"] * 3600 / steps
  longest = max(phases, key=lambda p: p["steps"] * p["seconds"]["step"])
  return [
    *head,
    worst,
    mean("flops") / 1e12,
    max(sum(x["count"] for x in p["collectives"]) for p in phases),
    max(sum(x["bytes"] for x in p["collectives"]) for p in phases) / 1e6
    if spoken
    else 0.0,
    seconds * 1e3,
    longest["seconds"]["bound"],
    round(found["images_per_s"]),
    found["hours"],
  ]
