"""RoIAlign to one cell (He et al., Mask R-CNN, ICCV 2017), axis by axis.

The mean of bilinear samples on a regular grid in a box is a weighted sum over
the cells of the map, and the weights are a product of those of both axes. The
grid has as many points as the box has cells, rounded up; a box is at least one
cell long (torchvision: sampling_ratio=-1, aligned=False).
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def axis_weights(
  low: Float[Array, " n"], high: Float[Array, " n"], cells: int
) -> Float[Array, "n cells"]:
  """The weight of every cell of an axis in a box, summing to 1.

  Args:
    low: where the boxes begin, as a share of the axis, in [0, 1].
    high: where they end.
    cells: length of the axis; the centre of the first cell is at 0.
  """
  start, stop = _position(low, cells), _position(high, cells)
  length = jnp.maximum(stop - start, 1.0)
  count = jnp.ceil(length)[:, None]
  points = jnp.arange(cells, dtype=low.dtype)  # no box has more
  at = start[:, None] + (points + 0.5) * length[:, None] / count
  at = jnp.clip(at, 0.0, cells - 1.0)
  near = 1 - jnp.abs(at[:, :, None] - points)
  inside = (points < count)[:, :, None]
  return jnp.where(inside, jnp.maximum(near, 0.0), 0.0).sum(1) / count


def _position(share: Float[Array, " n"], cells: int) -> Float[Array, " n"]:
  """In cells, rounded after each operation.

  A fused multiply-subtract would round once, and move a length that is a
  whole number of cells across it: `ceil` then adds a row of samples. The
  maximum keeps the two apart, whatever compiles this.
  """
  return jnp.maximum(share * cells, 0.0) - 0.5
