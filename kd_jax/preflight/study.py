"""Compiles an experiment for a slice, and keeps what was found."""

from __future__ import annotations

import json
from pathlib import Path

from kd_jax import workdir
from kd_jax.preflight import compiling, hosts, lowering
from kd_jax.preflight.findings import Findings
from kd_jax.preflight.topologies import Topology
from kd_jax.report import page, tables
from kd_jax.train.experiment import Experiment

FILE = "preflight.json"


def study(
  experiment: Experiment,
  topology: Topology,
  *,
  price: float,
  assumed: tuple[str, ...],
) -> Findings:
  """Compiles the step of every phase; minutes for large networks.

  Args:
    experiment: on the devices of `topology`; shapes alone.
    topology: the slice.
    price: of a chip and hour; 0 if unknown.
    assumed: what stands in for things that are not here.

  Raises:
    ValueError: the compiler refuses a step for another reason than its size.
  """
  inputs = experiment.inputs
  lowered = lowering.steps_of(experiment)
  return Findings(
    topology=topology,
    steps=tuple(compiling.step(each, topology) for each in lowered),
    batch_size=experiment.schedule.batch_size,
    crops=inputs.views.num_crops,
    reading=hosts.measure(inputs.source, inputs.views),
    price_per_chip_hour=price,
    assumed=assumed,
  )


def text(found: Findings) -> str:
  """What a terminal shows."""
  table = found.table()
  rows = [table.header, *([tables.cell(x) for x in r] for r in table.rows)]
  return (
    f"{tables.summary(found.lines())}\n\n{table.title}\n"
    f"{tables.columns(rows)}\n"
  )


def keep(found: Findings, where: Path) -> None:
  """Writes preflight.json, and the tables that report.html shows.

  Raises:
    ValueError: the disk is full.
  """
  workdir.write(where / FILE, json.dumps(found.as_json(), indent=1))
  lines = tables.Table.of("Preflight", ("what", "found"), found.lines().items())
  tables.keep(where, "preflight", lines)
  tables.keep(where, "preflight_phases", found.table())
  page.write_report(where)
