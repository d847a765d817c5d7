"""Transfer to detection: two stages on a pre-trained backbone.

The workdir ends with a folder per run in trials/, results.json, report.html,
and the fine-tuned backbone of the first seed in student/, its heads in heads/.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from kd_jax import workdir
from kd_jax.build import detect as build
from kd_jax.running import detect, results, transfer


def run(config: ConfigDict, where: str | Path) -> dict[str, Any] | None:
  """Runs or continues the detection of `config` in the folder `where`.

  Returns:
    What results.json holds; None after a dry run.

  Raises:
    ValueError: anything in the config that cannot work, before step 0.
    Stopped: SIGTERM; the state is saved.
  """
  where = Path(where)
  with workdir.claimed(where, config.to_dict()):
    plan = build.plan(config, where)
    if not transfer.announce(plan, where, dry=config.dry_run):
      return None
    found = detect.conclude(plan, where)
    results.show(found, where, f"Detection: {where.name}")
    return found
