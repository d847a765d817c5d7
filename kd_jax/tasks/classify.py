"""Transfer to classification: fine-tuning, linear probe, few labels, kNN.

The workdir ends with a folder per run in trials/ (the fine-tuned network in
its student/), results.json and report.html.
"""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from kd_jax import workdir
from kd_jax.build.classification import plan as build_plan
from kd_jax.running import transfer
from kd_jax.running.transfer import Outcome


def run(config: ConfigDict, where: str | Path) -> Outcome | None:
  """Runs or continues the classification of `config` in the folder `where`.

  Returns:
    What came out; None after a dry run.

  Raises:
    ValueError: anything in the config that cannot work, before step 0.
    Stopped: SIGTERM; the state is saved.
  """
  where = Path(where)
  with workdir.claimed(where, config.to_dict()):
    plan = build_plan(config, where)
    return transfer.run(plan, where, lambda variables, folder: None)
