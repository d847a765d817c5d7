"""A classification from its plan to its results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

from kd_jax.data import examples
from kd_jax.report import classes, tables
from kd_jax.report.pictures import mistakes, sheet
from kd_jax.running import frozen, results, training, transfer
from kd_jax.transfer import confusion
from kd_jax.transfer.classify import Judge, Predictions
from kd_jax.transfer.plan import Plan
from kd_jax.types import Variables


def conclude(plan: Plan[Judge], where: Path) -> dict[str, Any]:
  """Runs, or goes on with, a classification.

  Args:
    plan: of the task 'classify'.
    where: its folder.

  Returns:
    What results.json holds.

  Raises:
    ValueError: what only shows once images are read.
    Stopped: SIGTERM; the state is saved.
  """
  evals = frozen.judged(plan, plan.judge.batches)

  def finish(variables: Variables, folder: Path) -> None:
    # All processes take part; the first one writes.
    said = None
    if plan.experiment.pictures.count:
      said = plan.judge.predictions(variables, plan.test)
    if jax.process_index() == 0:
      if said is not None:
        _show(plan, said, folder)
      training.export(plan.experiment, variables, folder)

  outcome = transfer.run(plan, where, finish)
  found = results.summed_up(plan, outcome, evals)
  results.write(found, where)
  return found


def _show(plan: Plan[Judge], said: Predictions, folder: Path) -> None:
  """Confusions and worst classes of a run, for its part of the report."""
  names, count = tuple(plan.test.class_names), plan.experiment.pictures.count
  counts = confusion.of(said.predicted, said.label, len(names))
  judged = classes.Judged(counts, names)
  tables.keep(folder, "classes", classes.worst_table(judged))
  sheet.keep(folder, "confusion", classes.matrix(judged))
  worst = judged.worst(count)
  rows = mistakes.chosen(said.label, said.predicted, said.confidence, worst)
  groups = [
    (names[label], [_mistake(plan, said, row) for row in rows[label]])
    for label in worst
    if rows.get(label)
  ]
  if groups:
    sheet.keep(folder, "mistakes", mistakes.draw(groups))


def _mistake(
  plan: Plan[Judge], said: Predictions, row: int
) -> mistakes.Mistake:
  """An image that was taken for something else."""
  record = examples.Decoded(plan.test)[int(said.row[row])]
  return mistakes.Mistake(
    image=plan.experiment.inputs.views.eval(record),
    said=plan.test.class_names[int(said.predicted[row])],
    confidence=float(said.confidence[row]),
  )
