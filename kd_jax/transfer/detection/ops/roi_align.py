"""RoIAlign (arXiv:1703.06870, section 3) as two matrices per box.

A bin averages bilinear samples on a grid, so it is separable: one matrix for
the rows of the map and one for its columns. The rule is the compiled
operator's of torchvision and Detectron2 with `aligned=True` and
`sampling_ratio=0`:

- A box goes from corner * scale - 1/2 on; it has out x out equal bins.
- A bin has n = ceil(its side) samples along each side, at (i + 1/2) / n of it.
- A sample beyond [-1, length of the map] is 0. Others are moved into
  [0, length - 1] and interpolated.
- A box without height or width, and a reversed one, gives 0.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

CLOSE = 6
"""Samples of a bin that reach one place: they are more than 1/2 apart, within
1 of it, so at most 4; one more at either end for rounding."""

MOST_BETWEEN = 2**24
"""Numbers between the two products that are held at a time, per image."""


def pool(
  map: Float[Array, "h w c"],
  boxes: Float[Array, "r 4"],
  scale: float,
  out: int,
) -> Float[Array, "r out out c"]:
  """What the map has in each box.

  Args:
    map: differentiable.
    boxes: (x0, y0, x1, y1) in pixels of the canvas; get no gradient.
    scale: positions of the map per pixel.
    out: bins along a side.

  Returns:
    Computed in float32 or wider, in the dtype of the map.
  """
  return _product(map, *matrices(boxes, map.shape[:2], scale, out))


def pool_levels(
  maps: Sequence[Float[Array, "_ _ c"]],
  scales: Sequence[float],
  boxes: Float[Array, "r 4"],
  level: Int[Array, " r"],
  out: int,
) -> Float[Array, "r out out c"]:
  """`pool` where each box has its own map.

  Args:
    maps: of a pyramid, all of c channels.
    scales: of each map.
    boxes: in pixels of the canvas.
    level: index into `maps` for each box.
    out: bins along a side.
  """
  total = jnp.zeros((), jnp.promote_types(maps[0].dtype, jnp.float32))
  for i, (x, scale) in enumerate(zip(maps, scales, strict=True)):
    rows, columns = matrices(boxes, x.shape[:2], scale, out)
    rows = jnp.where((level == i)[:, None, None], rows, 0)
    total += _product(x, rows, columns)
  return total.astype(maps[0].dtype)


def matrices(
  boxes: Float[Array, "r 4"], size: tuple[int, int], scale: float, out: int
) -> tuple[Float[Array, "r out h"], Float[Array, "r out w"]]:
  """(for the rows, for the columns) of a map of `size` (height, width)."""
  edges = jax.lax.stop_gradient(boxes) * scale - 0.5
  height, width = size
  return (
    _matrix(edges[:, 1], edges[:, 3], height, out),
    _matrix(edges[:, 0], edges[:, 2], width, out),
  )


def _matrix(start: Array, stop: Array, length: int, out: int) -> Array:
  """Weights of the places 0 ... length - 1 in each bin: (r, out, length)."""
  side = (stop - start) / out
  count = jnp.maximum(jnp.ceil(side), 0)[:, None, None]
  apart = side[:, None, None] / jnp.maximum(count, 1)
  begin = start[:, None] + jnp.arange(out) * side[:, None]
  begin = begin[:, :, None]
  place = jnp.arange(length, dtype=side.dtype)
  # The first sample that can reach the place, minus one for rounding.
  nearest = (place - 1 - begin) / jnp.where(count > 0, apart, 1) - 0.5
  nearest = jnp.maximum(jnp.ceil(nearest) - 1, 0)
  total = jnp.zeros_like(nearest)
  for i in range(CLOSE):
    sample = nearest + i
    where = begin + (sample + 0.5) * apart
    counts = (sample < count) & (where >= -1) & (where <= length)
    distance = jnp.abs(jnp.clip(where, 0, length - 1) - place)
    total += jnp.where(counts, jnp.maximum(1 - distance, 0), 0)
  return total / jnp.maximum(count, 1)


def _product(map: Array, rows: Array, columns: Array) -> Array:
  wide = jnp.promote_types(map.dtype, jnp.float32)
  # Accelerators would round the factors to 16 bits or so.
  product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
  y = product("rph,hwc->rpwc", rows.astype(wide), map.astype(wide))
  y = product("rqw,rpwc->rpqc", columns.astype(wide), y)
  return y.astype(map.dtype)
