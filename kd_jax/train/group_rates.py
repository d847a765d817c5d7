"""Learning rates that differ between groups of parameters.

A faster head: the semantic segmentation recipe of KDEP, after DeepLab
(arXiv:1606.00915). Rates that fall with depth: layer-wise rate decay of
ULMFiT (arXiv:1801.06146), as BEiT (2106.08254) fine-tunes transformers.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable

import jax
import optax

from kd_jax import trees
from kd_jax.types import Array

_HEADS = ("student/head", "student/aux")
_BLOCK = re.compile(r"student/(?:backbone/)?stage(\d+)(?:/block([\d_]+))?")
_STEM = ("student/stem", "student/backbone/stem")


def head_and_layers(
  head: float, layer_decay: float
) -> optax.GradientTransformation:
  """Multiplies the update of every {path: leaf} by the factor of its group.

  Args:
    head: factor of the task's own head, and of auxiliary ones.
    layer_decay: factor from a layer to the one below it; 1 is none.
  """

  def scale(
    updates: optax.Updates, params: optax.Params | None = None
  ) -> optax.Updates:
    del params
    assert isinstance(updates, dict)
    found = factors(map(str, updates), head=head, layer_decay=layer_decay)
    return jax.tree.map(operator.mul, found, updates)

  return optax.stateless(scale)


def factors(
  paths: Iterable[str], *, head: float, layer_decay: float
) -> dict[str, float]:
  """{path: factor} of the rate; paths as in `step.trainable`."""
  paths = list(paths)
  depth = depths(paths)
  last = max(depth.values(), default=0)
  return {
    path: layer_decay ** (last - depth[path])
    * (head if trees.is_under(path, _HEADS) else 1.0)
    for path in paths
  }


def depths(paths: Iterable[str]) -> dict[str, int]:
  """{path: layer}: 0 is the stem, then every block counts, then all the rest.

  What a stage has beside its blocks (a downsampling, for instance) belongs to
  its first block.
  """
  paths = list(paths)
  places = {path: _place(path) for path in paths}
  blocks = sorted({place for place in places.values() if place and place[1]})
  order = {place: i for i, place in enumerate(blocks, 1)}

  def depth(path: str) -> int:
    if trees.is_under(path, _STEM):
      return 0
    place = places[path]
    if place is None:
      return len(blocks) + 1
    later = (i for b, i in order.items() if b >= place)
    return min(later, default=len(blocks))

  return {path: depth(path) for path in paths}


def _place(path: str) -> tuple[int, tuple[int, ...]] | None:
  """(stage, numbers of the block); None outside of stages."""
  found = _BLOCK.match(path)
  if not found:
    return None
  numbers = found[2].split("_") if found[2] else ()
  # From 1 on, so that a block is never the empty place beside all blocks.
  return int(found[1]), tuple(int(n) + 1 for n in numbers if n)


def scaled(updates: optax.Updates, rate: Array | None) -> optax.Updates:
  """The updates of a run whose learning rate is `rate` times the schedule's.

  Runs that only differ in it share one compiled step.

  Args:
    updates: of the optimizer.
    rate: a scalar; None is 1.
  """
  if rate is None:
    return updates
  return jax.tree.map(lambda update: update * rate, updates)
