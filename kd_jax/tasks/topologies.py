"""Recipes on TPU slices, in one table; see `preflight.sweep`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from ml_collections import ConfigDict

from kd_jax import workdir
from kd_jax.preflight import sweep
from kd_jax.preflight import topologies as topologies_lib
from kd_jax.report import page, tables
from kd_jax.report.run import summary


def run(config: ConfigDict, where: str | Path) -> list[sweep.Done]:
  """Fills the table of `config`, and goes on after a cell that fails.

  Args:
    config: see configs/topologies.py.
    where: folder of results.json, results.md, report.html and the cells.

  Raises:
    ValueError: nothing to compile, an unknown slice, or libtpu is missing.
  """
  where = Path(where)
  topologies_lib.on_cpu()
  topologies_lib.check_installed()
  rows = config.rows or (
    (config.recipe, config.recipe, tuple(config.overrides)),
  )
  cells = sweep.cells(
    rows,
    config.topologies,
    config.batch_sizes,
    config.batch_per_chip,
    config.price_per_chip_hour,
  )
  compiled = sweep.in_a_process(config.timeout)
  done: list[sweep.Done] = []
  with workdir.claimed(where, config.to_dict()):
    for number, cell in enumerate(cells, 1):
      summary.say(f"{number}/{len(cells)} {cell.label} on {cell.topology}")
      done.append(sweep.fill(cell, where, compiled))
      keep(done, where)
  print(tables.markdown(sweep.table(done)))
  return done


def keep(done: list[sweep.Done], where: Path) -> None:
  """Writes the table as far as it is filled.

  Args:
    done: its cells.
    where: the folder.

  Raises:
    ValueError: the disk is full.
  """
  table = sweep.table(done)
  found = [{**dataclasses.asdict(x), "command": x.cell.command} for x in done]
  workdir.write(where / "results.json", json.dumps(found, indent=1))
  workdir.write(where / "results.md", tables.markdown(table))
  tables.keep(where, "topologies", table)
  page.write_report(where)
