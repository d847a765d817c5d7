"""Many runs in one table: a row per student, a column per data set.

Cells are means over seeds with standard errors of the mean, in per cent.
Differences to a baseline are taken seed by seed, see `transfer.paired`. Seeds
of different data sets have nothing in common; so the error of a mean over data
sets is the root of the summed squares of theirs, divided by their number.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kd_jax import disk
from kd_jax.report import plots, tables
from kd_jax.report.plots import COLORS, INK
from kd_jax.transfer import paired

if TYPE_CHECKING:
  from matplotlib import axes

MEAN = "mean"
"""Name of the column over all data sets."""

_PER_ROW = 4  # Panels of the chart beside each other.


class Estimate(NamedTuple):
  """A mean and its standard error; None with a single seed."""

  mean: float
  error: float | None

  def text(self, sign: str = "") -> str:
    """'73.40 ± 0.31' in per cent; sign '+' shows it always."""
    error = "?" if self.error is None else f"{100 * self.error:.2f}"
    return f"{100 * self.mean:{sign}.2f} ± {error}"


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Results of several runs.

  Attributes:
    values: row -> column -> values in [0, 1], one per seed. Rows and columns
      are shown in the order in which they occur; a row may lack columns.
    baseline: the row that is subtracted from the others; '' is none.
    title: what the values are.
  """

  values: Mapping[str, Mapping[str, Sequence[float]]]
  baseline: str = ""
  title: str = "Transfer"

  def __post_init__(self) -> None:
    if self.baseline and self.baseline not in self.values:
      raise ValueError(
        f"the baseline {self.baseline!r} is none of the rows "
        f"{[*self.values]}; name one of them, or ''"
      )
    if MEAN in self.columns:
      raise ValueError(
        f"a data set cannot be called {MEAN!r}, the column over all of them "
        "is; rename it"
      )
    for row, cells in self.values.items():
      for column, values in cells.items():
        self._check(row, column, values)

  def _check(self, row: str, column: str, values: Sequence[float]) -> None:
    base = self.values.get(self.baseline, {}).get(column, values)
    if not len(values) or len(values) != len(base):
      raise ValueError(
        f"{row!r} on {column!r} has {len(values)} values and the baseline "
        f"{len(base)}; run every row with the same seeds, at least one"
      )

  @property
  def columns(self) -> tuple[str, ...]:
    """All data sets."""
    return tuple(dict.fromkeys(c for row in self.values.values() for c in row))

  def value(self, row: str, column: str) -> Estimate | None:
    """The mean of a cell, or of a row (column `MEAN`); None if it is empty."""
    return self._estimate(row, column, _alone)

  def difference(self, row: str, column: str) -> Estimate | None:
    """How far a row is above the baseline; None where one of them is empty."""
    if not self.baseline or row == self.baseline:
      return None
    base = self.values[self.baseline]

    def measure(values: Sequence[float], column: str) -> Estimate | None:
      if column not in base:
        return None
      return Estimate(*paired.difference(values, base[column])[1:])

    return self._estimate(row, column, measure)

  def seeds(self, row: str, column: str) -> Sequence[float]:
    """Every value of a cell, above the baseline's if there is one."""
    values = self.values[row].get(column, ())
    base = self.values.get(self.baseline, {}).get(column)
    if not len(values) or base is None:
      return values
    return paired.difference(values, base).per_seed

  def _estimate(
    self,
    row: str,
    column: str,
    measure: Callable[[Sequence[float], str], Estimate | None],
  ) -> Estimate | None:
    cells = self.values[row]
    if column in cells:
      return measure(cells[column], column)
    if column != MEAN or set(cells) != set(self.columns):
      return None
    found = [measure(cells[name], name) for name in self.columns]
    known = [each for each in found if each is not None]
    return _joined(known) if len(known) == len(found) else None


def results_table(given: Comparison) -> tables.Table:
  """Means ± standard errors of the mean; the last column is over all."""
  return _table(given, f"{given.title} (%, ± standard error)", given.value, "")


def difference_table(given: Comparison) -> tables.Table:
  """Paired differences to the baseline ± their standard errors."""
  title = f"{given.title}: points above {given.baseline}, seed by seed"
  found = _table(given, title, given.difference, "+")
  rows = [row for row in found.rows if row[0] != given.baseline]
  return tables.Table.of(title, found.header, rows)


def long_table(given: Comparison) -> tables.Table:
  """A row per cell with all numbers in full, for scripts; shares in [0, 1]."""
  header = (
    *("row", "column", "seeds", "mean", "standard_error"),
    *("difference", "difference_error", "values"),
  )
  rows = [
    (
      *(row, column, len(values)),
      *(given.value(row, column) or (None, None)),
      *(given.difference(row, column) or (None, None)),
      " ".join(map(repr, map(float, values))),
    )
    for row, cells in given.values.items()
    for column, values in cells.items()
  ]
  return tables.Table.of(given.title, header, rows)


