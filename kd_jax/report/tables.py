"""Numbers and tables: as lines of text, Markdown, CSV, and as files."""

from __future__ import annotations

import csv as csv_lib
import dataclasses
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kd_jax import disk, types
from kd_jax.buckets import spool

FOLDER = "tables"

_TAP_ORDER = (*types.STAGES[:-1], "feature", "pooled", "logits")


@dataclasses.dataclass(frozen=True)
class Table:
  """What a page shows below a heading; `keep` and `read` know it as JSON.

  Attributes:
    title: its heading.
    header: names of the columns.
    rows: a cell per column: text, a number, or None where there is nothing.
  """

  title: str
  header: tuple[str, ...]
  rows: tuple[tuple[Any, ...], ...]

  @classmethod
  def of(
    cls, title: str, header: Iterable[str], rows: Iterable[Sequence[Any]]
  ) -> Table:
    """The same of any sequences."""
    return cls(title, tuple(header), tuple(map(tuple, rows)))

  def __post_init__(self) -> None:
    for number, row in enumerate(self.rows, 1):
      if len(row) != len(self.header):
        raise ValueError(
          f"table {self.title!r} row {number} has {len(row)} cells, its header "
          f"{len(self.header)}: {list(self.header)}"
        )


def keep(workdir: str | os.PathLike[str], name: str, table: Table) -> Path:
  """Writes `workdir/tables/<name>.json`, which report.html shows.

  Raises:
    ValueError: the disk is full.
  """
  path = Path(workdir) / FOLDER / f"{name}.json"
  path.parent.mkdir(parents=True, exist_ok=True)
  found = dataclasses.asdict(table)
  # JSON has no word for what is not finite.
  found["rows"] = [[_plain(x) for x in row] for row in table.rows]
  disk.write(path, json.dumps(found, indent=1, allow_nan=False).encode())
  return path


def read(workdir: str | os.PathLike[str]) -> dict[str, Table]:
  """{name: table} of `workdir/tables`, by name; {} without such a folder.

  Raises:
    ValueError: a file holds no table.
  """
  paths = sorted((Path(workdir) / FOLDER).glob("*.json"))
  return {path.stem: _read(path) for path in paths}


def markdown(table: Table) -> str:
  """The table as GitHub writes it, below its title in bold."""
  rows = [table.header, ["-"] * len(table.header)]
  rows += [[cell(x).replace("|", "\\|") for x in row] for row in table.rows]
  lines = "".join(f"| {' | '.join(row)} |\n" for row in rows)
  return f"**{table.title}**\n\n{lines}"


def csv(table: Table) -> str:
  """Header and rows, numbers in full; nothing where a cell is None."""
  file = io.StringIO()
  writer = csv_lib.writer(file, lineterminator="\n")
  writer.writerow(table.header)
  writer.writerows(table.rows)
  return file.getvalue()


def summary(values: Mapping[str, Any]) -> str:
  """Two aligned columns, one line per label; numbers are made readable."""
  return columns([[label, show(value)] for label, value in values.items()])


def tap_table(specs: Mapping[str, types.Specs]) -> str:
  """A table of tap shapes, one column per network, in the order they run.

  Args:
    specs: {'student': {tap: spec}, 'teacher': {tap: spec}}; the first
      dimension is the batch and shows as n.
  """
  taps = sorted({tap for side in specs.values() for tap in side}, key=_rank)
  rows = [
    [
      tap,
      *(_shape(side[tap]) if tap in side else "-" for side in specs.values()),
    ]
    for tap in taps
  ]
  return columns([["tap", *specs], *rows])


def digits(value: float) -> str:
  """Four significant digits, zeros kept so that columns stand still."""
  value = float(value)
  if 1000 <= abs(value) < 1e7:
    return f"{value:,.0f}"
  return f"{value:#.4g}".rstrip(".")


def show(value: Any) -> str:
  """A value as a person reads it: 1,234,567; 0.1; yes; text as it is."""
  if isinstance(value, bool | np.bool_):
    return "yes" if value else "no"
  if isinstance(value, int | np.integer):
    return f"{value:,}"
  if isinstance(value, float | np.floating):
    return digits(float(value)) if abs(value) >= 1000 else f"{value:.4g}"
  return str(value)


def cell(value: Any) -> str:
  """As `show`; fractions keep their zeros, None is a dash."""
  if value is None:
    return "-"
  return digits(value) if isinstance(value, float) else show(value)


def columns(rows: Iterable[Iterable[str]]) -> str:
  """Rows of equal length as aligned lines of text."""
  table = [list(row) for row in rows]
  widths = [max(map(len, column)) for column in zip(*table, strict=True)]
  padded = (map(str.ljust, row, widths) for row in table)
  return "\n".join("  ".join(cells).rstrip() for cells in padded)


def _rank(tap: str) -> tuple[float, str]:
  # Taps of other names (a transformer's blocks) lie between stages and head.
  known = tap in _TAP_ORDER
  rank = _TAP_ORDER.index(tap if known else "feature")
  return (rank if known else rank - 0.5, tap)


def _shape(spec: jax.ShapeDtypeStruct) -> str:
  return " x ".join(["n", *map(str, spec.shape[1:])])


def _read(path: Path) -> Table:
  try:
    return Table.of(**json.loads(path.read_text(encoding="utf-8")))
  except (ValueError, TypeError) as error:
    raise ValueError(
      f"{spool.address(path)} holds no table ({error}); it needs a title, a "
      "header and rows of as many cells: repair or delete it"
    ) from error


def _plain(value: Any) -> Any:
  """What JSON can hold of a cell."""
  value = value.item() if isinstance(value, np.generic) else value
  finite = not isinstance(value, float) or math.isfinite(value)
  return value if finite else str(value)
