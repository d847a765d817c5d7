"""A segmentation from its plan to its results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kd_jax.running import results, training, transfer
from kd_jax.transfer.plan import Plan
from kd_jax.types import Variables


def conclude(plan: Plan, where: Path) -> dict[str, Any]:
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

  def finish(variables: Variables, folder: Path) -> None:
    _show(plan, variables, folder)
    training.export_segmenter(plan.experiment, variables, folder)

  outcome = transfer.run(plan, where, finish)
  found = results.summed_up(plan, outcome, {})
  results.write(found, where, f"Segmentation: {where.name}")
  return found


def _show(plan: Plan, variables: Variables, folder: Path) -> None:
  """Overlays and classes of a run, for its part of the report."""
