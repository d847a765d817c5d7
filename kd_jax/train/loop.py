"""The loop around the step: data, logging, checks, evaluation, checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kd_jax.interfaces import MetricsWriter, ProgressLine, TeacherSource
from kd_jax.train import best_weights, signals
from kd_jax.train import checkpoints as checkpoints_lib
from kd_jax.train import mesh as mesh_lib
from kd_jax.train import step as step_lib
from kd_jax.train.optim import Optim
from kd_jax.train.phases import Stretch
from kd_jax.train.signals import Stopped
from kd_jax.types import (
  Frozen,
  Metrics,
  Network,
  Params,
  Phase,
  Stats,
  TrainState,
)

# Steps after which every trainable parameter must have had a gradient.
GRACE = 3


@dataclasses.dataclass(frozen=True)
class Job:
  """Everything the loop needs that does not change while it runs.

  Attributes:
    student: the network that learns.
    source: where teacher taps come from.
    stretches: phases with their steps.
    settings: of the train step.
    optim: optimizer of every phase.
    frozen: {'teacher': variables, 'artifact': arrays}, on the mesh.
    batches: (start step, phase) -> closeable endless iterator of Batch.
    record: step -> what a checkpoint says about the data position.
    evaluate: (state, frozen) -> {name: value}.
    batch_size: global.
    log_every, eval_every, save_every: steps; 0 is only at the end.
    save_last: see `Schedule`.
    programs: compiled functions by name; jobs that differ only in data,
      weights, seed or rate may share them.
  """

  student: Network
  source: TeacherSource
  stretches: tuple[Stretch, ...]
  settings: step_lib.Settings
  optim: Optim
  frozen: Frozen
  batches: Callable[[int, Phase], Any]
  record: Callable[[int], Mapping[str, Any]]
  evaluate: Callable[[TrainState, Frozen], Mapping[str, float]]
  batch_size: int
  log_every: int
  eval_every: int
  save_every: int
  programs: dict[str, Callable[..., Any]] = dataclasses.field(
    default_factory=dict
  )
  save_last: bool = True

  @property
  def mesh(self) -> jax.sharding.Mesh:
    """Where everything lives."""
    assert self.settings.mesh is not None
    return self.settings.mesh

  @property
  def total_steps(self) -> int:
    """Steps of all phases."""
    return self.stretches[-1].stop

  def transform(self, stretch: Stretch) -> optax.GradientTransformation:
    """The optimizer; stretches that keep its state share a schedule."""
    index = self.stretches.index(stretch)
    fresh = [i for i, s in enumerate(self.stretches) if s.phase.fresh_opt]
    first = max((i for i in fresh if i <= index), default=0)
    end = min((i for i in fresh if i > index), default=len(self.stretches))
    steps = self.stretches[end - 1].stop - self.stretches[first].start
    changes = dict(stretch.phase.optim)
    optim = (
      dataclasses.replace(self.optim, **changes) if changes else self.optim
    )
    return optim.transform(steps)

  def step(self, stretch: Stretch) -> step_lib.Step:
    """The train step of a stretch, compiled at its first call."""
    name = f"step from {stretch.start}"
    if name not in self.programs:
      self.programs[name] = step_lib.make_train_step(
        self.student,
        self.source,
        stretch.phase,
        self.transform(stretch),
        self.settings,
      )
    return self.programs[name]

  def stretch_at(self, step: int) -> Stretch:
    """The stretch that the state after `step` updates belongs to."""
    later = (s for s in self.stretches if step < s.stop)
    return next(later, self.stretches[-1])

  def new_state(
    self, params: Params, stats: Stats, key: jax.Array
  ) -> TrainState:
    """The state before step 0."""
    first = self.stretches[0]
    opt = self.transform(first).init(step_lib.trainable(params, first.phase))
    return placed_state(params, stats, opt, key, self.settings)


def placed_state(
  params: Params,
  stats: Stats,
  opt: optax.OptState,
  key: jax.Array,
  settings: step_lib.Settings,
) -> TrainState:
  """The state before step 0, on the mesh of `settings`."""
  state = TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    stats=stats,
    opt=opt,
    ema=params if settings.ema_decay else {},
    rng=jax.random.key_data(key),
  )
  assert settings.mesh is not None
  return mesh_lib.place(state, settings.mesh, fsdp=settings.fsdp)


class Run:
  """One run of a job: what it writes, and when it has to stop."""

  def __init__(
    self,
    job: Job,
    checkpoints: checkpoints_lib.Checkpoints,
    writer: MetricsWriter,
    progress: ProgressLine,
  ) -> None:
    self.job = job
    self._checkpoints = checkpoints
    self._writer = writer
    self._progress = progress
    self._asked_to_stop = False
    self._timer = (0, time.monotonic())
    self._rates: list[float] = []

  def fit(self, state: TrainState) -> TrainState:
    """Trains from `state` to the end of the last stretch.

    Raises:
      Stopped: SIGTERM, Ctrl-C or preemption; the state has been saved.
      ValueError: a loss term that is zero or not finite, or a parameter
        without gradient.
    """
    # Orbax's service has the signals where there are several processes.
    several = jax.process_count() > 1
    with contextlib.nullcontext() if several else signals.heeded(self._stop):
      for stretch in self.job.stretches:
        if int(state.step) < stretch.stop:
          state = self._enter(stretch, state)
          state = self._stretch(stretch, state)
    self._checkpoints.wait()
    return state

  def _enter(self, stretch: Stretch, state: TrainState) -> TrainState:
    """A phase that starts afresh gets a new optimizer state."""
    if int(state.step) != stretch.start:
      return state
    state = best_weights.start(state, stretch.phase, self.job.settings)
    if stretch.start == 0 or not stretch.phase.fresh_opt:
      return state
    leaves = step_lib.trainable(state.params, stretch.phase)
    opt = self.job.transform(stretch).init(leaves)
    placed = mesh_lib.place(opt, self.job.mesh, fsdp=self.job.settings.fsdp)
    return state.replace(opt=placed)

  def _stretch(self, stretch: Stretch, state: TrainState) -> TrainState:
    job, start = self.job, int(state.step)
    train_step = job.step(stretch)
    paths = list(step_lib.trainable(state.params, stretch.phase))
    had_gradient = np.zeros(len(paths), bool)
    self._timer, self._rates = (start, time.monotonic()), []
    stream = job.batches(start, stretch.phase)
    before: Any = ()
    with contextlib.closing(stream):
      for step in range(start + 1, stretch.stop + 1):
        batch = mesh_lib.put_batch(next(stream), job.mesh)
        state, found = train_step(state, job.frozen, batch)
        # One step ahead hides the host's work; more would only pile up
        # batches in device memory.
        jax.block_until_ready(before)
        before = found
        has_gradient = found.pop("has_grad")
        if step <= start + GRACE:
          had_gradient |= np.asarray(has_gradient)
        if step == min(start + GRACE, stretch.stop):
          check_gradients(dict(zip(paths, had_gradient, strict=True)))
        state = self._after(step, stretch, state, found)
    self._finish(stretch)
    return state

  def _after(
    self, step: int, stretch: Stretch, state: TrainState, found: Metrics
  ) -> TrainState:
    """Logs, evaluates, saves and stops where it is time to."""
    job, last = self.job, step == self.job.total_steps
    stop, done = self._must_stop(step), step == stretch.stop
    save = stop or _due(step, job.save_every) or done
    save = save and (stop or not last or job.save_last)
    judged = done and stretch.phase.judge
    evaluate = last or judged or _due(step, job.eval_every)
    if save or evaluate or _due(step, job.log_every) or step == 1:
      self._log(step, stretch, {k: float(v) for k, v in found.items()})
    if evaluate:
      state = self._evaluate(step, stretch, state)
      self._timer = (step, time.monotonic())
    if save:
      self._checkpoints.save(step, state, job.record(step))
    if stop and not last:
      self._checkpoints.wait()
      raise Stopped(
        f"stopped after step {step} of {job.total_steps} and saved; the same "
        "command goes on from there"
      )
    return state

  def _evaluate(
    self, step: int, stretch: Stretch, state: TrainState
  ) -> TrainState:
    """Writes an evaluation; at the end of a judged phase, of its result."""
    job = self.job
    found = job.evaluate(state, job.frozen)
    self._writer.write(step, found)
    state = best_weights.keep(state, stretch.phase, found, job.settings)
    if step < stretch.stop or not stretch.phase.judge:
      return state
    newest = np.float32(found[f"eval/{stretch.phase.judge}"])
    changes = newest != np.asarray(state.best["value"])
    state = best_weights.hand_on(state)
    if changes:
      self._writer.write(step, job.evaluate(state, job.frozen))
    return state

  def _finish(self, stretch: Stretch) -> None:
    """Tells the throughput of a phase, where there are several."""
    if len(self.job.stretches) == 1:
      return
    # The first figure holds the compilation, if there is another.
    rate = float(np.median(self._rates[1:] or self._rates))
    self._progress.write(
      f"phase {stretch.phase.name} ends after step {stretch.stop}: "
      f"{rate:,.0f} images/s"
    )

  def _log(self, step: int, stretch: Stretch, values: dict[str, float]) -> None:
    check_terms(step, values, stretch.phase.may_vanish)
    before, then = self._timer
    now = time.monotonic()
    rate = (step - before) * self.job.batch_size / max(now - then, 1e-9)
    self._timer = (step, now)
    self._rates.append(rate)
    self._writer.write(step, {**values, "images_per_s": rate})
    phases = self.job.stretches
    number = f"{phases.index(stretch) + 1}/{len(phases)}"
    phase = f"{stretch.phase.name} ({number})" if len(phases) > 1 else ""
    self._progress.update(step, _terms(values), rate, phase=phase)

  def _must_stop(self, step: int) -> bool:
    # Several processes have to agree on the step; Orbax asks the coordinator.
    if jax.process_count() > 1:
      return self._checkpoints.preempted(step)
    return self._asked_to_stop

  def _stop(self) -> None:
    self._asked_to_stop = True


def check_terms(
  step: int, values: Mapping[str, float], may_vanish: Collection[str] = ()
) -> None:
  """Whether the loss terms of a step are usable.

  Args:
    step: number of the step.
    values: its figures.
    may_vanish: see `Phase`.

  Raises:
    ValueError: a term is not finite, or exactly zero.
  """
  for name, value in _terms(values).items():
    if not np.isfinite(value):
      raise ValueError(
        f"loss term {name!r} is {value} at step {step}: training has "
        "diverged. Lower --config.optim.lr, or set --config.optim.clip_norm."
      )
    if value == 0 and name not in may_vanish:
      raise ValueError(
        f"loss term {name!r} is exactly zero at step {step}: it compares "
        "something with itself, its input is constant, or no label of the "
        "batch counts. Check the teacher and the aligner, or the labels, or "
        "give the term no weight."
      )


def check_gradients(had_gradient: Mapping[str, bool]) -> None:
  """Whether every trainable parameter had a gradient.

  Raises:
    ValueError: names those that had none.
  """
  without = [path for path, had in had_gradient.items() if not had]
  if without:
    raise ValueError(
      f"{len(without)} trainable parameters got no gradient in the first "
      f"{GRACE} steps: {without[:5]}. No loss term reaches them; add one that "
      "does, or leave them out of the model."
    )


def restore(
  job: Job, saved: checkpoints_lib.Checkpoints, fresh: TrainState
) -> TrainState | None:
  """The newest usable checkpoint of this job, None if there is none.

  Raises:
    MismatchError: the checkpoint belongs to another model, teacher, data or
      seed.
    ValueError: there are checkpoints, but none can be read.
  """

  def read(step: int) -> TrainState:
    record, expected = saved.record(step), dict(job.record(step))
    if record != expected:
      changed = sorted(k for k in expected if record.get(k) != expected[k])
      raise checkpoints_lib.MismatchError(
        f"what checkpoint {step} was trained on has changed: {changed} was "
        f"{[record.get(k) for k in changed]}, is "
        f"{[expected[k] for k in changed]}. Use another --workdir."
      )
    stretch, like = job.stretch_at(step), fresh
    if stretch.start < step < stretch.stop:
      like = best_weights.start(fresh, stretch.phase, job.settings)
    # A phase that starts afresh at this very step still carries the old state.
    if step == stretch.start and step:
      stretch = job.stretches[job.stretches.index(stretch) - 1]
    leaves = step_lib.trainable(fresh.params, stretch.phase)
    opt = mesh_lib.place(
      job.transform(stretch).init(leaves), job.mesh, fsdp=job.settings.fsdp
    )
    return saved.restore(step, like.replace(opt=opt))

  return checkpoints_lib.newest(saved, read)


def _due(step: int, every: int) -> bool:
  return bool(every) and step % every == 0


def _terms(values: Mapping[str, float]) -> dict[str, float]:
  terms = {k: v for k, v in values.items() if k.startswith("loss/")}
  return {k.removeprefix("loss/"): v for k, v in terms.items()}
