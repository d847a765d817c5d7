"""A detection from its plan to its results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

from kd_jax.data.detection import Detection
from kd_jax.report import average_precision, tables
from kd_jax.report.pictures import detections, sheet
from kd_jax.running import results, training, transfer
from kd_jax.transfer.average_precision import files as said_files
from kd_jax.transfer.average_precision import images
from kd_jax.transfer.average_precision.detections import Detections
from kd_jax.transfer.detect import Judge
from kd_jax.transfer.detection import files
from kd_jax.transfer.plan import Plan
from kd_jax.types import Variables

_SHOWN = ("ap", "ap50", "ap75", "mask_ap", "mask_ap50", "mask_ap75")
"""Figures in the table; results.json has all."""


def conclude(plan: Plan[Judge], where: Path) -> dict[str, Any]:
  """Runs, or goes on with, a detection.

  Args:
    plan: of the task 'detect'.
    where: its folder.

  Returns:
    What results.json holds.

  Raises:
    ValueError: what only shows once images are read.
    Stopped: SIGTERM; the state is saved.
  """

  def finish(variables: Variables, folder: Path) -> None:
    # All processes take part; the first one writes.
    said = plan.judge.said(variables, plan.test)
    if jax.process_index():
      return
    model, views = plan.judge.student, plan.experiment.inputs.views
    assert isinstance(views, Detection)
    files.save(
      model.clone(backbone=training.prepared(model.backbone, views)),
      variables,
      folder,
      name=plan.experiment.names.student,
      classes=plan.test.box_names,
      canvas=views.eval_canvas(),
    )
    said_files.save(plan.judge.truth(plan.test), said, folder)
    _show(plan, said, folder)

  outcome = transfer.run(plan, where, finish)
  found = results.summed_up(plan, outcome, {}, _SHOWN)
  results.write(found, where)
  return found


def _show(plan: Plan[Judge], said: Detections, folder: Path) -> None:
  """Curves, classes, and the best and worst images, for the report."""
  truth, count = plan.judge.truth(plan.test), plan.experiment.pictures.count
  for judged in plan.judge.judged(truth, said):
    kind = "masks" if "mask_ap" in judged.figures else "boxes"
    table = average_precision.class_table(judged, truth.names)
    tables.keep(folder, f"classes_{kind}", table)
    curves = average_precision.curves(judged, truth.names)
    sheet.keep(folder, f"precision_{kind}", curves)
  if not count:
    return
  matched = images.matched(truth, said)
  ends = detections.extremes(plan.test, matched, count)
  for name, png in ends.items():
    sheet.keep(folder, f"{name}_images", png)
