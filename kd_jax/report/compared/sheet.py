"""The page that compares runs: curves on the same axes, figures, settings."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kd_jax.report import markup, plots
from kd_jax.report.compared.record import Record
from kd_jax.report.tables import Table

_FIRST = ("loss/total", "eval/feature_error")
_LOG_FROM = 20.0  # ratio of the largest to the smallest value
_ABOUT = (
  ("student", "student"),
  ("its parameters", "student_parameters"),
  ("its GFLOPs per image", "student_gflops_per_image"),
  ("teacher", "teacher"),
  ("method", "task"),
  ("images", "images"),
  ("devices", "devices"),
)
"""Label -> key of a run's summary."""


def page(runs: Sequence[Record]) -> str:
  """The whole page, which needs neither network nor scripts."""
  title = f"{len(runs)} runs side by side"
  parts = [
    markup.headed(title, 1, ""),
    _part(figures(runs)),
    markup.headed("Curves", 2, markup.gallery(curves(runs))),
    _part(facts(runs)),
    _part(settings(runs), "All fields of their configs are the same."),
    _part(versions(runs), "They ran with the same versions of everything."),
  ]
  return markup.page(title, "".join(parts))


def curves(runs: Sequence[Record]) -> dict[str, bytes | None]:
  """{metric: PNG with a line per run that has it}."""
  return {
    name: plots.overlaid(_series(runs, name), name, log_from=_LOG_FROM)
    for name in _metrics(runs)
    if name != "grad_norm"
  }


def figures(runs: Sequence[Record]) -> Table:
  """The last value of every metric, and what students were worth."""
  rows: list[tuple[object, ...]] = [
    (name, *(run.last.get(name) for run in runs)) for name in _metrics(runs)
  ]
  worth = [_worth(run) for run in runs]
  for name in dict.fromkeys(name for each in worth for name in each):
    rows.append((name, *(each.get(name) for each in worth)))
  return _table("Final figures", runs, rows)


def facts(runs: Sequence[Record]) -> Table:
  """Networks, length and speed."""
  kept = {label: [r.about.get(key) for r in runs] for label, key in _ABOUT}
  kept["steps"] = [_steps(run) for run in runs]
  kept["images seen"] = [run.views for run in runs]
  kept["images per second"] = [run.speed for run in runs]
  rows = [
    (label, *values)
    for label, values in kept.items()
    if any(x is not None for x in values)
  ]
  return _table("What ran", runs, rows)


def settings(runs: Sequence[Record]) -> Table:
  """The fields of the configs that differ."""
  return _different("Settings that differ", runs, [r.config for r in runs])


def versions(runs: Sequence[Record]) -> Table:
  """Packages and commits that differ; the difference to a commit is long."""
  found = [{**r.versions} for r in runs]
  for each in found:
    each["changes since the commit"] = (
      "some" if each.pop("diff", "") else "none"
    )
  return _different("Versions that differ", runs, found)


def _different(
  title: str, runs: Sequence[Record], found: Sequence[Mapping[str, Any]]
) -> Table:
  names = sorted({name for each in found for name in each})
  rows = [(name, *(each.get(name) for each in found)) for name in names]
  apart = [row for row in rows if any(x != row[1] for x in row[2:])]
  shown = [(row[0], *map(_said, row[1:])) for row in apart]
  return _table(title, runs, shown)


def _said(value: object) -> object:
  """A value of a config; an empty text would look like a gap."""
  return repr(value) if value == "" or isinstance(value, list) else value


def _table(
  title: str, runs: Sequence[Record], rows: Sequence[Sequence[Any]]
) -> Table:
  return Table.of(title, ("", *(run.name for run in runs)), rows)


def _part(table: Table, empty: str = "") -> str:
  """A table, or what to say where it has no rows."""
  body = f"<p class=note>{html.escape(empty)}</p>"
  if table.rows:
    body = markup.table(table)
  return markup.headed(table.title, 2, body)


def _metrics(runs: Sequence[Record]) -> list[str]:
  """Names of all metrics but the speed, which `facts` has."""
  every = {name for run in runs for name in run.last} - {"images_per_s"}
  first = [name for name in _FIRST if name in every]
  return [*first, *sorted(every - {*first})]


def _series(runs: Sequence[Record], name: str) -> plots.Series:
  """{run: (steps, values)} of a metric."""
  found = {}
  for run in runs:
    kept = plots.series(run.lines, lambda each: each == name)
    if name in kept:
      found[run.name] = kept[name]
  return found


def _steps(run: Record) -> str:
  asked = int(run.config.get("steps", run.steps))
  return f"{run.steps:,}" + f" of {asked:,}" * (not run.finished)


def _worth(run: Record) -> dict[str, str]:
  """{protocol and images: figure} of the evaluation of its student."""
  found = run.worth.get("figures", {}).get("student", {})
  where = run.worth.get("images", "")
  few = run.worth.get("per_class", 0)
  note = f"{few} of each class of {where}" if few else where
  return {
    f"{name}, {note}": f"{100 * float(np.mean(values)):.1f} %"
    for name, values in found.items()
    if values
  }
