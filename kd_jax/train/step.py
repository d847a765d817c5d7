"""The train step: one jitted function for every method.

batch -> (student taps, teacher) -> loss terms -> sum of weights x terms ->
gradient of the trainable parameters -> optimizer -> new state.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

from kd_jax import trees
from kd_jax.interfaces import TeacherSource
from kd_jax.models.blocks import layers
from kd_jax.train import group_rates, hidden, views
from kd_jax.train import mesh as mesh_lib
from kd_jax.types import (
  Array,
  Batch,
  Frozen,
  Network,
  Params,
  Phase,
  Stats,
  Taps,
  TrainState,
)

Step = Callable[
  [TrainState, Frozen, Batch], tuple[TrainState, dict[str, Array]]
]


@dataclasses.dataclass(frozen=True)
class Settings:
  """What the step needs beside networks and phase.

  Attributes:
    weights: {loss term: weight}; a term that is missing here is an error.
    accum_steps: microbatches per update; BatchNorm sees one at a time.
    ema_decay: decay of the moving average of parameters; 0 keeps none.
    mesh: where the state lives; None on a single device.
    fsdp: whether the state is sharded over the mesh.
    cut: how views are cut out of whole images.
    mix: mixup and CutMix.
    classes: number of label classes that are mixed; 0 if there are none.
    crops: views per image.
    batch_norm_group: images of a microbatch that share BatchNorm statistics;
      0: all.
  """

  weights: Mapping[str, float]
  accum_steps: int = 1
  ema_decay: float = 0.0
  mesh: jax.sharding.Mesh | None = None
  fsdp: bool = False
  cut: views.Cut = views.Cut()
  mix: views.Mix = views.Mix()
  classes: int = 0
  crops: int = 1
  batch_norm_group: int = 0

  def batch_norms(
    self, batch: Batch
  ) -> contextlib.AbstractContextManager[None]:
    """How BatchNorm computes inside the block, on a microbatch."""
    devices = 1 if self.mesh is None else self.mesh.size
    rows = len(batch.image)
    group = self.batch_norm_group or rows
    return layers.batch_norms(
      group=0 if group == rows else group,
      one_sum=group * devices > rows and devices > 1,
    )

  def view(self, batch: Batch, key: Array) -> Batch:
    """What networks and losses see of a microbatch."""
    batch = views.seen(batch, self.cut)
    if not self.mix.mixes and not self.mix.smoothing:
      return batch
    key = jax.random.fold_in(key, 1)
    return views.mixed(
      batch, key, self.mix, classes=self.classes, crops=self.crops
    )


@dataclasses.dataclass(frozen=True)
class Objective:
  """The weighted sum of a phase's loss terms, and its gradient.

  Attributes:
    student: the network that learns.
    source: where teacher taps come from.
    phase: what is trained by which terms.
    settings: weights and microbatches.
  """

  student: Network
  source: TeacherSource
  phase: Phase
  settings: Settings

  def loss(
    self,
    leaves: Mapping[str, Array],
    state: TrainState,
    stats: Stats,
    frozen: Frozen,
    batch: Batch,
    key: Array,
  ) -> tuple[Array, tuple[dict[str, Array], dict[str, Any]]]:
    """(total, ({metric: value}, new statistics)) of one microbatch.

    Args:
      leaves: the trainable parameters, which replace those of `state`.
      state: holds all other parameters.
      stats: batch statistics before this microbatch.
      frozen: teacher variables and artifact.
      batch: images as they came from the host.
      key: of dropout and mixing.
    """
    params = trees.overlay(state.params, leaves)
    batch = self.settings.view(batch, key)
    with self.settings.batch_norms(batch):
      return self._loss(params, stats, frozen, batch, key)

  def _loss(
    self,
    params: Params,
    stats: Stats,
    frozen: Frozen,
    batch: Batch,
    key: Array,
  ) -> tuple[Array, tuple[dict[str, Array], dict[str, Any]]]:
    truth = {"truth": batch.label} if self.phase.needs.truth else {}
    taps, updated = self.student.apply(
      {"params": params["student"], "batch_stats": stats["student"]},
      batch.image,
      **truth,
      train=bool(self.phase.train_from),
      train_from=self.phase.train_from or "stem",
      end=self.phase.end,
      mutable=["batch_stats"],
      rngs={"dropout": key},
    )
    if self.phase.hidden is not None:
      taps = {**taps, **self._hidden(params, stats, batch, key)}
    own = {"params": params.get("method", {}), **stats["method"]}
    draws = jax.random.fold_in(key, 2)
    terms, method_stats = self.phase.losses(
      {**own, "artifact": frozen["artifact"], "key": draws},
      taps,
      self.source(frozen, batch),
      batch,
    )
    first, *rest = (self.settings.weights[k] * x for k, x in terms.items())
    total = sum(rest, first)
    metrics = {f"loss/{name}": term for name, term in terms.items()}
    return total, (
      {**metrics, "loss/total": total},
      {
        "student": trees.merge(
          stats["student"], updated.get("batch_stats", {})
        ),
        "method": trees.merge(stats["method"], method_stats),
      },
    )

  def _hidden(
    self, params: Params, stats: Stats, batch: Batch, key: Array
  ) -> Taps:
    """Taps of the second run; its batch statistics are not kept."""
    how = self.phase.hidden
    assert how is not None
    image, mask = hidden.hide(batch.image, jax.random.fold_in(key, 3), how)
    taps, _ = self.student.apply(
      {"params": params["student"], "batch_stats": stats["student"]},
      image,
      train=bool(self.phase.train_from),
      train_from=self.phase.train_from or "stem",
      end=self.phase.end,
      mutable=["batch_stats"],
      rngs={"dropout": jax.random.fold_in(key, 4)},
    )
    found = {f"hidden/{tap}": taps[tap] for tap in how.taps}
    return {**found, "hidden/mask": mask}

  def gradients(
    self, state: TrainState, frozen: Frozen, batch: Batch, key: Array
  ) -> tuple[dict[str, Array], dict[str, Array], Stats]:
    """(gradients, metrics, statistics), averaged over the microbatches."""
    leaves = trainable(state.params, self.phase)
    grad = jax.grad(self.loss, has_aux=True)

    def one(
      stats: Stats, part: tuple[Batch, Array | int]
    ) -> tuple[Stats, tuple[dict[str, Array], dict[str, Array]]]:
      micro, index = part
      micro_key = jax.random.fold_in(key, index)
      grads, (metrics, stats) = grad(
        leaves, state, stats, frozen, micro, micro_key
      )
      return stats, (grads, metrics)

    parts = self.settings.accum_steps
    if parts == 1:
      stats, found = one(state.stats, (batch, 0))
      return *found, stats
    micros = (split(batch, parts), jnp.arange(parts))
    stats, found = jax.lax.scan(one, state.stats, micros)
    return *jax.tree.map(lambda x: x.mean(0), found), stats


def make_train_step(
  student: Network,
  source: TeacherSource,
  phase: Phase,
  tx: optax.GradientTransformation,
  settings: Settings,
) -> Step:
  """Builds (state, frozen, batch) -> (state, metrics), jitted.

  The state is donated. `frozen` may hold 'rate', a factor of the learning
  rate. Metrics are device scalars: 'loss/<term>',
  'loss/total', 'grad_norm', and 'has_grad', one boolean per trainable leaf in
  the order of `trainable(...)`.
  """
  objective = Objective(student, source, phase, settings)

  @functools.partial(jax.jit, donate_argnums=0)
  def train_step(
    state: TrainState, frozen: Frozen, batch: Batch
  ) -> tuple[TrainState, dict[str, Array]]:
    key = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
    grads, metrics, stats = objective.gradients(state, frozen, batch, key)
    leaves = trainable(state.params, phase)
    updates, opt = tx.update(grads, state.opt, leaves)
    updates = group_rates.scaled(updates, frozen.get("rate"))
    leaves = cast(dict[str, Array], optax.apply_updates(leaves, updates))
    params = trees.overlay(state.params, leaves)
    metrics["grad_norm"], metrics["has_grad"] = sizes_of(grads)
    new = TrainState(
      step=state.step + 1,
      params=params,
      stats=stats,
      opt=opt,
      ema=average(state.ema, params, settings.ema_decay),
      rng=state.rng,
      best=state.best,
    )
    return pin(new, settings), metrics

  return train_step


def trainable(params: Params, phase: Phase) -> dict[str, Array]:
  """{path: leaf} of the parameters that `phase` updates."""
  return trees.select(params, phase.trainable, phase.frozen)


def sizes_of(grads: Mapping[str, Array]) -> tuple[Array, Array]:
  """(norm of all gradients, which of them are not zero).

  One sum per leaf gives both, and one for all vectors of a length: two per
  leaf were a third of all that XLA compiled of a small network's step.
  A gradient whose elements are all below 1e-19 counts as zero.
  """
  alike: dict[tuple[Any, ...], list[str]] = {}
  for path, grad in grads.items():
    alike.setdefault((grad.shape, grad.ndim > 1 and path), []).append(path)
  squares: dict[str, Array] = {}
  for paths in alike.values():
    if len(paths) == 1:
      squares[paths[0]] = jnp.sum(jnp.square(grads[paths[0]]))
      continue
    stacked = jnp.stack([grads[path].ravel() for path in paths])
    found = jnp.square(stacked).sum(1)
    squares |= dict(zip(paths, found, strict=True))
  each = jnp.stack([squares[path] for path in grads])
  return jnp.sqrt(each.sum()), each != 0  # nan is not zero


def average(
  ema: optax.Params, params: optax.Params, decay: float
) -> optax.Params:
  """The new `decay * ema + (1 - decay) * params`; {} if there is none."""
  if not ema:
    return ema
  return optax.incremental_update(params, ema, 1 - decay)


def split(batch: Batch, parts: int) -> Batch:
  """(n, ...) -> (parts, n / parts, ...), each device keeping its own rows."""

  def one(x: Array) -> Array:
    x = x.reshape(x.shape[0] // parts, parts, *x.shape[1:])
    return jnp.swapaxes(x, 0, 1)

  return jax.tree.map(one, batch)


def pin(state: TrainState, settings: Settings) -> TrainState:
  """Keeps the new state in the layout of the old one.

  Without it XLA may choose another layout and the next call compiles again.
  """
  if settings.mesh is None:
    return state
  layout = functools.partial(
    mesh_lib.leaf_sharding, mesh=settings.mesh, fsdp=settings.fsdp
  )
  constrain = jax.lax.with_sharding_constraint
  return jax.tree.map(lambda x: constrain(x, layout(x)), state)
