"""Whether reading images or computing will limit a run."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from typing import Any

import jax
from ml_collections import ConfigDict

from kd_jax.build import artifacts, setup
from kd_jax.train import loop, phases
from kd_jax.train import mesh as mesh_lib
from kd_jax.train import step as step_lib
from kd_jax.types import Batch, Phase

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
  return Rates(reading, rows / _mean_seconds(parts, small))


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


def _mean_seconds(parts: Any, batch: Batch) -> float:
  """Seconds per step, over all phases; those that compute the same share."""
  measured: list[tuple[Phase, float]] = []
  total = 0.0
  for stretch in parts.stretches:
    plain = dataclasses.replace(stretch.phase, name="", data=(), steps_frac=1.0)
    known = [seconds for phase, seconds in measured if phase == plain]
    seconds = known[0] if known else _step_seconds(parts, plain, batch)
    measured.append((plain, seconds))
    total += seconds * (stretch.stop - stretch.start)
  return total / parts.stretches[-1].stop


def _step_seconds(parts: Any, phase: Phase, batch: Batch) -> float:
  step, state, *rest = ready(parts, phase, batch)
  state, found = step(state, *rest)  # compiles
  jax.block_until_ready(found)
  start = time.monotonic()
  for _ in range(_STEPS):
    state, found = step(state, *rest)
  jax.block_until_ready(found)
  return (time.monotonic() - start) / _STEPS


def ready(parts: Any, phase: Phase, batch: Batch) -> tuple[Any, ...]:
  """The train step of a phase and what it takes: (step, state, frozen, batch).

  Fresh parameters, and statistics of the teacher with nothing in them: for
  timing and counting.

  Args:
    parts: `pretrain.Parts`.
    phase: one of them.
    batch: on the host.
  """
  tx = parts.optim.transform(parts.stretches[-1].stop)
  step = step_lib.make_train_step(
    parts.student, parts.taught.source, phase, tx, parts.settings
  )
  artifact = artifacts.placeholder(parts.method, parts.specs)
  frozen = {"teacher": parts.taught.variables, "artifact": artifact}
  return (
    step,
    _state(parts, phase, tx),
    mesh_lib.place(frozen, parts.mesh),
    mesh_lib.put_batch(batch, parts.mesh),
  )


def _state(parts: Any, phase: Phase, tx: Any) -> Any:
  key = jax.random.key(0)
  params, stats = phases.init_variables(
    parts.student, parts.method, key, parts.specs
  )
  leaves = step_lib.trainable(params, phase)
  return loop.placed_state(params, stats, tx.init(leaves), key, parts.settings)
