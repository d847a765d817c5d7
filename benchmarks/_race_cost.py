"""What a train step of a method costs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from ml_collections import ConfigDict

from kd_jax.build.experiment import experiment
from kd_jax.preflight import operations
from kd_jax.report.run import throughput
from kd_jax.train.experiment import Experiment
from kd_jax.train.phases import Stretch
from kd_jax.types import Batch

_TIMED = 10  # steps; the fastest counts


def of(config: ConfigDict, where: Path) -> dict[str, float]:
  """Means over the steps of a run; nothing is trained.

  Returns:
    'operations' of matrix products and convolutions, of a step; 'seconds' of
    processor time, of all threads; 'memory' of the compiled step, bytes of
    what it is given and of what it computes with, the largest of its phases.
  """
  parts = experiment(config, where)
  found = {"operations": 0.0, "seconds": 0.0, "memory": 0.0}
  for stretch in parts.stretches:
    share = (stretch.stop - stretch.start) / config.steps
    own = _step(config, parts, stretch)
    found["operations"] += share * own["operations"]
    found["seconds"] += share * own["seconds"]
    found["memory"] = max(found["memory"], own["memory"])
  return found


def _step(
  config: ConfigDict, parts: Experiment, stretch: Stretch
) -> dict[str, float]:
  rows, size = config.batch_size, parts.inputs.views.image_size
  batch = Batch(
    image=np.zeros((rows, size, size, 3), np.uint8),
    label=np.zeros(rows, np.int32),
    mask=np.ones(rows, np.float32),
  )
  step, state, *given = throughput.ready(parts, stretch.phase, batch)
  traced = cast(Any, step).trace(state, *given)
  compiled = traced.lower().compile()
  memory = compiled.memory_analysis()
  seconds = []
  for _ in range(_TIMED):
    start = time.process_time()
    state, found = compiled(state, *given)
    jax.block_until_ready((state, found))
    seconds.append(time.process_time() - start)
  used = memory.argument_size_in_bytes + memory.temp_size_in_bytes
  return {
    "operations": operations.count(operations.needed(traced.jaxpr.jaxpr)),
    "seconds": min(seconds),
    "memory": used,
  }