def write(
  folder: str | os.PathLike[str], given: Comparison, name: str = "comparison"
) -> dict[str, tables.Table]:
  """Writes `<name>.md`, `<name>.csv` and `pictures/<name>.png` to a folder.

  The tables themselves go to `tables/<name>*.json`, from where, like the
  picture, they get into the folder's report.html.

  Returns:
    What was written to `tables`: {name: table}.

  Raises:
    ValueError: the disk is full.
  """
  root = Path(folder)
  (root / "pictures").mkdir(parents=True, exist_ok=True)
  found = {name: results_table(given)}
  if given.baseline:
    found[f"{name}_differences"] = difference_table(given)
  for each, table in found.items():
    tables.keep(root, each, table)
  text = "\n".join(map(tables.markdown, found.values()))
  disk.write(root / f"{name}.md", text.encode())
  disk.write(root / f"{name}.csv", tables.csv(long_table(given)).encode())
  disk.write(root / "pictures" / f"{name}.png", chart(given))
  return found


def chart(given: Comparison) -> bytes:
  """A PNG: a panel per data set, a row per student.

  With a baseline panels show paired differences, else means: a dot per seed,
  and the mean with a bar of its standard error.
  """
  rows, columns = [*given.values], _shown(given)
  wide = min(len(columns), _PER_ROW)
  high = -(-len(columns) // _PER_ROW)
  size = (9.0, 0.7 + high * (0.8 + 0.34 * len(rows)))
  from matplotlib import figure

  fig = figure.Figure(figsize=size, layout="constrained")
  grid = fig.subplots(high, wide, squeeze=False, sharey=True).reshape(-1)
  for ax in grid[len(columns) :]:
    ax.set_axis_off()
  for ax, column in zip(grid, columns, strict=False):
    _panel(ax, given, column)
    ax.set_yticks(range(len(rows)), rows)
    ax.set_ylim(len(rows) - 0.4, -0.6)
  what = f"points above {given.baseline}, same seeds" if given.baseline else "%"
  words = f"{given.title}\n{what}; a dot is a seed, ± standard error"
  fig.suptitle(words, fontsize=10, color=INK, weight="bold")
  return plots.png(fig)


def _alone(values: Sequence[float], column: str) -> Estimate:
  del column
  found = paired.difference(values, [0.0] * len(values))
  return Estimate(found.mean, found.error)


def _joined(parts: Sequence[Estimate]) -> Estimate:
  """The mean of independent estimates."""
  errors = [part.error for part in parts if part.error is not None]
  error = float(np.sqrt(np.sum(np.square(errors)))) / len(parts)
  known = len(errors) == len(parts)
  mean = float(np.mean([part.mean for part in parts]))
  return Estimate(mean, error if known else None)


def _shown(given: Comparison) -> tuple[str, ...]:
  """Columns, and their mean if there are several."""
  several = len(given.columns) > 1
  return (*given.columns, MEAN) if several else given.columns


def _table(
  given: Comparison,
  title: str,
  measure: Callable[[str, str], Estimate | None],
  sign: str,
) -> tables.Table:
  columns = _shown(given)
  rows = []
  for row in given.values:
    found = [measure(row, column) for column in columns]
    rows.append((row, *(x.text(sign) if x else None for x in found)))
  return tables.Table.of(title, ("", *columns), rows)


def _estimate(
  ax: axes.Axes,
  row: int,
  found: Estimate,
  seeds: Sequence[float],
  *,
  signed: bool,
) -> None:
  """A dot per seed, the mean with its bar, and what they are in words."""
  color, bar = COLORS[row % len(COLORS)], 100 * (found.error or 0.0)
  mean, sign = 100 * found.mean, "+" if signed else ""
  dots = 100 * np.asarray(seeds)
  ax.plot(dots, np.full(len(dots), row), "o", color=color, ms=3, alpha=0.5)
  ax.errorbar(mean, row, xerr=bar, fmt="|", color=color, ms=9, lw=2)
  ax.annotate(
    f"{mean:{sign}.1f} ± {bar:.1f}",
    (mean, row - 0.34),
    ha="center",
    va="center",
    fontsize=7,
    color=INK,
  )


def _panel(ax: axes.Axes, given: Comparison, column: str) -> None:
  measure = given.difference if given.baseline else given.value
  for row, name in enumerate(given.values):
    found = measure(name, column)
    if found is not None:
      seeds, signed = given.seeds(name, column), bool(given.baseline)
      _estimate(ax, row, found, seeds, signed=signed)
  if given.baseline:
    ax.axvline(0, color=INK, lw=1.0)
  ax.set_title(column, loc="left", fontsize=9, color=INK, weight="bold")
  ax.margins(x=0.15)
  from matplotlib import ticker

  ax.xaxis.set_major_locator(ticker.MaxNLocator(4))
  ax.tick_params(colors=INK, labelsize=8, length=0)
  ax.grid(color=INK, alpha=0.22, lw=0.6)
  ax.set_axisbelow(True)
  for side, spine in ax.spines.items():
    spine.set_visible(side == "bottom")
    spine.set_color(INK)
