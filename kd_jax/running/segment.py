"""A segmentation from its plan to its results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

from kd_jax.data.augment import crops
from kd_jax.report import classes, tables
from kd_jax.report.pictures import masks, sheet
from kd_jax.running import results, training, transfer
from kd_jax.transfer import confusion, files
from kd_jax.transfer.plan import Plan
from kd_jax.transfer.segment import Example, Judge
from kd_jax.types import Variables


def conclude(plan: Plan[Judge], where: Path) -> dict[str, Any]:
  """Runs, or goes on with, a segmentation.

  Args:
    plan: of the task 'segment'.
    where: its folder.

  Returns:
    What results.json holds.

  Raises:
    ValueError: what only shows once images are read.
    Stopped: SIGTERM; the state is saved.
  """
  shown = plan.experiment.pictures.count

  def finish(variables: Variables, folder: Path) -> None:
    # All processes take part; the first one writes.
    counts = plan.judge.counts(variables, plan.test) if shown else None
    if jax.process_index():
      return
    model, views = plan.judge.student, plan.experiment.inputs.views
    files.save(
      model.clone(backbone=training.prepared(model.backbone, views)),
      variables,
      folder,
      name=plan.experiment.names.student,
      classes=plan.test.mask_names,
    )
    if counts is not None:
      _show(plan, counts, folder)
    if shown and jax.process_count() == 1:  # others would have to take part
      _draw(plan, variables, folder)

  outcome = transfer.run(plan, where, finish)
  found = results.summed_up(plan, outcome, {})
  results.write(found, where)
  return found


def _show(plan: Plan[Judge], counts: confusion.Matrix, folder: Path) -> None:
  """Classes of a run, for its part of the report."""
  names = tuple(plan.test.mask_names)
  judged = classes.Judged(counts, names, iou=True)
  tables.keep(folder, "classes", classes.worst_table(judged))
  sheet.keep(folder, "classes", classes.bars(judged))


def _draw(plan: Plan[Judge], variables: Variables, folder: Path) -> None:
  """Overlays of a run, for its part of the report."""
  examples = plan.judge.examples(
    variables, plan.test, plan.experiment.pictures.count
  )
  if shown := [_segmented(example) for example in examples]:
    sheet.keep(folder, "masks", masks.draw(shown, tuple(plan.test.mask_names)))


def _segmented(example: Example) -> masks.Segmented:
  """All at the size of the mask."""
  high, wide = example.truth.shape
  image = crops.resize(example.image, high, wide, interpolation="bilinear")
  return masks.Segmented(image, example.truth, example.predicted)
