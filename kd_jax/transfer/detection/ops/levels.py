"""Which map of a pyramid a box is pooled from."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kd_jax.transfer.detection.ops import boxes as boxes_lib


def of(
  boxes: Float[Array, "*r 4"],
  lowest: int,
  highest: int,
  *,
  size: float = 224,
  level: int = 4,
) -> Int[Array, "*r"]:
  """Level of each box, arXiv:1612.03144 equation 1; int32.

  Args:
    boxes: in pixels of the canvas.
    lowest: number of the finest map, 2 for stride 4.
    highest: number of the coarsest map.
    size: a square box with sides of so many pixels ...
    level: ... belongs to this level; of twice the side, to the next.
  """
  # Comparisons, since a logarithm is not exact at powers of two everywhere.
  steps = jnp.arange(lowest + 1, highest + 1) - level
  reached = boxes_lib.area(boxes)[..., None] >= (size * 2.0**steps) ** 2
  return lowest + jnp.sum(reached, -1, dtype=jnp.int32)
