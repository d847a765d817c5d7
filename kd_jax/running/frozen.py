"""What features are worth as they came, before anything is trained on them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from kd_jax import resolve, trees
from kd_jax.evals import features
from kd_jax.interfaces import DataSource
from kd_jax.train import mesh as mesh_lib
from kd_jax.train.views import as_unit
from kd_jax.transfer.plan import Plan, Trial
from kd_jax.types import Array, Taps, Variables

TAP = "pooled"


def judged(
  plan: Plan,
  batches: Callable[[DataSource], Any],
  apply: Callable[[Array], Taps] | None = None,
) -> dict[str, list[float]]:
  """{eval: value of every seed} of the protocol's `evals`.

  The images that vote, or that a linear classifier is fitted to, are those
  that the run of the same seed trains on, in their evaluation views.

  Args:
    plan: of the transfer.
    batches: a fresh closeable pass over the evaluation views of a source.
    apply: images -> {`TAP`: features}; None is the network as runs start.
  """
  wanted = plan.protocol.evals
  if not wanted:
    return {}
  mesh = plan.experiment.mesh
  if apply is None:
    # An argument: a constant would be folded by the compiler.
    variables = mesh_lib.place(starting_weights(plan), mesh)
    apply = functools.partial(jax.jit(taps(plan)), variables)

  def of(source: DataSource) -> features.Features:
    with batches(source) as stream:
      placed = (mesh_lib.put_batch(batch, mesh) for batch in stream)
      return features.extract(apply, placed, TAP)

  test = of(plan.test)
  found: dict[str, list[float]] = {name: [] for name in wanted}
  # All images are the same ones for every seed.
  seeds = (
    plan.protocol.seeds if plan.protocol.shots else plan.protocol.seeds[:1]
  )
  for seed in seeds:
    train = of(plan.images(Trial(plan.rates[0], seed)))
    for name in wanted:
      evaluate = resolve.symbol("evals", name, "evaluate")
      found[name].append(evaluate(train, test)[name])
  return found


def taps(plan: Plan) -> Callable[[Variables, Array], Taps]:
  """(variables, images) -> taps of the network of a plan."""
  student = plan.experiment.student

  def apply(variables: Variables, image: Array) -> Taps:
    return student.apply(variables, as_unit(image), train=False)

  return apply


def starting_weights(plan: Plan) -> Variables:
  """What the runs start from; an untrained network where that is nothing."""
  experiment = plan.experiment
  params, stats = experiment.fresh(jax.random.key(experiment.schedule.seed))
  found: Mapping[str, Any] = {
    "params": params["student"],
    "batch_stats": stats["student"],
  }
  initial = experiment.initial
  merged = {
    kind: trees.merge(tree, initial.get(kind, {}))
    for kind, tree in found.items()
  }
  return jax.tree.map(jnp.asarray, merged)
