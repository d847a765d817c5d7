"""Resizes and pools maps with small matrices, with PyTorch's conventions.

A separable operation on a map is one matrix for its rows and one for its
columns. Shapes are static, so the matrices are constants of the program.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Size = tuple[int, int]


def size_of(x: Float[Array, "n h w c"]) -> Size:
  """Height and width of maps, or of images."""
  _, height, width, _ = x.shape
  return height, width


@functools.cache
def resize_matrix(old: int, new: int, align_corners: bool) -> np.ndarray:
  """Linear interpolation of `old` numbers at `new` places: (new, old).

  Args:
    old: length of the input.
    new: length of the output.
    align_corners: the first and the last numbers stay where they are;
      otherwise the outer edges of the first and the last pixel do. Both as in
      `torch.nn.functional.interpolate`.
  """
  places = np.arange(new, dtype=np.float64)
  if align_corners:
    places *= (old - 1) / max(new - 1, 1)
  else:
    places = np.clip((places + 0.5) * old / new - 0.5, 0, None)
  low = np.minimum(places.astype(np.int64), old - 1)
  matrix = np.zeros((new, old))
  np.add.at(matrix, (np.arange(new), low), 1 - (places - low))
  high = np.minimum(low + 1, old - 1)
  np.add.at(matrix, (np.arange(new), high), places - low)
  return matrix


@functools.cache
def pool_matrix(old: int, bins: int) -> np.ndarray:
  """Averages over `bins` ranges that cover `old` numbers: (bins, old).

  As `torch.nn.AdaptiveAvgPool2d`: range i begins at floor(i old / bins) and
  ends before ceil((i + 1) old / bins).
  """
  matrix = np.zeros((bins, old))
  for i in range(bins):
    start, stop = i * old // bins, -(-(i + 1) * old // bins)
    matrix[i, start:stop] = 1 / (stop - start)
  return matrix


def resize(
  x: Float[Array, "n h w c"], size: Size, *, align_corners: bool
) -> Float[Array, "n y x c"]:
  """Bilinear interpolation to `size` (height, width), see `resize_matrix`.

  Computed in float32 or wider; the result has the dtype of x.
  """
  if size_of(x) == size:
    return x
  rows, columns = (
    resize_matrix(old, new, align_corners)
    for old, new in zip(size_of(x), size, strict=True)
  )
  return _separable(x, rows, columns)


def pool(x: Float[Array, "n h w c"], bins: int) -> Float[Array, "n b b c"]:
  """Averages over a grid of `bins` x `bins`, see `pool_matrix`."""
  rows, columns = (pool_matrix(length, bins) for length in size_of(x))
  return _separable(x, rows, columns)


def nearest(x: Float[Array, "n h w c"], size: Size) -> Float[Array, "n y x c"]:
  """The pixel at floor(i old / new) of each axis, as PyTorch's 'nearest'."""
  for axis, new in zip((1, 2), size, strict=True):
    # Slices, which all formats have; they are few.
    places = (i * x.shape[axis] // new for i in range(new))
    rows = [jax.lax.slice_in_dim(x, i, i + 1, axis=axis) for i in places]
    x = jnp.concatenate(rows, axis)
  return x


def _separable(x: Array, rows: np.ndarray, columns: np.ndarray) -> Array:
  wide = jnp.promote_types(x.dtype, jnp.float32)
  # Accelerators would round the factors to 16 bits or so.
  product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
  y = product("yh,nhwc->nywc", jnp.asarray(rows, wide), x.astype(wide))
  y = product("xw,nywc->nyxc", jnp.asarray(columns, wide), y)
  return y.astype(x.dtype)
