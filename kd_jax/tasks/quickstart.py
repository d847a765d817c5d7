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

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

import kd_jax
from kd_jax import resolve
from kd_jax.build import setup
from kd_jax.data import pipeline
from kd_jax.data.preprocess import Preprocess
from kd_jax.report import metrics, paired
from kd_jax.report import page as page_lib
from kd_jax.tasks import pretrain
from kd_jax.train import mesh as mesh_lib
from kd_jax.train import workdir
from kd_jax.train.optim import Optim
from kd_jax.transfer.classify import Finetune
from kd_jax.types import DataSource

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
    ValueError: more than one process, or anything `pretrain` refuses.
  """
  if jax.process_count() > 1:
    raise ValueError(
      f"the quickstart runs in one process, not in {jax.process_count()}; "
      "start it with python -m kd_jax.main"
    )
  where = Path(where)
  workdir.claim(where, {"task": config.task, "seeds": list(config.seeds)})
  start = time.monotonic()
  runs: dict[str, Any] = {}
  seconds = {"scratch": 0.0}
  for name in config.order:
    fields = config.runs[name]
    fields.teacher.weights = str(where / fields.teacher.weights)
    print(f"\n--- {name} ---", flush=True)
    task = resolve.symbol("tasks", fields.task, "run")
    runs[name], seconds[name] = _timed(
      lambda task=task, fields=fields, name=name: task(fields, where / name)
    )
  trained = {
    name: found
    for name, found in runs.items()
    if isinstance(found, pretrain.Result)
  }
  transfer = finetune(config.finetune)
  kinds = {"scratch": None, **{k: r.variables for k, r in trained.items()}}
  kinds.pop("teacher")
  accuracy = {
    kind: [transfer.run(backbone, seed) for seed in config.seeds]
    for kind, backbone in kinds.items()
  }
  results = summed_up(config, accuracy, seconds, time.monotonic() - start)
  workdir.write(where / RESULTS, json.dumps(results, indent=2))
  _show(where, results, trained)
  return accuracy


def finetune(config: ConfigDict) -> Finetune:
  """The transfer protocol; every seed has labelled images of its own."""
  test = setup.data(config.test)
  views = Preprocess(**config.preprocess.to_dict())
  model = kd_jax.create_model(
    config.student.name, **setup.model_fields(config.student.overrides)
  )
  return Finetune(
    model=model,
    optim=Optim(**config.optim.to_dict()),
    steps=config.steps,
    train=lambda seed: pipeline.train_batches(
      labelled(config, seed), views, batch_size=config.batch_size, seed=seed
    ),
    test=lambda: pipeline.eval_batches(
      test, views, batch_size=config.eval_batch_size
    ),
    mesh=mesh_lib.make_mesh(jax.devices()[:1]),
  )


def labelled(config: ConfigDict, seed: int) -> DataSource:
  """The `config.labels` images that belong to a seed."""
  first = config.labels * seed
  split = f"{config.train.split}[{first}:{first + config.labels}]"
  return setup.data(ConfigDict({**config.train.to_dict(), "split": split}))


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
  start = time.monotonic()
  return work(), time.monotonic() - start


def summed_up(
  config: ConfigDict,
  accuracy: Mapping[str, Sequence[float]],
  seconds: Mapping[str, float],
  total: float,
) -> dict[str, Any]:
  """What results.json holds: everything that the table and the plot show.

  Args:
    config: of the quickstart.
    accuracy: kind of pre-training -> accuracy of every seed, 'scratch' among
      them.
    seconds: run -> seconds, of all runs and 'scratch'.
    total: seconds of the whole story.

  Returns:
    {'seeds', 'baseline', 'seconds': {run: seconds}, 'total_seconds', 'rows':
    {kind: {'title', 'labels', 'accuracy' per seed, 'mean', 'std',
    'difference' per seed to the baseline, 'difference_mean',
    'difference_error' (standard error)}}}; None (null) stands for a spread
    over one seed.
  """
  rows = {}
  for kind, values in accuracy.items():
    found = paired.difference(values, accuracy[BASELINE])
    title, labels = config.titles[kind]
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
  return {
    "seeds": list(config.seeds),
    "labels_per_seed": config.finetune.labels,
    "baseline": BASELINE,
    "seconds": dict(seconds),
    "total_seconds": total,
    "rows": rows,
  }


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
  table = metrics.columns([HEADER, *rows])
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
