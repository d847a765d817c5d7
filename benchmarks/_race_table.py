"""The race's table and chart, of as many runs as there are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import _racers as field
from kd_jax.report import comparison

BUDGETS = {"operations": "equal operations", "steps": "equal steps"}
Values = dict[str, dict[str, list[float]]]


def write(where: Path) -> str:
  """Writes race.md and pictures/race.png; returns the text."""
  parts = [costs(where)]
  for budget, title in BUDGETS.items():
    values = figures(where, budget)
    if not values:
      continue
    first = next(iter(field.racers().values())).title
    given = comparison.Comparison(values, first, f"The race, {title}")
    parts.append(table(given, title))
    if budget == "operations":
      (where / "pictures").mkdir(exist_ok=True)
      (where / "pictures" / "race.png").write_bytes(comparison.chart(given))
  text = "\n".join(parts)
  (where / "race.md").write_text(text)
  return text


def figures(where: Path, budget: str) -> Values:
  """{title: {column: value per seed}}, where KDEP ran with the same seeds."""
  names = field.racers()
  seeds = {data: _seeds(where / data, "kdep", budget) for data in field.COURSES}
  found: Values = {}
  for name, racer in names.items():
    for data in field.COURSES:
      if not seeds[data] or _seeds(where / data, name, budget) != seeds[data]:
        continue
      runs = [_read(where / data, name, budget, s) for s in seeds[data]]
      for figure in (k for k in runs[0] if k != "steps"):
        row = found.setdefault(racer.title, {})
        row[f"{data}, {figure}"] = [each[figure] for each in runs]
  return found


def table(given: comparison.Comparison, title: str) -> str:
  """Means, and the differences to the first in brackets."""
  head = ["method", *given.columns]
  rows = []
  for name in given.values:
    cells = [_cell(given, name, column) for column in given.columns]
    rows.append([name, *cells])
  return f"{title}\n\n{_markdown(head, rows)}"


def _cell(given: comparison.Comparison, row: str, column: str) -> str:
  value, apart = given.value(row, column), given.difference(row, column)
  if value is None:
    return ""
  mean = f"{100 * value.mean:.1f}"
  if row == given.baseline or apart is None:
    return mean
  error = "?" if apart.error is None else f"{100 * apart.error:.1f}"
  return f"{mean} ({100 * apart.mean:+.1f} ± {error})"


def costs(where: Path) -> str:
  """What a step of every method costs, per image."""
  head = ["method"]
  for data in field.COURSES:
    head += [f"{data}: MFLOPs / image", "CPU ms / step", "MB", "steps"]
  rows = []
  for name, racer in field.racers().items():
    cells = [racer.title]
    for data in field.COURSES:
      cells += _costs(where / data, name)
    if any(cells[1:]):
      rows.append(cells)
  return f"cost\n\n{_markdown(head, rows)}"


def _costs(folder: Path, name: str) -> list[str]:
  path = folder / "costs" / f"{name}.json"
  if not path.exists():
    return [""] * 4
  cost: Mapping[str, float] = json.loads(path.read_text())
  seeds = _seeds(folder, name, "operations")
  steps = [_read(folder, name, "operations", seed)["steps"] for seed in seeds]
  return [
    f"{cost['operations'] / cost['images'] / 1e6:.1f}",
    f"{1e3 * cost['seconds']:.1f}",
    f"{cost['memory'] / 1e6:.1f}",
    str(int(steps[0])) if steps else "",
  ]


def _seeds(folder: Path, name: str, budget: str) -> list[int]:
  paths = (folder / "figures").glob(f"{name}-{budget}-*.json")
  return sorted(int(path.stem.rpartition("-")[2]) for path in paths)


def _read(folder: Path, name: str, budget: str, seed: int) -> dict[str, float]:
  path = folder / "figures" / f"{name}-{budget}-{seed}.json"
  return json.loads(path.read_text())


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  lines = [head, ["-"] * len(head), *rows]
  return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
