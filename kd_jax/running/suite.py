"""A list of transfers for a list of students, in one table.

Every cell is a transfer in a folder of its own; what is finished is not run
again. Rows see the same images under the same seed, so that their differences
to the baseline are taken seed by seed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from kd_jax import workdir
from kd_jax.report import comparison, page, tables
from kd_jax.running import frozen, results
from kd_jax.train.views import as_unit
from kd_jax.transfer.plan import Plan
from kd_jax.transfer.protocol import mean_and_error
from kd_jax.types import Array, Taps

FILE = "results.json"


@dataclasses.dataclass(frozen=True)
class Row:
  """A student of the table.

  Attributes:
    title: what to call it.
    init_from: a run, a file, a folder or a hub name; '' is nothing.
    student: {'name', 'overrides'} of the network; {} is the transfer's own.
    trains: as in `Protocol`; '' is the transfer's own.
    pixels: no network at all: a linear classifier of raw pixels.
  """

  title: str
  init_from: str = ""
  student: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  trains: str = ""
  pixels: bool = False


Cells = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""row -> column -> what its results.json holds."""


def pixel_classifier(plan: Plan, where: Path) -> dict[str, Any]:
  """What a linear classifier of raw pixels reaches on the same images.

  Args:
    plan: of a classification.
    where: folder for its results.json.
  """
  judge = dataclasses.replace(plan.protocol, evals=("probe",))
  asked = dataclasses.replace(plan, protocol=judge)

  def pixels(image: Array) -> Taps:
    return {frozen.TAP: as_unit(image).reshape(len(image), -1)}

  found = frozen.judged(asked, plan.judge.batches, jax.jit(pixels))
  values = {"figures": {plan.judge.figure: found["probe"]}}
  workdir.write(where / results.FILE, json.dumps(values))
  return values


def concluded(
  cells: Cells,
  rows: Mapping[str, Row],
  columns: Mapping[str, str],
  baseline: str,
  seconds: Mapping[str, float],
  where: Path,
  *,
  title: str,
  sections: Mapping[str, Path],
) -> dict[str, Any]:
  """Prints the table; writes it as HTML, Markdown, CSV and a chart.

  Args:
    cells: what every transfer gave.
    rows: the students.
    columns: {transfer: title}.
    baseline: the row that the others are compared with.
    seconds: of every run before the transfers.
    where: the folder.
    title: of the page.
    sections: name -> folder of runs shown on the page.

  Returns:
    What results.json holds.
  """
  values = {
    rows[row].title: {
      columns[column]: figure(cell) for column, cell in found.items()
    }
    for row, found in cells.items()
  }
  names = {columns[c]: _figure_name(cells, c) for c in columns}
  values = {
    row: {f"{c} ({names[c]})": v for c, v in found.items()}
    for row, found in values.items()
  }
  given = comparison.Comparison(values, rows[baseline].title, title)
  found = {
    "baseline": rows[baseline].title,
    "values": values,
    "rates": {row: _rates(found) for row, found in cells.items()},
    "seconds": dict(seconds),
  }
  if jax.process_index() == 0:
    shown = comparison.write(where, given)
    workdir.write(where / FILE, json.dumps(found, indent=2))
    for table in list(shown.values())[:2]:
      text = tables.columns([table.header, *map(_texts, table.rows)])
      print(f"\n{table.title}\n\n{text}", flush=True)
    path = page.write_report(where, title=title, sections=sections)
    print(f"\nreport: {path}", flush=True)
  return found


def figure(cell: Mapping[str, Any]) -> Sequence[float]:
  """The figure that counts, of every seed."""
  name = cell.get("figure") or next(iter(cell["figures"]))
  return cell["figures"][name]


def _figure_name(cells: Cells, column: str) -> str:
  every = [found[column] for found in cells.values() if column in found]
  return next((cell["figure"] for cell in every if "figure" in cell), "")


def _rates(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
  return {c: cell["rate"] for c, cell in found.items() if "rate" in cell}


def _texts(row: Sequence[Any]) -> list[str]:
  return [tables.cell(value) for value in row]


def line(name: str, cell: Mapping[str, Any]) -> str:
  """A cell in a few words."""
  mean, error = mean_and_error(figure(cell))
  spread = "?" if error is None else f"{100 * error:.1f}"
  return f"{name}: {100 * mean:.1f} ± {spread} %"
