"""Weights & Biases: https://docs.wandb.ai.

WANDB_PROJECT (default: kd_jax), WANDB_ENTITY, WANDB_API_KEY, WANDB_BASE_URL and
WANDB_MODE=offline are read as everywhere.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping

from kd_jax.report.trackers.base import Run


class Tracker:
  """See `base.TrackerLike`."""

  def __init__(self, run: Run) -> None:
    wandb = importlib.import_module("wandb")  # optional, and slow to import

    self._run = wandb.init(
      project=os.environ.get("WANDB_PROJECT") or "kd_jax",
      name=run.name,
      id=run.known or None,
      resume="allow",
      dir=run.folder,
      config=dict(run.config),
    )
    # A run that goes on from its last checkpoint repeats steps, which W&B's
    # own counter does not allow.
    self._run.define_metric("*", step_metric="step")
    self.id = str(self._run.id)

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Queued; W&B sends from a process of its own."""
    self._run.log({"step": step, **scalars})

  def close(self, *, failed: bool) -> None:
    """Waits until everything is sent."""
    self._run.finish(exit_code=int(failed))
