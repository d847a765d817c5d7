"""A list of transfers for a list of students, in one table.

Every cell is a transfer in a folder of its own; what is finished is not run
again. Rows see the same images under the same seed, so that their differences
to the baseline are taken seed by seed.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from kd_jax import resolve, workdir
from kd_jax.buckets import spool
from kd_jax.build.suite import Cell, Row
from kd_jax.report import comparison, page, tables
from kd_jax.report.run import summary
from kd_jax.running import abreast, frozen, results, training
from kd_jax.train.views import as_unit
from kd_jax.transfer.classify import Judge
from kd_jax.transfer.plan import Plan
from kd_jax.transfer.protocol import mean_and_error
from kd_jax.types import Array, Taps

FILE = "results.json"
Job = Callable[[Path], object]
Cells = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""row -> column -> what the results.json of a cell holds."""


@dataclasses.dataclass(frozen=True)
class Table:
  """What a suite found.

  Attributes:
    title: of the page.
    rows: {student: what to call it}.
    columns: {transfer: what to call it}.
    baseline: the row that the others are compared with.
    cells: what every transfer gave; some may be missing.
  """

  title: str
  rows: Mapping[str, str]
  columns: Mapping[str, str]
  baseline: str
  cells: Cells


def played(
  jobs: Mapping[str, tuple[Job, Path]],
  least: Mapping[str, float],
  needs: Mapping[str, Sequence[str]] | None = None,
  at_once: int = 1,
  cells: Sequence[tuple[Cell, Row]] = (),
) -> tuple[dict[str, tuple[Path, float]], Cells]:
  """Runs what the students come from, and every cell, or reads what it gave.

  Args:
    jobs: {name: (what runs in a folder, the folder)}, in this order.
    least: figure on test images of its own task that a run must reach: the one
      that counts in a transfer, the accuracy in pre-training.
    needs: {name: earlier jobs that must have ended before it begins}.
    at_once: so many run side by side.
    cells: transfers, and their students, which begin once the run that the
      student comes from has ended.

  Returns:
    ({name: (folder of the run, seconds)}, what the cells gave).

  Raises:
    ValueError: a run has not learned enough.
  """
  number = {name: place for place, name in enumerate(jobs)}
  work: list[Callable[[], Any]] = []
  waits: list[list[int]] = []
  for name, (job, folder) in jobs.items():
    work.append(functools.partial(_play, name, job, folder, least))
    waits.append([number[each] for each in (needs or {}).get(name, ())])
  for cell, row in cells:
    work.append(functools.partial(_filled, cell, row))
    waits.append([number[row.init_from]] if row.init_from in number else [])
  found = abreast.results(work, at_once, waits)
  filled: dict[str, dict[str, Mapping[str, Any]]] = {}
  for (cell, _), values in zip(cells, found[len(jobs) :], strict=True):
    filled.setdefault(cell.row, {})[cell.column] = values
  return dict(zip(jobs, found, strict=False)), filled


def _play(
  name: str, job: Job, folder: Path, least: Mapping[str, float]
) -> tuple[Path, float]:
  summary.say(f"\n--- {name} ---")
  start = time.monotonic()
  job(folder)
  seconds = time.monotonic() - start
  if name in least:
    _check(name, folder, least[name])
  return folder, seconds


def _check(name: str, folder: Path, least: float) -> None:
  """Whether a network has learned enough to teach.

  Raises:
    ValueError: it has not.
  """
  figure, found = _reached(folder)
  said = f"{name}: {figure} {100 * found:.1f} % on test images of its own task"
  summary.say(said)
  if found < least:
    raise ValueError(
      f"{said}, less than the {100 * least:.0f} % asked for: what it would "
      "teach is worth little. Train it longer or at another rate "
      f"(config.runs.{name}), or lower --config.least.{name}"
    )


def _reached(folder: Path) -> tuple[str, float]:
  """(name, value) of what a run has learned of its own task."""
  known = results.read(folder)
  if known is None:
    return "accuracy", training.last_figures(folder)["eval/accuracy"]
  return known["figure"], mean_and_error(_figure(known))[0]


def _filled(cell: Cell, row: Row) -> Mapping[str, Any]:
  """Runs a cell, or reads what it gave."""
  known = results.read(cell.folder)
  if known is None:
    with workdir.claimed(cell.folder, cell.fields):
      known = _run(cell, row)
  summary.say(_line(f"{row.title}, {cell.column}", known))
  return known


def _run(cell: Cell, row: Row) -> Mapping[str, Any]:
  summary.say(f"\n--- {row.title}, {cell.column} ---")
  plan = cell.plan()
  if row.pixels:
    return _pixel_classifier(plan, cell.folder)
  conclude = resolve.symbol("running", cell.fields["task"], "conclude")
  return conclude(plan, cell.folder)


def _pixel_classifier(plan: Plan[Judge], where: Path) -> dict[str, Any]:
  """What a linear classifier of raw pixels reaches on the same images."""
  protocol = dataclasses.replace(plan.protocol, evals=("probe",))
  asked = dataclasses.replace(plan, protocol=protocol)

  def pixels(image: Array) -> Taps:
    return {frozen.TAP: as_unit(image).reshape(len(image), -1)}

  found = frozen.judged(asked, plan.judge.batches, jax.jit(pixels))
  figures = {plan.judge.figure: found["probe"]}
  values = {"figure": plan.judge.figure, "figures": figures}
  results.write(values, where)
  return values


def concluded(
  table: Table, runs: Mapping[str, tuple[Path, float]], where: Path
) -> dict[str, Any]:
  """Prints the table; writes it as HTML, Markdown, CSV and a chart.

  Args:
    table: what was found.
    runs: folder and seconds of what the students come from.
    where: the folder.

  Returns:
    What results.json holds.
  """
  given = comparison.Comparison(
    _values(table), table.rows[table.baseline], table.title
  )
  rates = {
    table.rows[row]: {c: cell.get("rate") for c, cell in cells.items()}
    for row, cells in table.cells.items()
  }
  found = {
    "baseline": given.baseline,
    "values": given.values,
    "rates": rates,
    "seconds": {name: seconds for name, (_, seconds) in runs.items()},
  }
  shown = comparison.write(where, given)
  workdir.write(where / FILE, json.dumps(found, indent=2))
  for each in list(shown.values())[:2]:
    rows = [[tables.cell(x) for x in row] for row in each.rows]
    print(f"\n{each.title}\n\n{tables.columns([each.header, *rows])}")
  sections = {name: folder for name, (folder, _) in runs.items()}
  path = page.write_report(where, title=table.title, sections=sections)
  print(f"\nreport: {spool.address(path)}", flush=True)
  return found


def _values(table: Table) -> dict[str, dict[str, Sequence[float]]]:
  """{title of the row: {title of the column: value of every seed}}."""
  return {
    table.rows[row]: {
      f"{table.columns[column]} ({cell['figure']})": _figure(cell)
      for column, cell in cells.items()
    }
    for row, cells in table.cells.items()
  }


def _figure(cell: Mapping[str, Any]) -> Sequence[float]:
  """The figure that counts, of every seed."""
  return cell["figures"][cell["figure"]]


def _line(name: str, cell: Mapping[str, Any]) -> str:
  """A cell in a few words."""
  mean, error = mean_and_error(_figure(cell))
  spread = "?" if error is None else f"{100 * error:.1f}"
  return f"{name}: {cell['figure']} {100 * mean:.1f} ± {spread} %"
