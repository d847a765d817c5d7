"""The race's table and chart, of as many runs as there are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import _race_many
from benchmarks import _racers as field
from kd_jax.report import comparison
from kd_jax.transfer import paired

BUDGETS = {"operations": "equal operations", "steps": "equal steps"}
ABOUT = ("steps", "seconds")
"""What is kept of a run beside its figures."""
Figures = dict[str, dict[str, dict[int, float]]]
"""{title: {column: {seed: value}}}."""


def write(where: Path) -> str:
  """Writes race.md and pictures/race.png; returns the text."""
  equal, steps = (figures(where, budget) for budget in BUDGETS)
  parts = [costs(where)]
  if equal:
    parts.append(table(equal, BUDGETS["operations"]))
    (where / "pictures").mkdir(exist_ok=True)
    given = compared(equal, f"The race, {BUDGETS['operations']}")
    (where / "pictures" / "race.png").write_bytes(comparison.chart(given))
  parts += _where_different(equal, steps, BUDGETS["steps"])
  parts += [*_of_two_teachers(where), took(where)]
  text = "\n".join(parts)
  (where / "race.md").write_text(text)
  return text


def _where_different(equal: Figures, steps: Figures, title: str) -> list[str]:
  """A table of what is not the same at equal steps, if anything is."""
  others = {
    name: row
    for place, (name, row) in enumerate(steps.items())
    if not place or row != equal.get(name)
  }
  title = f"{title}, where that is not the same"
  return [table(others, title)] if len(others) > 1 else []


def _of_two_teachers(where: Path) -> list[str]:
  """Tables of the small race, if it was run."""
  of_two = ((_race_many.NAME,), _race_many.racers())
  equal, steps = (figures(where, budget, *of_two) for budget in BUDGETS)
  if not equal:
    return []
  titles = [f"two teachers, {title}" for title in BUDGETS.values()]
  return [
    costs(where, *of_two),
    table(equal, titles[0]),
    *_where_different(equal, steps, titles[1]),
  ]


def took(where: Path) -> str:
  """Processor time of the runs, pre-training and judging, as far as known."""
  every = [json.loads(p.read_text()) for p in where.glob("*/figures/*.json")]
  known = [run["seconds"] for run in every if run.get("seconds")]
  return f"processor time of {len(known)} runs: {sum(known) / 60:.1f} minutes\n"


def figures(
  where: Path,
  budget: str,
  places: Sequence[str] = tuple(field.COURSES),
  racers: Mapping[str, field.Racer] | None = None,
) -> Figures:
  """What every method reached, with the seeds with which the first ran too.

  Args:
    where: folder of the race.
    budget: of `BUDGETS`.
    places: sets of images.
    racers: who took part; all methods if not said.
  """
  racers = racers or field.racers()
  found: Figures = {}
  first = next(iter(racers))
  for name, racer in racers.items():
    row = {}
    for data in places:
      row |= _row(where / data, name, first, budget)
    if row:
      found[racer.title] = row
  return found


def _row(
  folder: Path, name: str, first: str, budget: str
) -> dict[str, dict[int, float]]:
  """Columns of one method and one set of images."""
  both = set(_seeds(folder, name, budget)) & set(_seeds(folder, first, budget))
  row: dict[str, dict[int, float]] = {}
  for seed in sorted(both):
    values = _read(folder, name, budget, seed)
    for figure in (key for key in values if key not in ABOUT):
      row.setdefault(f"{folder.name}, {figure}", {})[seed] = values[figure]
  return row


def compared(found: Figures, title: str) -> comparison.Comparison:
  """The seeds that all methods have."""
  first = next(iter(found))
  common = {
    column: set.intersection(
      *(set(row[column]) for row in found.values() if column in row)
    )
    for column in found[first]
  }
  values = {
    name: {
      column: [row[column][seed] for seed in sorted(seeds)]
      for column, seeds in common.items()
      if column in row and seeds
    }
    for name, row in found.items()
  }
  return comparison.Comparison(values, first, title)


def table(found: Figures, title: str) -> str:
  """Means, and the differences to the first, seed by seed, in brackets."""
  base = next(iter(found.values()))
  rows = [
    [name, *(_cell(row.get(column), base[column]) for column in base)]
    for name, row in found.items()
  ]
  return f"{title}\n\n{_markdown(['method', *base], rows)}"


def _cell(own: Mapping[int, float] | None, base: Mapping[int, float]) -> str:
  if own is None:
    return ""
  mean = f"{100 * sum(own.values()) / len(own):.1f}"
  if own == base:
    return mean
  seeds = sorted(own)
  apart = paired.difference([own[s] for s in seeds], [base[s] for s in seeds])
  error = "?" if apart.error is None else f"{100 * apart.error:.1f}"
  return f"{mean} ({100 * apart.mean:+.1f} ± {error})"


def costs(
  where: Path,
  places: Sequence[str] = tuple(field.COURSES),
  racers: Mapping[str, field.Racer] | None = None,
) -> str:
  """What a step of every method costs, per image."""
  head = ["method"]
  for data in places:
    head += [f"{data}: MFLOPs / image", "CPU ms / step", "MB", "steps"]
  rows = []
  for name, racer in (racers or field.racers()).items():
    cells = [racer.title]
    for data in places:
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
