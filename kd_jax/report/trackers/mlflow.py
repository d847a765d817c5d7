"""MLflow: https://mlflow.org/docs.

MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME (default: kd_jax) are read as
everywhere. mlflow-skinny is enough.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Mapping

from kd_jax.report.trackers.base import Run

_MOST = 100  # parameters in one request
_LONGEST = 500  # characters of a parameter, which every server takes


class Tracker:
  """See `base.TrackerLike`."""

  def __init__(self, run: Run) -> None:
    mlflow = importlib.import_module("mlflow")  # optional, and slow to import

    self._entities = mlflow.entities
    # A client has no current run that other code could change.
    self._client = mlflow.MlflowClient()
    if run.known:
      self.id = run.known
      self._client.update_run(self.id, status="RUNNING")
      return
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "kd_jax"
    known = self._client.get_experiment_by_name(name)
    place = (
      known.experiment_id if known else self._client.create_experiment(name)
    )
    self.id = self._client.create_run(place, run_name=run.name).info.run_id
    params = [
      self._entities.Param(key, value[:_LONGEST])
      for key, value in run.config.items()
    ]
    for first in range(0, len(params), _MOST):
      some = params[first : first + _MOST]
      self._client.log_batch(self.id, params=some)

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """One request."""
    now = int(time.time() * 1000)
    found = [
      self._entities.Metric(name, value, now, step)
      for name, value in scalars.items()
    ]
    self._client.log_batch(self.id, metrics=found)

  def close(self, *, failed: bool) -> None:
    """Says how the run ended."""
    status = "FAILED" if failed else "FINISHED"
    self._client.set_terminated(self.id, status)
