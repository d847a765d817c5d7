"""Boxes (x0, y0, x1, y1) in pixels; a box from 0 to 1 is one pixel wide."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

Weights = tuple[float, float, float, float]

MOST_GROWTH = math.log(1000 / 16)
"""A decoded box is at most 62.5 times as wide or high as what it came from."""

LEAST_SIDE = 1e-6
"""What `encode` takes for shorter sides, so that padding gives no infinity."""


def area(boxes: Float[Array, "*k 4"]) -> Float[Array, "*k"]:
  """Square pixels; 0 for reversed boxes."""
  sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
  return sides[..., 0] * sides[..., 1]


def iou(a: Float[Array, "k 4"], b: Float[Array, "m 4"]) -> Float[Array, "k m"]:
  """Intersection over union of all pairs; 0 where a box has no area."""
  # Axis by axis: a last axis of two would keep compilers from vectors.
  sides = [
    jnp.minimum(a[:, None, axis + 2], b[None, :, axis + 2])
    - jnp.maximum(a[:, None, axis], b[None, :, axis])
    for axis in (0, 1)
  ]
  shared = jnp.maximum(sides[0], 0) * jnp.maximum(sides[1], 0)
  union = area(a)[:, None] + area(b)[None] - shared
  # A quotient of zeros would be NaN, in the gradient even if not chosen.
  some = shared > 0
  return jnp.where(some, shared / jnp.where(some, union, 1), 0)


def clip(
  boxes: Float[Array, "*k 4"], size: Num[Array, " 2"]
) -> Float[Array, "*k 4"]:
  """Boxes cut off at the borders of an image.

  Args:
    boxes: in pixels; what lies outside becomes empty.
    size: height and width of the image.
  """
  height, width = size[0], size[1]
  most = jnp.stack([width, height, width, height]).astype(boxes.dtype)
  return jnp.clip(boxes, 0, most)


def nonempty(
  boxes: Float[Array, "*k 4"], least: float = 0.0
) -> Bool[Array, "*k"]:
  """Whether both sides are longer than `least` pixels."""
  return jnp.all(boxes[..., 2:] - boxes[..., :2] > least, -1)


def encode(
  source: Float[Array, "*k 4"],
  target: Float[Array, "*k 4"],
  weights: Weights,
) -> Float[Array, "*k 4"]:
  """What has to be said about `source` to get `target`.

  Faster R-CNN, arXiv:1506.01497, equation 2: how far the centre moves, in
  sides of the source, and the logarithm of how much the sides grow.

  Args:
    source: anchors or proposals.
    target: where the objects are.
    weights: factors of the four numbers.

  Returns:
    (dx, dy, dw, dh), finite for degenerate boxes too.
  """
  centre, sides = _centre_and_sides(source)
  goal, goal_sides = _centre_and_sides(target)
  sides = jnp.maximum(sides, LEAST_SIDE)
  grown = jnp.log(jnp.maximum(goal_sides, LEAST_SIDE) / sides)
  moved = (goal - centre) / sides
  return jnp.concatenate([moved, grown], -1) * jnp.asarray(weights, moved.dtype)


def decode(
  deltas: Float[Array, "*k 4"],
  source: Float[Array, "*#k 4"],
  weights: Weights,
) -> Float[Array, "*k 4"]:
  """The inverse of `encode`, with growth limited to `MOST_GROWTH`.

  Args:
    deltas: (dx, dy, dw, dh).
    source: what they were said about.
    weights: as of `encode`.
  """
  centre, sides = _centre_and_sides(source)
  deltas = deltas / jnp.asarray(weights, deltas.dtype)
  moved, grown = deltas[..., :2], jnp.minimum(deltas[..., 2:], MOST_GROWTH)
  centre, half = centre + moved * sides, jnp.exp(grown) * sides / 2
  return jnp.concatenate([centre - half, centre + half], -1)


def _centre_and_sides(boxes: Array) -> tuple[Array, Array]:
  sides = boxes[..., 2:] - boxes[..., :2]
  return boxes[..., :2] + sides / 2, sides
