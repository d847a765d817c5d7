"""From what the first stage says of anchors to a few boxes per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from kd_jax.transfer.detection.ops import boxes as boxes_lib
from kd_jax.transfer.detection.ops import suppression

WEIGHTS = (1.0, 1.0, 1.0, 1.0)
"""Of the deltas of anchors, see `ops.boxes.encode`."""


class Proposals(NamedTuple):
  """Of one image, or of several; the best come first.

  Attributes:
    boxes: (*n, r, 4).
    scores: (*n, r), objectness; -inf where there is none.
    valid: (*n, r), whether there is one.
  """

  boxes: Float[Array, "*n r 4"]
  scores: Float[Array, "*n r"]
  valid: Bool[Array, "*n r"]


def propose(
  objectness: Sequence[Float[Array, " _"]],
  deltas: Sequence[Float[Array, "_ 4"]],
  anchors: Sequence[Float[np.ndarray, "_ 4"]],
  size: Int[Array, " 2"],
  *,
  before: int,
  after: int,
  threshold: float,
) -> Proposals:
  """The best boxes of one image (arXiv:1506.01497, section 3.3).

  Args:
    objectness: of the anchors of each level.
    deltas: of the same; no gradient passes.
    anchors: of the same.
    size: height and width of the image, at which boxes are cut off.
    before: so many per level are compared.
    after: so many stay.
    threshold: largest IoU of two boxes of a level that stay.
  """
  most = min(before, max(len(x) for x in anchors))
  found = [
    _best(jax.lax.stop_gradient((score, delta)), np.asarray(anchor), size, most)
    for score, delta, anchor in zip(objectness, deltas, anchors, strict=True)
  ]
  boxes, scores = (jnp.stack(x) for x in zip(*found, strict=True))
  # Level by level: they do not suppress each other, and the cost is quadratic.
  keep = jax.vmap(suppression.keep, (0, 0, None))
  kept = keep(boxes, scores > -jnp.inf, threshold)
  scores = jnp.where(kept, scores, -jnp.inf).reshape(-1)
  scores, row = jax.lax.top_k(scores, min(after, len(scores)))
  pad = (0, after - len(row))
  scores = jnp.pad(scores, pad, constant_values=-jnp.inf)
  valid = scores > -jnp.inf
  boxes = jnp.pad(boxes.reshape(-1, 4)[row], (pad, (0, 0)))
  return Proposals(jnp.where(valid[:, None], boxes, 0), scores, valid)


def _best(
  said: tuple[Array, Array],
  anchors: Float[np.ndarray, "k 4"],
  size: Int[Array, " 2"],
  most: int,
) -> tuple[Float[Array, "most 4"], Float[Array, " most"]]:
  """Boxes and scores by falling score; -inf for what is no box."""
  scores, row = jax.lax.top_k(said[0], min(most, len(anchors)))
  decoded = boxes_lib.decode(said[1][row], jnp.asarray(anchors)[row], WEIGHTS)
  boxes = boxes_lib.clip(decoded, size)
  good = boxes_lib.nonempty(boxes) & jnp.isfinite(boxes).all(-1)
  scores = jnp.where(good & jnp.isfinite(scores), scores, -jnp.inf)
  boxes = jnp.where(good[:, None], boxes, 0)
  pad = (0, most - len(row))
  scores = jnp.pad(scores, pad, constant_values=-jnp.inf)
  return jnp.pad(boxes, (pad, (0, 0))), scores
