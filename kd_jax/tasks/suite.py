"""What students are worth: a list of transfers for a list of them.

Runs that the students come from may come first. Everything has a folder of its
own, so that the same command goes on after a kill. The workdir ends with one
table (report.html, comparison.md, comparison.csv), a chart and results.json.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from kd_jax import resolve, workdir
from kd_jax.buckets import spool
from kd_jax.build import suite as build
from kd_jax.running import abreast, suite


def run(config: ConfigDict, where: str | Path) -> dict[str, Any]:
  """Runs or continues the suite of `config` in the folder `where`.

  Returns:
    What results.json holds.

  Raises:
    ValueError: more than one process; a row, column or run that does not
      exist; a teacher that has not learned its task; or anything that the
      runs and transfers refuse.
    Stopped: SIGTERM; the state is saved.
  """
  if jax.process_count() > 1:
    raise ValueError(
      f"a suite runs in one process, not in {jax.process_count()}; start it "
      "with python -m kd_jax.main"
    )
  where = Path(where)
  students = build.rows(config, where)
  about = {"task": config.task, "runs": list(config.order)}
  with workdir.claimed(where, about):
    jobs, needs, trackers = {}, {}, ()
    for name in config.order:
      fields = config.runs[name]
      trackers += tuple(fields.get("trackers", ()))
      # A transfer has no teacher.
      teacher = fields.get("teacher", ConfigDict({"weights": ""}))
      source = teacher.weights.partition("/")[0]
      # One that comes later is missing, as its loader will say.
      needs[name] = [source] if source in jobs else []
      if source in config.order:
        teacher.weights = spool.address(where / teacher.weights)
      task = resolve.symbol("tasks", fields.task, "run")
      jobs[name] = functools.partial(task, fields), where / name
    at_once = abreast.allowed(config.at_once, trackers)
    cells = build.cells(config, students, where)
    played, filled = suite.played(
      jobs,
      config.least.to_dict(),
      needs,
      at_once,
      [(cell, students[cell.row]) for cell in cells],
    )
    table = suite.Table(
      title=config.title,
      rows={name: row.title for name, row in students.items()},
      columns={name: config.titles.get(name, name) for name in config.columns},
      baseline=config.baseline,
      cells=filled,
    )
    return suite.concluded(table, played, where)
