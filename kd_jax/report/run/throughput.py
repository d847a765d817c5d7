"""Whether reading images or computing will limit a run."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping
from typing import Any

import jax
import optax

from kd_jax.data.pipeline import Batches
from kd_jax.train import loop, phases
from kd_jax.train import mesh as mesh_lib
from kd_jax.train import step as step_lib
from kd_jax.train.experiment import Experiment
from kd_jax.train.teacher import artifact as artifact_lib
from kd_jax.types import Batch, Phase, TrainState

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


def measure(experiment: Experiment) -> Rates:
  """Reads for a few seconds, then takes a few steps with made-up weights.

  On CPUs the steps take small batches, for whole ones last minutes.
  """
  inputs = experiment.inputs
  stream = inputs.batches(phase=experiment.stretches[0].phase)
  with stream:
    batch, reading = _read(stream, inputs.batch_size)
  rows = _rows(experiment)
  images = (
    rows // inputs.views.num_crops if batch.geometry is not None else rows
  )
  share = images // jax.process_count()
  small = jax.tree.map(lambda x: x[:share], batch)
  return Rates(reading, rows / _mean_seconds(experiment, small))


def _read(stream: Batches, batch_size: int) -> tuple[Batch, float]:
  first = next(stream)  # starts threads and workers
  start, count = time.monotonic(), 0
  while time.monotonic() - start < _SECONDS:
    next(stream)
    count += 1
  return first, count * batch_size / (time.monotonic() - start)


def _rows(experiment: Experiment) -> int:
  """Views per step: all, or on CPUs at least 8 per device."""
  batch_size = experiment.schedule.batch_size
  if jax.default_backend() != "cpu":
    return batch_size
  devices, views = experiment.mesh.size, experiment.inputs.views
  unit = 2 * views.num_crops * devices * experiment.settings.accum_steps
  rows = -(-8 * devices // unit) * unit
  return min(rows, batch_size)


def _mean_seconds(experiment: Experiment, batch: Batch) -> float:
  """Seconds per step, over all phases; those that compute the same share."""
  measured: list[tuple[Phase, float]] = []
  total = 0.0
  for stretch in experiment.stretches:
    plain = dataclasses.replace(stretch.phase, name="", data=(), steps_frac=1.0)
    known = [seconds for phase, seconds in measured if phase == plain]
    seconds = known[0] if known else _step_seconds(experiment, plain, batch)
    measured.append((plain, seconds))
    total += seconds * (stretch.stop - stretch.start)
  return total / experiment.stretches[-1].stop


def _step_seconds(experiment: Experiment, phase: Phase, batch: Batch) -> float:
  step, state, frozen, batch = ready(experiment, phase, batch)
  state, found = step(state, frozen, batch)  # compiles
  jax.block_until_ready(found)
  start = time.monotonic()
  for _ in range(_STEPS):
    state, found = step(state, frozen, batch)
  jax.block_until_ready(found)
  return (time.monotonic() - start) / _STEPS


def ready(
  experiment: Experiment, phase: Phase, batch: Batch
) -> tuple[step_lib.Step, TrainState, Mapping[str, Any], Batch]:
  """The train step of a phase and what it takes: (step, state, frozen, batch).

  Fresh parameters, and statistics of the teacher with nothing in them: for
  timing and counting.

  Args:
    experiment: whose step it is.
    phase: one of them.
    batch: on the host.
  """
  tx = experiment.optim.transform(experiment.stretches[-1].stop)
  step = step_lib.make_train_step(
    experiment.student,
    experiment.teaching.source,
    phase,
    tx,
    experiment.settings,
  )
  artifact = artifact_lib.placeholder(experiment.method, experiment.specs)
  frozen = {
    "teacher": experiment.teaching.place(experiment.mesh),
    **mesh_lib.place({"artifact": artifact}, experiment.mesh),
  }
  return (
    step,
    _state(experiment, phase, tx),
    frozen,
    mesh_lib.put_batch(batch, experiment.mesh),
  )


def _state(
  experiment: Experiment, phase: Phase, tx: optax.GradientTransformation
) -> TrainState:
  key = jax.random.key(0)
  params, stats = phases.init_variables(
    experiment.student, experiment.method, key, experiment.specs
  )
  leaves = step_lib.trainable(params, phase)
  return loop.placed_state(
    params, stats, tx.init(leaves), key, experiment.settings
  )
