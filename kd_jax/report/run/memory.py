"""How much memory a run will need, before anything is compiled."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from kd_jax import trees
from kd_jax.methods import sizes
from kd_jax.models.backbone import variable_shapes
from kd_jax.train import mesh as mesh_lib
from kd_jax.train import phases, views
from kd_jax.train import step as step_lib
from kd_jax.train.experiment import Experiment
from kd_jax.train.teacher import artifact
from kd_jax.types import Array, ArrayTree, TrainState

Shapes = dict[str, Any]
"""Nested dicts of `jax.ShapeDtypeStruct`."""

_GB = 1e9
_OWNERS = {"student": "student", "method": "projectors"}


def estimate(experiment: Experiment) -> dict[str, float]:
  """Gigabytes (1e9 bytes) that the first phase needs on each device.

  'student' and 'projectors' (whatever the method trains itself) are parameters,
  gradients, optimizer state, moving average, best weights and statistics;
  'teacher' its variables; these are exact. 'activations' are what the forward
  pass of one microbatch keeps for the backward pass: what `jax.vjp` holds
  beside its inputs, less with `jax.checkpoint`. Compiled, the step keeps less
  where operations are fused, and needs more for what it is working on, such as
  maps that are computed again, or parameters gathered under fsdp.

  Only shapes are computed, by tracing the loss of one microbatch once.

  Args:
    experiment: that is about to run.

  Returns:
    No 'projectors' for methods without parameters; no 'teacher' if no JAX
    network runs, and the names of the teachers instead if there are several.
  """
  params, stats = shapes(experiment)
  found = {}
  for owner, name in _OWNERS.items():
    if params.get(owner):
      found[name] = _state_bytes(experiment, params, stats, owner)
  for name, kept in experiment.teaching.kept(experiment.mesh).items():
    found[name] = _bytes(kept)
  found["activations"] = _activation_bytes(experiment, params, stats)
  return {name: size / _GB for name, size in found.items()}


def line(estimated: Mapping[str, float]) -> str:
  """'student 0.1, teacher 0.79, activations 5.2 (estimated)'."""
  sizes = ", ".join(f"{name} {size:.3g}" for name, size in estimated.items())
  return f"{sizes} (estimated)"


def shapes(experiment: Experiment) -> tuple[Shapes, Shapes]:
  """(params, stats) as `phases.init_variables` fills them."""
  key = jax.random.key(0)
  student = variable_shapes(experiment.student)
  init = experiment.method.init
  own = dict(jax.eval_shape(lambda k: init(k, *experiment.specs), key))
  params = {"student": student["params"]}
  if own.get("params"):
    params["method"] = own["params"]
  own.pop("params", None)
  return params, {"student": student.get("batch_stats", {}), "method": own}


def _state_bytes(
  experiment: Experiment, params: Shapes, stats: Shapes, owner: str
) -> int:
  """What the train state holds of the student or of the method."""
  phase, settings = experiment.stretches[0].phase, experiment.settings
  leaves = step_lib.trainable(params, phase)
  leaves = {k: x for k, x in leaves.items() if trees.is_under(k, (owner,))}
  optim = dataclasses.replace(experiment.optim, **dict(phase.optim))
  tx = optim.transform(experiment.stretches[-1].stop)
  kept = [params[owner], leaves, jax.eval_shape(tx.init, leaves), stats[owner]]
  if settings.ema_decay:
    kept.append(params[owner])
  if phase.judge:
    kept += [leaves, stats[owner]]
  layout = functools.partial(
    mesh_lib.leaf_sharding, mesh=experiment.mesh, fsdp=settings.fsdp
  )
  return _bytes(
    jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(layout(x).shard_shape(x.shape), x.dtype),
      kept,
    )
  )


def _activation_bytes(
  experiment: Experiment, params: Shapes, stats: Shapes
) -> int:
  """What the backward pass of a microbatch reads, on one device."""
  batch_size = experiment.schedule.batch_size
  rows = batch_size // experiment.settings.accum_steps // experiment.mesh.size
  source, phase = experiment.teaching.source, experiment.stretches[0].phase
  seen = experiment.inputs.views
  sides = sizes.of(stretch.phase for stretch in experiment.stretches)
  if sides:
    seen = dataclasses.replace(seen, image_size=max(sides))
  # Mixing keeps nothing, and one device may hold half a pair, or of a group.
  settings = dataclasses.replace(
    experiment.settings, mix=views.Mix(), batch_norm_group=0
  )
  objective = step_lib.Objective(experiment.student, source, phase, settings)
  key = jax.random.key(0)
  step, rng = jnp.zeros((), jnp.int32), jax.random.key_data(key)
  state = TrainState(step, params, stats, opt={}, ema={}, rng=rng)
  given = (
    state,
    stats,
    {
      "teacher": experiment.teaching.variables,
      "artifact": artifact.placeholder(experiment.method, experiment.specs),
    },
    phases.image_batch(
      rows, seen.canvas_size, source, label=seen.label_specs(rows)
    ),
    key,
  )
  leaves = step_lib.trainable(params, phase)
  return _bytes(jax.eval_shape(_residuals(objective.loss), leaves, *given))


def _residuals(
  loss: Callable[..., tuple[Array, Any]],
) -> Callable[..., list[Array]]:
  """(leaves, *given) -> what the gradient needs beside its arguments."""

  def run(leaves: Shapes, *given: ArrayTree) -> list[Array]:
    _, back, _ = jax.vjp(lambda x: loss(x, *given), leaves, has_aux=True)
    known = {id(x) for x in jax.tree.leaves((leaves, given))}
    kept = {id(x): x for x in jax.tree.leaves(back)}
    return [x for name, x in kept.items() if name not in known]

  return run


def _bytes(tree: ArrayTree) -> int:
  """Of all arrays, or shapes of arrays, in a tree."""
  return sum(
    math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree)
  )
