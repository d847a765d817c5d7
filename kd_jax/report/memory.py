"""How much memory a run will need, before anything is compiled."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
from flax import linen as nn
from ml_collections import ConfigDict

from kd_jax import trees
from kd_jax.models.backbone import variable_shapes
from kd_jax.train import mesh as mesh_lib
from kd_jax.train import phases, views
from kd_jax.train import step as step_lib
from kd_jax.types import TrainState

_GB = 1e9
_OWNERS = {"student": "student", "method": "projectors"}


def estimate(config: ConfigDict, parts: Any) -> dict[str, float]:
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
    config: of the run.
    parts: `pretrain.Parts`.

  Returns:
    No 'projectors' for methods without parameters; no 'teacher' if no JAX
    network runs.
  """
  params, stats = _shapes(parts)
  found = {}
  for owner, name in _OWNERS.items():
    if params.get(owner):
      found[name] = _state_bytes(config, parts, params, stats, owner)
  if isinstance(parts.taught.model, nn.Module):
    found["teacher"] = _bytes(parts.taught.variables)
  found["activations"] = _activation_bytes(config, parts, params, stats)
  return {name: size / _GB for name, size in found.items()}


def line(estimated: Mapping[str, float]) -> str:
  """'student 0.1, teacher 0.79, activations 5.2 (estimated)'."""
  sizes = ", ".join(f"{name} {size:.3g}" for name, size in estimated.items())
  return f"{sizes} (estimated)"


def _shapes(parts: Any) -> tuple[dict[str, Any], dict[str, Any]]:
  """(params, stats) as `phases.init_variables` fills them."""
  key = jax.random.key(0)
  student = variable_shapes(parts.student)
  own = dict(jax.eval_shape(lambda k: parts.method.init(k, *parts.specs), key))
  params = {"student": student["params"]}
  if own.get("params"):
    params["method"] = own["params"]
  own.pop("params", None)
  return params, {"student": student.get("batch_stats", {}), "method": own}


def _state_bytes(
  config: ConfigDict, parts: Any, params: Any, stats: Any, owner: str
) -> int:
  """What the train state holds of the student or of the method."""
  phase = parts.stretches[0].phase
  leaves = step_lib.trainable(params, phase)
  leaves = {k: x for k, x in leaves.items() if trees.is_under(k, (owner,))}
  optim = dataclasses.replace(parts.optim, **dict(phase.optim))
  tx = optim.transform(parts.stretches[-1].stop)
  kept = [params[owner], leaves, jax.eval_shape(tx.init, leaves), stats[owner]]
  if config.ema_decay:
    kept.append(params[owner])
  if phase.judge:
    kept += [leaves, stats[owner]]
  layout = functools.partial(
    mesh_lib.leaf_sharding, mesh=parts.mesh, fsdp=config.fsdp
  )
  return _bytes(
    jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(layout(x).shard_shape(x.shape), x.dtype),
      kept,
    )
  )


def _activation_bytes(
  config: ConfigDict, parts: Any, params: Any, stats: Any
) -> int:
  """What the backward pass of a microbatch reads, on one device."""
  # `describe`, which artifacts import, imports this file.
  from kd_jax.build import artifacts

  rows = config.batch_size // config.accum_steps // parts.mesh.size
  source, phase = parts.taught.source, parts.stretches[0].phase
  # Mixing keeps nothing, and one device may hold half a pair.
  settings = dataclasses.replace(parts.settings, mix=views.Mix())
  objective = step_lib.Objective(parts.student, source, phase, settings)
  state = TrainState(None, params, stats, opt={}, ema={}, rng=None)
  artifact = artifacts.placeholder(parts.method, parts.specs)
  given = (
    state,
    stats,
    {"teacher": parts.taught.variables, "artifact": artifact},
    phases.image_batch(rows, parts.views.image_size, source),
    jax.random.key(0),
  )
  leaves = step_lib.trainable(params, phase)
  return _bytes(jax.eval_shape(_residuals(objective.loss), leaves, *given))


def _residuals(loss: Any) -> Any:
  """(leaves, *given) -> what the gradient needs beside its arguments."""

  def run(leaves: Mapping[str, Any], *given: Any) -> list[Any]:
    _, back, _ = jax.vjp(lambda x: loss(x, *given), leaves, has_aux=True)
    known = {id(x) for x in jax.tree.leaves((leaves, given))}
    kept = {id(x): x for x in jax.tree.leaves(back)}
    return [x for name, x in kept.items() if name not in known]

  return run


def _bytes(tree: Any) -> int:
  """Of all arrays, or shapes of arrays, in a tree."""
  return sum(
    math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree)
  )
