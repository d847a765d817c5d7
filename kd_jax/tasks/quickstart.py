"""The whole story on a laptop: teacher, SVD, distillation, few-label transfer.

A teacher learns digits 0-4 with labels. Then a smaller student of another
width is pre-trained in two ways for the same number of steps: by KDEP from the
teacher on unlabelled images, and with the teacher's labelled ones. Both, and a
student from scratch, are fine-tuned on a few labelled images of digits 5-9.
All three get the same images under the same seed, so that their differences can
be taken seed by seed. Students may also learn from banks that the teacher has
filled.

This shows that the whole path works. It cannot decide what pre-training is
worth: a linear classifier does no worse on the raw pixels of such digits than
on the features learned here (benchmarks/quickstart_features.py).
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from kd_jax import resolve, workdir
from kd_jax.build.finetune import finetune
from kd_jax.report import page as page_lib
from kd_jax.report import tables
from kd_jax.tasks import pretrain
from kd_jax.transfer import paired
from kd_jax.transfer.finetune import Finetune

HEADER = (
  "pre-training of the student",
  "labels",
  "accuracy",
  "paired difference",
  "seconds",
)
TITLE = "Accuracy on new classes after fine-tuning on few labels"
LEGEND = (
  "Accuracy: mean ± standard deviation over seeds. Paired difference: points "
  "above\ntraining from scratch on the same labelled images, mean over seeds "
  "± its standard\nerror."
)
BASELINE = "scratch"
RESULTS = "results.json"


def run(config: ConfigDict, where: str | Path) -> dict[str, list[float]]:
  """Runs the story, prints its table, writes results.json and report.html.

  Returns:
    {kind of pre-training: accuracy of every seed}.

  Raises:
    ValueError: more than one process, no seed, a run that does not exist or
      comes before its teacher, or anything `pretrain` refuses.
  """
  if jax.process_count() > 1:
    raise ValueError(
      f"the quickstart runs in one process, not in {jax.process_count()}; "
      "start it with python -m kd_jax.main"
    )
  _check(config.seeds, config.order, config.runs.keys())
  where = Path(where)
  about = {"task": config.task, "seeds": list(config.seeds)}
  with workdir.claimed(where, about):
    start = time.monotonic()
    jobs = {}
    for name in config.order:
      fields = config.runs[name]
      fields.teacher.weights = str(where / fields.teacher.weights)
      task = resolve.symbol("tasks", fields.task, "run")
      jobs[name] = functools.partial(task, fields, where / name)
    trained, seconds = _played(jobs)
    accuracy = _transferred(finetune(config.finetune), trained, config.seeds)
    results = {
      "seeds": list(config.seeds),
      "labels_per_seed": config.finetune.labels,
      "baseline": BASELINE,
      "seconds": seconds,
      "total_seconds": time.monotonic() - start,
      "rows": summed_up(accuracy, config.titles.to_dict()),
    }
    workdir.write(where / RESULTS, json.dumps(results, indent=2))
    _show(where, results, trained)
  return accuracy


def _check(
  seeds: Iterable[object], order: Sequence[str], runs: Iterable[str]
) -> None:
  """Raises ValueError where seeds or runs make no story."""
  seeds, runs = tuple(seeds), tuple(runs)
  if not seeds or not all(isinstance(s, int) and s >= 0 for s in seeds):
    raise ValueError(
      f"config.seeds is {seeds}; it must be whole numbers from 0 on, at least "
      "one, such as --config.seeds='(0,1,2)'"
    )
  if not order or order[0] != "teacher" or not set(order) <= set(runs):
    raise ValueError(
      f"config.order is {tuple(order)}; it must begin with 'teacher', whose "
      f"weights the others need, and name only {runs}"
    )


def _played(
  jobs: Mapping[str, Callable[[], object]],
) -> tuple[dict[str, pretrain.Result], dict[str, float]]:
  """Runs one after the other: those that trained a network, all seconds."""
  trained, seconds = {}, {BASELINE: 0.0}
  for name, job in jobs.items():
    print(f"\n--- {name} ---", flush=True)
    start = time.monotonic()
    found = job()
    seconds[name] = time.monotonic() - start
    if isinstance(found, pretrain.Result):
      trained[name] = found
  return trained, seconds


def _transferred(
  transfer: Finetune,
  trained: Mapping[str, pretrain.Result],
  seeds: Iterable[int],
) -> dict[str, list[float]]:
  """{kind of pre-training: accuracy of every seed}, scratch among them."""
  kinds = {BASELINE: None, **{k: r.variables for k, r in trained.items()}}
  kinds.pop("teacher")
  return {
    kind: [transfer.run(backbone, seed) for seed in seeds]
    for kind, backbone in kinds.items()
  }


def summed_up(
  accuracy: Mapping[str, Sequence[float]], titles: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, Any]]:
  """The rows of results.json: everything that table and plot show.

  Args:
    accuracy: kind of pre-training -> accuracy of every seed, 'scratch' among
      them.
    titles: kind of pre-training -> (what to call it, whether it had labels).

  Returns:
    {kind: {'title', 'labels', 'accuracy' per seed, 'mean', 'std',
    'difference' per seed to the baseline, 'difference_mean',
    'difference_error' (standard error)}}; None (null) stands for a spread over
    one seed.
  """
  rows = {}
  for kind, values in accuracy.items():
    found = paired.difference(values, accuracy[BASELINE])
    title, labels = titles[kind]
    rows[kind] = {
      "title": title,
      "labels": labels,
      "accuracy": list(values),
      "mean": float(np.mean(values)),
      "std": paired.spread(values),
      "difference": list(found.per_seed),
      "difference_mean": found.mean,
      "difference_error": found.error,
    }
  return rows


def _cells(kind: str, row: Mapping[str, Any], seconds: float) -> list[str]:
  """A line of the table."""
  difference = f"{100 * row['difference_mean']:+.1f} ± " + _percent(
    row["difference_error"]
  )
  return [
    row["title"],
    row["labels"],
    f"{100 * row['mean']:.1f} ± {_percent(row['std'])} % "
    f"({len(row['accuracy'])} seeds)",
    "-" if kind == BASELINE else difference,
    f"{seconds:.0f}",
  ]


def _percent(value: float | None) -> str:
  return "?" if value is None else f"{100 * value:.1f}"


def _show(
  where: Path,
  results: Mapping[str, Any],
  runs: Mapping[str, pretrain.Result],
) -> None:
  """Prints the table and writes the page."""
  seconds, found = results["seconds"], results["rows"]
  rows = [_cells(kind, row, seconds[kind]) for kind, row in found.items()]
  table = tables.columns([HEADER, *rows])
  note = (
    f"The teacher, which all students could share, took "
    f"{seconds['teacher']:.0f} seconds; "
    f"{results['total_seconds']:.0f} seconds in all."
  )
  print(f"\n{TITLE}\n\n{table}\n\n{LEGEND}\n{note}", flush=True)
  page = page_lib.write_report(
    where,
    title="kd_jax quickstart",
    tables={TITLE: (HEADER, rows)},
    groups={row["title"]: row["accuracy"] for row in found.values()},
    baseline=found[BASELINE]["title"],
    sections={name: result.workdir for name, result in runs.items()},
  )
  print(f"report: {page}", flush=True)
