"""A detection from its plan to its results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

from kd_jax.running import results, transfer
from kd_jax.transfer.average_precision import files as found_files
from kd_jax.transfer.detection import files
from kd_jax.transfer.plan import Plan
from kd_jax.types import Variables


def conclude(plan: Plan, where: Path) -> dict[str, Any]:
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
    found = list(plan.judge.found(variables, plan.test))
    if jax.process_index():
      return
    model, views = plan.experiment.student, plan.experiment.inputs.views
    files.save(
      model,
      variables,
      folder,
      name=plan.experiment.names.student,
      classes=plan.test.box_names,
      views=views,
    )
    found_files.save(found, plan.test, folder)
    _show(plan, found, folder)

  outcome = transfer.run(plan, where, finish)
  found = results.summed_up(plan, outcome, {})
  results.write(found, where)
  return found
