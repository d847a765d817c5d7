"""What both stages should say of one image, and where they are asked."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from kd_jax.transfer.detection import proposals
from kd_jax.transfer.detection.ops import boxes as boxes_lib
from kd_jax.transfer.detection.ops import matching, roi_align
from kd_jax.types import Objects

Key = jax.Array


class Sampling(NamedTuple):
  """How the boxes to train on are chosen.

  Attributes:
    number: per image.
    fraction: at most this part are objects.
    low: with less overlap a box is background.
    high: from here on it is an object.
  """

  number: int
  fraction: float
  low: float
  high: float


class Regions(NamedTuple):
  """What the second stage looks at in training.

  Attributes:
    boxes: (r, 4).
    classes: (r,) int32, the number of classes for background, -1 for none.
    rows: (r,) int32, the truth that overlaps most.
  """

  boxes: Float[Array, "r 4"]
  classes: Int[Array, " r"]
  rows: Int[Array, " r"]


def of_anchors(
  key: Key | None,
  anchors: Float[Array, "k 4"],
  boxes: Float[Array, "g 4"],
  classes: Int[Array, " g"],
  rule: Sampling,
) -> tuple[Int[Array, " k"], Float[Array, "k 4"]]:
  """(1 for objects, 0 for background, -1 for not asked; deltas to the truth).

  Args:
    key: None takes the first ones.
    anchors: of all levels.
    boxes: the truth.
    classes: -1 is padding.
    rule: whom to take.
  """
  found = matching.match(
    boxes_lib.iou(boxes, anchors),
    classes >= 0,
    rule.low,
    rule.high,
    low_quality=True,
  )
  label = matching.chosen(key, found.label, rule.number, rule.fraction)
  target = boxes_lib.encode(anchors, boxes[found.row], proposals.WEIGHTS)
  return label, target


def of_proposals(
  key: Key | None,
  proposed: proposals.Proposals,
  boxes: Float[Array, "g 4"],
  classes: Int[Array, " g"],
  rule: Sampling,
  background: int,
) -> Regions:
  """Regions to learn from: of proposals and, behind them, the truth.

  Args:
    key: None takes the first ones.
    proposed: of the first stage.
    boxes: the truth.
    classes: -1 is padding.
    rule: whom to take.
    background: its class.
  """
  real = classes >= 0
  every = jnp.concatenate([proposed.boxes, boxes])
  valid = jnp.concatenate([proposed.valid, real])
  found = matching.match(
    boxes_lib.iou(boxes, every), real, rule.low, rule.high, low_quality=False
  )
  label = jnp.where(valid, found.label, -1)
  taken = matching.picked(key, label, rule.number, rule.fraction)
  rows = found.row[taken.row]
  own = jnp.where(taken.positive, classes[rows], background)
  classes = jnp.where(taken.valid, own, -1).astype(jnp.int32)
  # Batch statistics see empty slots too: they repeat the others.
  real = jnp.arange(rule.number) % jnp.maximum(taken.valid.sum(), 1)
  return Regions(every[taken.row[real]], classes, rows)


def batch_of_anchors(
  keys: Key | None,
  anchors: Float[Array, "k 4"] | Float[np.ndarray, "k 4"],
  truth: Objects,
  rule: Sampling,
) -> tuple[Int[Array, "n k"], Float[Array, "n k 4"]]:
  """`of_anchors` of every image; a key of each."""
  of = functools.partial(of_anchors, rule=rule)
  every = jax.vmap(of, (0, None, 0, 0))
  return every(keys, jnp.asarray(anchors), truth.boxes, truth.classes)


def batch_of_proposals(
  keys: Key | None,
  proposed: proposals.Proposals,
  truth: Objects,
  rule: Sampling,
  background: int,
) -> Regions:
  """`of_proposals` of every image; a key of each."""
  of = functools.partial(of_proposals, rule=rule, background=background)
  return jax.vmap(of)(keys, proposed, truth.boxes, truth.classes)


def of_masks(
  masks: Float[Array, "g y x"],
  frames: Float[Array, "g 4"],
  boxes: Float[Array, "m 4"],
  rows: Int[Array, " m"],
  out: int,
) -> Bool[Array, "m out out"]:
  """The masks of objects inside regions (arXiv:1703.06870, section 3.1).

  Args:
    masks: 1 inside the object, 0 outside.
    frames: the part of the canvas that each covers.
    boxes: of the regions.
    rows: the object of each region.
    out: bins along a side.
  """
  _, height, width = masks.shape
  frame = frames[rows]
  sides = jnp.maximum(frame[:, 2:] - frame[:, :2], boxes_lib.LEAST_SIDE)
  scale = jnp.asarray((width, height), boxes.dtype) / sides
  corners = boxes.reshape(-1, 2, 2) - frame[:, None, :2]
  own = (corners * scale[:, None]).reshape(-1, 4)
  matrices = roi_align.matrices(own, (height, width), 1.0, out)
  shares = jnp.einsum(
    "myh,mhw,mxw->myx",
    matrices[0],
    masks[rows].astype(boxes.dtype),
    matrices[1],
    precision=jax.lax.Precision.HIGHEST,
  )
  return shares >= 0.5
