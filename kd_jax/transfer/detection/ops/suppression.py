"""Non-maximum suppression without leaving the device."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kd_jax.transfer.detection.ops import boxes as boxes_lib

BLOCK = 256
"""Rows that are decided together."""

ROUNDS = 4
"""Rounds until it is asked whether they changed anything. Where the images of
a batch are on several devices, these have to agree on the answer."""


def keep(
  boxes: Float[Array, "k 4"],
  valid: Bool[Array, " k"],
  threshold: float,
  groups: Int[Array, " k"] | None = None,
) -> Bool[Array, " k"]:
  """Which boxes stay: the greedy answer, exactly.

  Row by row, a valid box stays if no earlier one that stays overlaps it with
  an IoU above `threshold`. Blocks of rows are decided one after the other:
  earlier blocks are final by then, and inside the block the rule is applied to
  all rows at once until nothing changes. After t rounds the first t rows are
  final, so this ends, and at the greedy answer.

  Args:
    boxes: by falling score; of equal scores the earlier row wins.
    valid: others neither stay nor suppress.
    threshold: largest IoU of two boxes that stay.
    groups: only boxes of one group suppress each other; None is one group.
  """
  total = boxes.shape[0]
  if groups is None:
    groups = jnp.zeros((total,), jnp.int32)
  if total <= BLOCK:
    return _within(boxes, valid, groups, threshold)
  block, pad = BLOCK, -total % BLOCK
  boxes = jnp.pad(boxes, ((0, pad), (0, 0)))
  valid, groups = jnp.pad(valid, (0, pad)), jnp.pad(groups, (0, pad))

  def decide(kept: Array, start: Array) -> tuple[Array, None]:
    own, alive, group = (
      jax.lax.dynamic_slice_in_dim(x, start, block)
      for x in (boxes, valid, groups)
    )
    # The long axis last: compilers make it vectors.
    rivals = (group[:, None] == groups) & kept
    overlap = jnp.where(rivals, boxes_lib.iou(own, boxes), 0)
    alive &= jnp.max(overlap, 1) <= threshold
    alive = _within(own, alive, group, threshold)
    return jax.lax.dynamic_update_slice_in_dim(kept, alive, start, 0), None

  starts = jnp.arange(0, total + pad, block)
  kept, _ = jax.lax.scan(decide, jnp.zeros_like(valid), starts)
  return kept[:total]


def _within(
  boxes: Float[Array, "b 4"],
  alive: Bool[Array, " b"],
  group: Int[Array, " b"],
  threshold: float,
) -> Bool[Array, " b"]:
  """What stays of a block."""
  inside = boxes_lib.iou(boxes, boxes) > threshold
  inside &= group[:, None] == group
  return _greedy(jnp.tril(inside, -1), alive)


def _greedy(by: Bool[Array, "b b"], alive: Bool[Array, " b"]) -> Array:
  """What stays of `alive` where row i goes if a row j < i in `by` stays."""

  def once(_: int, state: tuple[Array, Array]) -> tuple[Array, Array]:
    now = state[1]
    return now, alive & ~jnp.any(by & now, 1)

  def changed(state: tuple[Array, Array]) -> Array:
    return jnp.any(state[0] != state[1])

  def again(state: tuple[Array, Array]) -> tuple[Array, Array]:
    return jax.lax.fori_loop(0, ROUNDS, once, state)

  start = (~alive, alive)
  return jax.lax.while_loop(changed, again, start)[1]
