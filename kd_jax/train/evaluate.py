"""What is measured between two stretches of training."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from kd_jax import resolve
from kd_jax.evals import features
from kd_jax.interfaces import Method, TeacherSource
from kd_jax.train import mesh as mesh_lib
from kd_jax.train.views import as_unit, in_unit
from kd_jax.types import (
  Array,
  ArrayTree,
  Batch,
  Frozen,
  Network,
  Params,
  Taps,
  TrainState,
  Variables,
)

Batches = Callable[[], Any]  # a fresh, closeable pass over Batch
Item = TypeVar("Item")


def fold(
  step: Callable[[ArrayTree, Item], ArrayTree],
  zero: ArrayTree,
  stream: Iterable[Item],
) -> ArrayTree:
  """Adds up what a stream of batches gives, on the devices.

  Results come to the host once, at the end. While the devices work on a batch
  the next one is read, placed and sent after it; no third one, for batches take
  memory.

  Args:
    step: (total, batch) -> new total: compiled, or made of what is. It may not
      donate the total, of which every device has a whole copy
      (`mesh.replicated`).
    zero: total of no batch; None if `step` takes it.
    stream: the batches, on the devices; a generator places each when asked.

  Returns:
    The last total, as NumPy arrays.
  """
  total = zero
  for item in stream:
    before, total = total, step(total, item)
    jax.block_until_ready(before)
  return jax.tree.map(np.asarray, total)


@jax.jit
def added(total: ArrayTree, found: ArrayTree) -> ArrayTree:
  """Sums of two trees, array by array."""
  return jax.tree.map(jnp.add, total, found)


@dataclasses.dataclass(frozen=True)
class Evaluator:
  """Evaluates the student (its moving average, if there is one).

  Attributes:
    student: the network.
    source: where teacher taps come from.
    method: its `metrics` are averaged over `judge`.
    mesh: devices.
    train: a fresh pass over the labelled images that vote.
    test: a fresh pass over the images that are classified.
    judge: a fresh pass over the images of the method's metrics; None: `test`.
    online: whether the teacher can say something about `judge`; otherwise
      `method.metrics` is left out.
    evals: names of files in kd_jax/evals with `evaluate(train, test)`.
    tap: the feature that they read.
    labels: whether the labels of `judge` are the classes that the student's
      classifier learns; otherwise `method.metrics` sees none (-1).
  """

  student: Network
  source: TeacherSource
  method: Method
  mesh: jax.sharding.Mesh
  train: Batches
  test: Batches
  evals: tuple[str, ...]
  tap: str = "pooled"
  online: bool = True
  judge: Batches | None = None
  labels: bool = True

  def __post_init__(self) -> None:
    for name in self.evals:
      resolve.symbol("evals", name, "evaluate")

  def __call__(self, state: TrainState, frozen: Frozen) -> dict[str, float]:
    """{'eval/<name>': value} of every eval and of the method's metrics."""
    params = state.ema or state.params
    variables = {
      "params": params["student"],
      "batch_stats": state.stats["student"],
    }
    found = self._method_metrics(params, variables, state, frozen)
    if self.evals:
      sets = [self._features(variables, b) for b in (self.train, self.test)]
      for name in self.evals:
        evaluate = resolve.symbol("evals", name, "evaluate")
        found |= evaluate(*sets)
    return {f"eval/{name}": value for name, value in found.items()}

  def _features(
    self, variables: Variables, batches: Batches
  ) -> features.Features:
    with contextlib.closing(batches()) as stream:
      placed = (mesh_lib.put_batch(batch, self.mesh) for batch in stream)
      apply = functools.partial(self._taps, variables)
      return features.extract(apply, placed, self.tap)

  def _method_metrics(
    self,
    params: Params,
    variables: Variables,
    state: TrainState,
    frozen: Frozen,
  ) -> dict[str, float]:
    own = {"params": params.get("method", {}), **state.stats["method"]}
    if not self.online:
      return {}

    def step(total: dict[str, Array] | None, batch: Batch) -> dict[str, Array]:
      found = self._metrics(variables, own, frozen, batch)
      return found if total is None else added(total, found)

    with contextlib.closing((self.judge or self.test)()) as stream:
      placed = (mesh_lib.put_batch(batch, self.mesh) for batch in stream)
      sums = fold(step, None, placed) or {}
    # No figure where nothing was counted: no row has a label, for instance.
    found = {k: v for k, v in sums.items() if v[1]}
    return {name: float(top / bottom) for name, (top, bottom) in found.items()}

  # Jitted once: a run evaluates many times.
  @functools.cached_property
  def _taps(self) -> Callable[[Variables, Array], Taps]:
    return jax.jit(self._apply)

  @functools.cached_property
  def _metrics(
    self,
  ) -> Callable[[Variables, Variables, Frozen, Batch], dict[str, Array]]:
    whole = mesh_lib.replicated(self.mesh)
    return jax.jit(self._sums, out_shardings=whole)

  def _apply(self, variables: Variables, image: Array) -> Taps:
    return self.student.apply(variables, as_unit(image), train=False)

  def _sums(
    self, variables: Variables, own: Variables, frozen: Frozen, batch: Batch
  ) -> dict[str, Array]:
    known = batch.label if self.labels else jnp.full_like(batch.label, -1)
    batch = in_unit(batch).replace(label=known)
    found = self.method.metrics(
      {**own, "artifact": frozen["artifact"]},
      self._apply(variables, batch.image),
      self.source(frozen, batch),
      batch,
    )
    return {
      name: jnp.stack([jnp.sum(x * batch.mask) for x in pair])
      for name, pair in found.items()
    }
