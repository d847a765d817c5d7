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

The matrices meet the whole map, however small a box is: products are what
accelerators are made for, they need no scatter in the gradient, which would add
in another order each time, and take as long for every box. For r boxes that is
about 2 r out h w c operations, and as many for the gradient: for 512 boxes of
7 x 7 bins on 200 x 336 x 256 numbers 123 G; on the three coarser levels of a
pyramid together another third.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

CLOSE = 6
"""Samples of a bin that reach one place: they are more than 1/2 apart, within
1 of it, so at most 4; one more at either end for rounding."""

BORDER = 1e-4
"""Rounding must not take a sample out that lies just at the end."""

MOST_BETWEEN = 2**24
"""Numbers between the two products, for as many boxes as are done at a time."""


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
  height, width, _ = map.shape
  rows, columns = matrices(boxes, (height, width), scale, out)
  return _product(map, rows, columns).astype(map.dtype)


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

  Returns:
    As of `pool`; a box whose `level` is no index gives 0. Every map is
    multiplied with matrices of all boxes, those of other levels being 0.
  """
  total = jnp.zeros((), jnp.promote_types(maps[0].dtype, jnp.float32))
  for i, (x, scale) in enumerate(zip(maps, scales, strict=True)):
    height, width, _ = x.shape
    rows, columns = matrices(boxes, (height, width), scale, out)
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
  start, extent = start[:, None, None], (stop - start)[:, None, None]
  side = extent / out
  count = jnp.maximum(jnp.ceil(side), 0)
  # Compiled quotients are not rounded correctly: 7 / 7 may be more than 1.
  count -= (count - 1) * out >= jnp.maximum(extent, 0)
  count += count * out < extent
  some = jnp.maximum(count, 1)
  begin = start + jnp.arange(out)[:, None] * side
  place = jnp.arange(length, dtype=side.dtype)
  # The first sample that can reach the place, minus one for rounding.
  apart = jnp.where(count > 0, side / some, 1)
  first = jnp.maximum(jnp.ceil((place - 1 - begin) / apart - 0.5) - 1, 0)
  total = jnp.zeros_like(first)
  for i in range(CLOSE):
    sample = first + i
    at = begin + (sample + 0.5) * side / some
    inside = (at >= -1 - BORDER) & (at <= length + BORDER)
    distance = jnp.abs(jnp.clip(at, 0, length - 1) - place)
    total += jnp.where(
      inside & (sample < count), jnp.maximum(1 - distance, 0), 0
    )
  return total / some


def _product(
  map: Float[Array, "h w c"],
  rows: Float[Array, "r out h"],
  columns: Float[Array, "r out w"],
) -> Float[Array, "r out out c"]:
  """The map between both matrices of each box, in float32 or wider."""
  wide = jnp.promote_types(map.dtype, jnp.float32)
  # Accelerators would round the factors to 16 bits or so. A map that has no
  # more is worth three products of rounded factors instead of six.
  full = map.dtype.itemsize > 2
  precision = jax.lax.Precision.HIGHEST if full else jax.lax.Precision.HIGH
  x = map.astype(wide)

  def one(pair: tuple[Array, Array]) -> Array:
    y = jnp.einsum("qw,hwc->qhc", pair[1], x, precision=precision)
    return jnp.einsum("ph,qhc->pqc", pair[0], y, precision=precision)

  pairs = (rows.astype(wide), columns.astype(wide))
  number, out, height = rows.shape
  between = number * out * height * map.shape[2]
  parts = 2 ** max(0, math.ceil(math.log2(max(between, 1) / MOST_BETWEEN)))
  if parts == 1:
    return jax.vmap(one)(pairs)
  return jax.lax.map(one, pairs, batch_size=-(-number // parts))
