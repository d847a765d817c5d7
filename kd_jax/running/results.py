"""What a finished transfer leaves: results.json, a table, report.html."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from kd_jax import workdir
from kd_jax.buckets import spool
from kd_jax.report import page, tables
from kd_jax.running.transfer import Outcome
from kd_jax.transfer.plan import Plan
from kd_jax.transfer.protocol import mean_and_error

FILE = "results.json"
_SHOWN = 3  # runs whose curves the report holds
_BEST = "best evaluation on the test images (the paper's protocol)"
_SEARCHED = "rate by held-out training images, last weights"
_GIVEN = "one rate, last weights"
_TRAINED = {"network": "fine-tuned network", "head": "head on frozen features"}


def summed_up(
  plan: Plan,
  outcome: Outcome,
  evals: Mapping[str, Sequence[float]],
  shown: Sequence[str] = (),
) -> dict[str, Any]:
  """What results.json holds.

  Args:
    plan: of the transfer.
    outcome: what its runs gave.
    evals: figures of the features as they came, of every seed.
    shown: names of the figures that tables have; () takes all.

  Returns:
    The start, the protocol, and {'figures': {name: values of every seed}}.
  """
  protocol = plan.protocol
  names = outcome.runs[0].figures
  return {
    "start": plan.start,
    "student": plan.experiment.names.student,
    "figure": outcome.figure,
    "best_test": outcome.best_test,
    "trains": protocol.trains,
    "shots": protocol.shots,
    "seeds": list(protocol.seeds),
    "rate": outcome.rate,
    "search": {f"{rate:g}": value for rate, value in outcome.search.items()},
    "train_images": len(plan.parts.source),
    "held_out_images": len(plan.parts.held),
    "test_images": len(plan.test),
    "figures": {name: outcome.values(name) for name in names},
    "shown": [name for name in names if name in shown or not shown],
    "evals": {name: list(values) for name, values in evals.items()},
    "seconds": sum(run.seconds for run in outcome.runs),
  }


def write(found: Mapping[str, Any], where: Path) -> None:
  """Writes results.json: from now on the transfer counts as finished."""
  if jax.process_index() == 0:
    workdir.write(where / FILE, json.dumps(found, indent=2))


def show(found: Mapping[str, Any], where: Path, title: str) -> None:
  """Prints the table, and writes report.html."""
  if jax.process_index():
    return
  header, rows = rows_of(found)
  print(f"\n{title}\n\n{tables.columns([header, *rows])}\n", flush=True)
  finals = sorted((where / "trials").glob("final_*"))[:_SHOWN]
  shown = {"Result": (header, rows)}
  if found["search"]:
    shown["Choice of the rate"] = _search(found)
  report = page.write_report(
    where,
    title=title,
    tables=shown,
    sections={folder.name: folder for folder in finals},
  )
  print(f"report: {spool.address(report)}", flush=True)


def rows_of(
  found: Mapping[str, Any],
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
  """(header, rows) of the table: the runs, then the features as they came."""
  seeds = len(found["seeds"])
  figures = {name: percent(found["figures"][name]) for name in found["shown"]}
  header = ("what", "start", "rate", *figures, "seeds", "chosen by")
  blank = ("",) * (len(figures) - 1)
  rows = [
    (
      _TRAINED[found["trains"]],
      found["start"],
      f"{found['rate']:g}",
      *figures.values(),
      str(seeds),
      _chosen(found),
    )
  ]
  for name, values in found["evals"].items():
    cells = (percent(values), *blank, str(len(values)))
    rows.append((f"{name} of the features", found["start"], "-", *cells, "-"))
  return header, rows


def _chosen(found: Mapping[str, Any]) -> str:
  """What chose rate and weights, for people."""
  if found["best_test"]:
    return _BEST
  return _SEARCHED if found["search"] else _GIVEN


def percent(values: Sequence[float]) -> str:
  """'61.2 ± 0.8 %': mean and its standard error; '?' with one value."""
  mean, error = mean_and_error(values)
  spread = "?" if error is None else f"{100 * error:.1f}"
  return f"{100 * mean:.1f} ± {spread} %"


def _search(
  found: Mapping[str, Any],
) -> tuple[tuple[str, str], list[tuple[str, str]]]:
  """What chose the rate."""
  rows = [(rate, f"{100 * v:.1f} %") for rate, v in found["search"].items()]
  return ("rate", f"{found['figure']} on held-out images"), rows


def read(where: Path) -> dict[str, Any] | None:
  """What a finished transfer left in its folder; None if it is not finished.

  Raises:
    ValueError: the file is damaged.
  """
  path = where / FILE
  if not path.exists():
    return None
  try:
    found = json.loads(path.read_text(encoding="utf-8"))
    return dict(found)
  except ValueError as error:
    raise ValueError(
      f"{spool.address(path)} is damaged ({error}); delete it, and run the "
      "command again"
    ) from error
