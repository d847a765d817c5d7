"""Whether reading images or computing will limit a run."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from typing import Any

import jax
from ml_collections import ConfigDict

from kd_jax.align import basis as basis_lib
from kd_jax.tasks import setup
from kd_jax.train import loop, plan
from kd_jax.train import mesh as mesh_lib
from kd_jax.train import step as step_lib
from kd_jax.types import Batch

_SECONDS = 5.0  # of reading
_STEPS = 3
_ADVICE = (
  "More --config.input.workers, preprocess.train_interpolation=area, "
  "preprocess.num_crops or, with an accelerator, preprocess.canvas help."
)


@dataclasses.dataclass(frozen=True)
class Rates:
  """Views per second, of all processes together.

  Attributes:
    reading: of the input pipeline alone.
    computing: of the train step alone.
  """

  reading: float
  computing: float

  def __str__(self) -> str:
    text = (
      f"reading: {self.reading:.1f} views/s with {os.cpu_count()} cores per "
      f"host; computing: {self.computing:.1f} views/s on "
      f"{jax.device_count()} devices. "
    )
    ratio = self.reading / self.computing
    if ratio >= 1:
      return text + (
        f"Computing will bound this run; input is {ratio:.1f} times as fast."
      )
    return text + (
      f"Input will bound this run; devices could take "
      f"{1 / ratio:.1f} times as much. {_ADVICE}"
    )


def measure(config: ConfigDict, parts: Any) -> Rates:
  """Reads for a few seconds, then takes a few steps with made-up weights.

  On CPUs the steps take small batches, for whole ones last minutes.

  Args:
    config: of the run.
    parts: `pretrain.Parts`.
  """
  phase = parts.stretches[0].phase
  stream = setup.train_stream(
    config,
    parts.data,
    parts.views,
    0,
    phase=phase,
    on_skip=parts.skips.report(parts.data),
    bank=parts.taught.bank,
  )
  with contextlib.closing(stream):
    batch, reading = _read(stream, config.batch_size)
  rows = _rows(config, parts)
  images = rows // parts.views.num_crops if batch.geometry is not None else rows
  share = images // jax.process_count()
  small = jax.tree.map(lambda x: x[:share], batch)
  return Rates(reading, rows / _step_seconds(parts, small))


def _read(stream: Any, batch_size: int) -> tuple[Batch, float]:
  first = next(stream)  # starts threads and workers
  start, count = time.monotonic(), 0
  while time.monotonic() - start < _SECONDS:
    next(stream)
    count += 1
  return first, count * batch_size / (time.monotonic() - start)


def _rows(config: ConfigDict, parts: Any) -> int:
  """Views per step: all, or on CPUs at least 8 per device."""
  if jax.default_backend() != "cpu":
    return config.batch_size
  unit = 2 * parts.views.num_crops * parts.mesh.size * config.accum_steps
  rows = -(-8 * parts.mesh.size // unit) * unit
  return min(rows, config.batch_size)


def _step_seconds(parts: Any, batch: Batch) -> float:
  phase = parts.stretches[0].phase
  tx = parts.optim.transform(parts.stretches[-1].stop)
  step = step_lib.make_train_step(
    parts.student, parts.taught.source, phase, tx, parts.settings
  )
  state = _state(parts, tx)
  tap, artifact = parts.method.artifact_tap, {}
  if tap is not None:
    sizes = [specs[tap].shape[-1] for specs in parts.specs]
    artifact = basis_lib.placeholder(dim=sizes[1], width=sizes[0])
  frozen = {"teacher": parts.taught.variables, "artifact": artifact}
  frozen = mesh_lib.place(frozen, parts.mesh)
  placed = mesh_lib.put_batch(batch, parts.mesh)
  state, found = step(state, frozen, placed)  # compiles
  jax.block_until_ready(found)
  start = time.monotonic()
  for _ in range(_STEPS):
    state, found = step(state, frozen, placed)
  jax.block_until_ready(found)
  return (time.monotonic() - start) / _STEPS


def _state(parts: Any, tx: Any) -> Any:
  key = jax.random.key(0)
  params, stats = plan.init_variables(
    parts.student, parts.method, key, parts.specs
  )
  leaves = step_lib.trainable(params, parts.stretches[0].phase)
  return loop.placed_state(params, stats, tx.init(leaves), key, parts.settings)
