"""Exact forms of a convolution and of its two gradients, as products.

All take and return the arrays of `depthwise.native` and equal it but for the
order of the sums, which are float32 or wider. `convolutions` chooses.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from kd_jax.models.blocks.depthwise import Window

BAND = 200
"""Pixels whose windows `weight_by_bands` lays out at a time: in the cache."""
ROW = 128
"""Values in a row of a window from which a product per row of the weights is
fast; below it windows are laid out whole."""
FOLDS = (4, 3, 2)
"""Columns that are joined, the first number that fits."""


def forward_by_windows(
  x: Float[Array, "n h w c"], w: Float[Array, "k k c o"], window: Window
) -> Float[Array, "n y x o"]:
  """All windows laid out, times the weights."""
  out = out_size(x.shape, w.shape, window)
  taps = _taps(_pad(wide(x), window), w.shape[0], out, window)
  y = jnp.concatenate(taps, -1) @ wide(w).reshape(-1, w.shape[3])
  return y.astype(x.dtype)


def weight_by_taps(
  x: Float[Array, "n h w c"],
  w: Float[Array, "k k c o"],
  g: Float[Array, "n y x o"],
  window: Window,
) -> Float[Array, "k k c o"]:
  """Gradient of the weights: a product over the whole batch per weight."""
  out = g.shape[1], g.shape[2]
  taps = _taps(_pad(wide(x), window), w.shape[0], out, window)
  flat = wide(g).reshape(-1, g.shape[3])
  columns = [tap.reshape(-1, x.shape[3]) for tap in taps]
  size, _, depth, features = w.shape
  if depth <= features:
    products = jnp.stack([column.T @ flat for column in columns])
    return products.reshape(w.shape).astype(w.dtype)
  # Products with long rows are faster.
  products = jnp.stack([flat.T @ column for column in columns])
  products = products.reshape(size, size, features, depth)
  return products.transpose(0, 1, 3, 2).astype(w.dtype)


def weight_by_bands(
  x: Float[Array, "n h w c"],
  w: Float[Array, "k k i o"],
  g: Float[Array, "n y x o"],
  window: Window,
) -> Float[Array, "k k i o"]:
  """Gradient of the weights: a few rows of windows at a time, also grouped."""
  size, _, depth, features = w.shape
  groups, (count, high, across, _) = x.shape[3] // depth, g.shape
  rows = band_rows(high, across)
  bands = high // rows
  x, g = _pad(wide(x), window), wide(g)
  reach = (rows - 1) * window.stride + window.dilation * (size - 1) + 1
  by_rows = groups == 1 and size * depth >= ROW
  products = _products_by_row if by_rows else _products_by_group

  def add(total: Array, index: Array) -> tuple[Array, None]:
    image, band = index // bands, index % bands
    start = (image, band * rows * window.stride, 0, 0)
    part = lax.dynamic_slice(x, start, (1, reach, *x.shape[2:]))
    start = (image, band * rows, 0, 0)
    own = lax.dynamic_slice(g, start, (1, rows, across, features))
    return total + products(part, own, size, depth, window), None

  zero = jnp.zeros((size, features, size * depth), g.dtype)
  total, _ = lax.scan(add, zero, jnp.arange(count * bands))
  total = total.reshape(size, features, size, depth)
  return total.transpose(0, 2, 3, 1).astype(w.dtype)


def _products_by_row(
  part: Array, own: Array, size: int, depth: int, window: Window
) -> Array:
  """A product per row of the weights: windows are laid out by columns only."""
  _, rows, across, features = own.shape
  columns = jnp.concatenate(
    [part[0][:, c] for c in _places(size, across, window)], -1
  )
  own = own.reshape(-1, features).T
  return jnp.stack(
    [
      own @ columns[r].reshape(rows * across, size * depth)
      for r in _places(size, rows, window)
    ]
  )


def _products_by_group(
  part: Array, own: Array, size: int, depth: int, window: Window
) -> Array:
  """One product per group with whole windows, too small to be split."""
  _, rows, across, features = own.shape
  groups = part.shape[3] // depth
  part = part.reshape(*part.shape[:3], groups, depth)
  taps = _taps(part, size, (rows, across), window)
  windows = jnp.concatenate(taps, -1).reshape(rows * across, groups, -1)
  own = own.reshape(rows * across, groups, -1)
  found = jnp.einsum("pgo,pgc->goc", own, windows)
  return found.reshape(features, size, -1).swapaxes(0, 1)


def band_rows(high: int, wide: int) -> int:
  """The divisor of `high` whose rows hold about `BAND` pixels."""
  divisors = (rows for rows in range(1, high + 1) if high % rows == 0)
  return min(divisors, key=lambda rows: abs(rows * wide - BAND))


def input_by_taps(
  x: Float[Array, "n h w c"],
  w: Float[Array, "k k c o"],
  g: Float[Array, "n y x o"],
  window: Window,
) -> Float[Array, "n h w c"]:
  """Gradient of the input: one product, its parts shifted and added."""
  size, _, depth, features = w.shape
  flat = wide(g).reshape(-1, features) @ wide(w).reshape(-1, features).T
  parts = flat.reshape(*g.shape[:3], size * size, depth)
  stride, dilation, padding = window
  total = jnp.zeros(x.shape, parts.dtype)
  for index in range(size * size):
    config = [(0, 0, 0)]
    for tap, length, out in zip(
      divmod(index, size), x.shape[1:3], g.shape[1:3], strict=True
    ):
      low = tap * dilation - padding
      config.append((low, length - low - ((out - 1) * stride + 1), stride - 1))
    zero = jnp.zeros((), parts.dtype)
    total += lax.pad(parts[:, :, :, index], zero, [*config, (0, 0, 0)])
  return total.astype(x.dtype)


def forward_folded(
  x: Float[Array, "n h w c"], w: Float[Array, "k k c o"], window: Window
) -> Float[Array, "n h w o"]:
  """Neighbouring columns as more channels: products with longer rows.

  Raises:
    ValueError: `fold` finds no number of columns.
  """
  count = fold(x.shape, w.shape, window)
  if count < 2:
    raise ValueError(
      f"maps {x.shape} and weights {w.shape} in {window} do not fold: needs "
      "stride 1, an odd kernel, padding that keeps the size and a width that "
      f"one of {FOLDS} divides"
    )
  size, _, depth, features = w.shape
  left = [count - window.padding + column for column in range(count)]
  w = jnp.stack(
    [
      jnp.pad(w, ((0, 0), (first, 3 * count - first - size), (0, 0), (0, 0)))
      for first in left
    ],
    3,
  )
  images, high, across, _ = x.shape
  return lax.conv_general_dilated(
    x.reshape(images, high, across // count, count * depth),
    w.reshape(size, 3, count * depth, count * features),
    (1, 1),
    ((window.padding, window.padding), (1, 1)),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  ).reshape(images, high, across, features)


def input_folded(
  x: Float[Array, "n h w c"],
  w: Float[Array, "k k c o"],
  g: Float[Array, "n h w o"],
  window: Window,
) -> Float[Array, "n h w c"]:
  """Gradient of the input of `forward_folded`."""
  return jax.vjp(lambda x: forward_folded(x, w, window), x)[1](g)[0]


def fold(x: tuple[int, ...], w: tuple[int, ...], window: Window) -> int:
  """How many columns `forward_folded` joins; 1 is none."""
  size = w[0]
  if window != Window(1, 1, size // 2) or size % 2 == 0 or w[2] != x[3]:
    return 1
  fits = (n for n in FOLDS if x[2] % n == 0 and n >= window.padding)
  return next(fits, 1)


def out_size(
  x: tuple[int, ...], w: tuple[int, ...], window: Window
) -> tuple[int, int]:
  """(rows, columns) of the result for shapes of maps and weights."""
  reach = window.dilation * (w[0] - 1) + 1
  high, across = (
    (length + 2 * window.padding - reach) // window.stride + 1
    for length in x[1:3]
  )
  return high, across


def wide(x: Array) -> Array:
  """The same in float32, or in its own type if that is wider."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _pad(x: Array, window: Window) -> Array:
  sides = (window.padding,) * 2
  return jnp.pad(x, ((0, 0), sides, sides, (0, 0)))


def _taps(
  padded: Array, size: int, out: tuple[int, int], window: Window
) -> list[Array]:
  """The pixels of the padded maps that meet each weight, row by row."""
  rows, columns = (_places(size, length, window) for length in out)
  return [padded[:, r, c] for r in rows for c in columns]


def _places(size: int, out: int, window: Window) -> list[slice]:
  """Where along one side the windows meet each weight."""
  stride, dilation, _ = window
  reach = (out - 1) * stride + 1
  return [
    slice(i * dilation, i * dilation + reach, stride) for i in range(size)
  ]
