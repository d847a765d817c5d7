"""The train steps of a run, lowered for devices from shapes alone."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from kd_jax.report.run import memory
from kd_jax.train import best_weights, loop, phases
from kd_jax.train import mesh as mesh_lib
from kd_jax.train import step as step_lib
from kd_jax.train.experiment import Experiment
from kd_jax.train.phases import Stretch
from kd_jax.train.teacher import artifact
from kd_jax.types import ArrayTree, Batch, Params, Stats, TrainState

Shapes = Any
"""A tree of `jax.ShapeDtypeStruct`."""


@dataclasses.dataclass(frozen=True)
class Lowered:
  """The step of one phase, ready to be compiled.

  Attributes:
    name: of the phase.
    steps: that it lasts.
    state, frozen, batch: what the step takes, as shapes with a place.
    traced: the step for them.
  """

  name: str
  steps: int
  state: TrainState
  frozen: Shapes
  batch: Batch
  traced: jax.stages.Traced


def steps_of(experiment: Experiment) -> list[Lowered]:
  """The step of every phase; phases that compute the same are one, joined.

  Args:
    experiment: on the devices to compile for; the teacher's variables may be
      shapes.
  """
  job = job_of(experiment)
  params, stats = memory.shapes(experiment)
  known: list[tuple[Any, Lowered]] = []
  for stretch in job.stretches:
    state = _state(job, stretch, params, stats)
    batch = _batch(experiment, stretch)
    plain = dataclasses.replace(
      stretch.phase, name="", data=(), steps_frac=1.0, fresh_opt=True
    )
    key = (plain, jax.tree.structure((state, batch)), _leaves((state, batch)))
    lasts = stretch.stop - stretch.start
    same = [i for i, (other, _) in enumerate(known) if other == key]
    if same:
      before = known[same[0]][1]
      name = f"{before.name}, {stretch.phase.name}"
      joined = dataclasses.replace(
        before, name=name, steps=before.steps + lasts
      )
      known[same[0]] = (key, joined)
      continue
    step = job.step(stretch)
    assert isinstance(step, jax.stages.Wrapped)
    traced = step.trace(state, job.frozen, batch)
    found = Lowered(stretch.phase.name, lasts, state, job.frozen, batch, traced)
    known.append((key, found))
  return [found for _, found in known]


def job_of(experiment: Experiment) -> loop.Job:
  """The job whose steps are compiled; it has neither images nor weights."""
  teaching, schedule = experiment.teaching, experiment.schedule
  teacher = jax.tree.map(
    _shape, dict(teaching.variables), teaching.shardings(experiment.mesh)
  )
  whole = mesh_lib.replicated(experiment.mesh)
  statistics = artifact.placeholder(experiment.method, experiment.specs)
  frozen = {
    "teacher": teacher,
    "artifact": _placed(statistics, lambda x: whole),
  }
  return loop.Job(
    student=experiment.student,
    source=teaching.source,
    stretches=experiment.stretches,
    settings=experiment.settings,
    optim=experiment.optim,
    frozen=frozen,
    batches=experiment.inputs.batches,
    record=lambda step: {},
    evaluate=experiment.evaluate,
    batch_size=schedule.batch_size,
    log_every=schedule.log_every,
    eval_every=schedule.eval_every,
    save_every=schedule.save_every,
  )


def _state(
  job: loop.Job, stretch: Stretch, params: Params, stats: Stats
) -> TrainState:
  """The state in a phase, where the loop has it."""

  def make(params: Params, stats: Stats) -> TrainState:
    leaves = step_lib.trainable(params, stretch.phase)
    opt = job.transform(stretch).init(leaves)
    state = loop.placed_state(
      params, stats, opt, jax.random.key(0), job.settings
    )
    return best_weights.start(state, stretch.phase, job.settings)

  layout = functools.partial(
    mesh_lib.leaf_sharding, mesh=job.mesh, fsdp=job.settings.fsdp
  )
  return _placed(jax.eval_shape(make, params, stats), layout)


def _batch(experiment: Experiment, stretch: Stretch) -> Batch:
  """A batch as it comes from the hosts."""
  views = dataclasses.replace(
    experiment.inputs.views, **dict(stretch.phase.data)
  )
  rows, size = experiment.schedule.batch_size, views.canvas_size
  seen = phases.image_batch(
    rows, size, experiment.teaching.source, label=views.label_specs(rows)
  )
  geometry = None
  if views.canvas:
    rows, size = rows // views.num_crops, (views.canvas, views.canvas)
    geometry = jax.ShapeDtypeStruct((rows, views.num_crops, 7), jnp.int32)
    short = {
      name: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype)
      for name, x in (("label", seen.label), ("mask", seen.mask))
    }
    seen = seen.replace(**short)
  image = jax.ShapeDtypeStruct((rows, *size, 3), jnp.uint8)
  others = {
    name: jax.ShapeDtypeStruct(x.shape, jnp.uint8)
    for name, x in seen.views.items()
    if not views.canvas
  }
  batch = seen.replace(image=image, geometry=geometry, views=others)
  return _placed(batch, lambda x: mesh_lib.sharded(experiment.mesh))


def _placed(
  tree: ArrayTree, where: Callable[[Any], jax.sharding.Sharding]
) -> Shapes:
  """Shapes of a tree, each with its place."""
  return jax.tree.map(lambda x: _shape(x, where(x)), tree)


def _shape(
  x: ArrayLike | jax.ShapeDtypeStruct, where: jax.sharding.Sharding
) -> jax.ShapeDtypeStruct:
  shaped = isinstance(x, jax.Array | jax.ShapeDtypeStruct)
  dtype = x.dtype if shaped else np.asarray(x).dtype
  return jax.ShapeDtypeStruct(np.shape(x), dtype, sharding=where)


def _leaves(tree: ArrayTree) -> list[tuple[tuple[int, ...], str]]:
  return [(x.shape, str(x.dtype)) for x in jax.tree.leaves(tree)]
