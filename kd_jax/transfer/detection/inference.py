"""From what the second stage says of proposals to detections."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kd_jax.transfer.detection import heads, proposals
from kd_jax.transfer.detection.ops import boxes as boxes_lib
from kd_jax.transfer.detection.ops import suppression

WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""Of the deltas of regions, see `ops.boxes.encode`."""


class Detected(NamedTuple):
  """Of one image, or of several; the best come first.

  Attributes:
    boxes: (*n, d, 4), 0 where there is none.
    scores: (*n, d), 0 where there is none.
    classes: (*n, d) int32, -1 where there is none.
  """

  boxes: Float[Array, "*n d 4"]
  scores: Float[Array, "*n d"]
  classes: Int[Array, "*n d"]


def detect(
  logits: Float[Array, "r classes1"],
  deltas: Float[Array, "r classes 4"],
  proposed: proposals.Proposals,
  size: Int[Array, " 2"],
  *,
  least: float,
  threshold: float,
  count: int,
) -> Detected:
  """The detections of one image.

  Args:
    logits: background is last.
    deltas: of every class.
    proposed: what they were said about.
    size: height and width of the image, at which boxes are cut off.
    least: scores have to be above it.
    threshold: largest IoU of two boxes of a class that stay.
    count: so many detections stay.
  """
  scores = jax.nn.softmax(logits)[:, :-1].T
  sources = proposed.boxes[:, None]
  boxes = boxes_lib.decode(deltas, sources, WEIGHTS).swapaxes(0, 1)
  boxes = boxes_lib.clip(boxes, size)
  good = proposed.valid & (scores > least) & boxes_lib.nonempty(boxes)
  good &= jnp.isfinite(boxes).all(-1)
  scores, order = jax.lax.top_k(
    jnp.where(good, scores, -jnp.inf), scores.shape[1]
  )
  boxes = jnp.take_along_axis(boxes, order[..., None], 1)
  # Class by class: they do not suppress each other.
  keep = jax.vmap(suppression.keep, (0, 0, None))
  kept = keep(boxes, scores > -jnp.inf, threshold)
  return _best(jnp.where(kept, scores, -jnp.inf), boxes, count)


def _best(
  scores: Float[Array, "classes r"],
  boxes: Float[Array, "classes r 4"],
  count: int,
) -> Detected:
  """The highest scores of all classes."""
  per_class = scores.shape[1]
  best, place = jax.lax.top_k(scores.reshape(-1), min(count, scores.size))
  some = best > -jnp.inf
  pad = (0, count - len(best))
  found = jnp.where(some[:, None], boxes.reshape(-1, 4)[place], 0)
  classes = jnp.where(some, place // per_class, -1).astype(jnp.int32)
  return Detected(
    jnp.pad(found, (pad, (0, 0))),
    jnp.pad(jnp.where(some, best, 0), pad),
    jnp.pad(classes, pad, constant_values=-1),
  )


def detect_all(
  said: heads.Said,
  proposed: proposals.Proposals,
  size: Int[Array, "n 2"],
  **rules: float,
) -> Detected:
  """`detect` in every image.

  Args:
    said: of the proposals of all images, one after the other.
    proposed: of every image.
    size: of every image.
    **rules: of `detect`.
  """
  shape = proposed.scores.shape
  logits = said.logits.reshape(*shape, -1)
  deltas = said.deltas.reshape(*shape, -1, 4)
  of = functools.partial(detect, **rules)
  return jax.vmap(of)(logits, deltas, proposed, size)


def own(
  masks: Float[Array, "n d s s classes"], classes: Int[Array, "n d"]
) -> Float[Array, "n d s s"]:
  """The masks of one class each; where it is -1 those of class 0."""
  index = jnp.maximum(classes, 0)[..., None, None, None]
  return jnp.take_along_axis(masks, index, -1)[..., 0]
