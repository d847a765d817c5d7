"""Hosts that only decode; devices that crop and resize.

The host puts every image into the corner of a canvas of one size and draws
boxes on it; `crop_resize` does on the device what PIL does on the host, to the
last level of 255: two matmuls per image, with PIL's antialiased filters. One
canvas serves any number of crops.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from kd_jax.data.augment.crops import Pixels, resize


def to_canvas(
  image: Pixels, side: int
) -> tuple[UInt8[np.ndarray, "side side 3"], tuple[int, int]]:
  """Puts an image into the top left corner of a black square.

  Args:
    image: what to put there; where it is too large, it is shrunk to fit (by
      areas, in proportion).
    side: of the square, pixels.

  Returns:
    The canvas and the (height, width) of the image on it, from which boxes are
    to be drawn.

  Raises:
    ValueError: `side` is less than 1.
  """
  if side < 1:
    raise ValueError(f"side={side}; it must be at least 1")
  height, width = image.shape[:2]
  factor = side / max(height, width)
  if factor < 1:
    height, width = (max(1, round(x * factor)) for x in (height, width))
    image = resize(image, height, width, interpolation="area")
  canvas = np.zeros((side, side, 3), np.uint8)
  canvas[:height, :width] = image
  return canvas, (height, width)


@functools.partial(jax.jit, static_argnames=("size", "interpolation"))
def crop_resize(
  canvas: UInt8[Array, "n side side 3"],
  box: Float[Array, "n 4"],
  flip: Bool[Array, " n"],
  *,
  size: int,
  interpolation: str,
) -> Float[Array, "n size size 3"]:
  """Crops, resizes and mirrors as PIL does, on the device.

  'bilinear' gives Pillow 13's very values, 'bicubic' one level of 255 more or
  less at 1 value in 100000. (Older Pillows differ by a level where a box is
  much higher than wide.) Rows of the batch do not meet: n may be sharded.

  Args:
    canvas: images, as `to_canvas` makes them.
    box: (top, left, height, width) in canvas pixels; whole numbers, inside the
      image. Pixels outside of it play no part.
    flip: whether to mirror, which costs nothing.
    size: side of the square result, pixels.
    interpolation: 'bilinear' or 'bicubic', antialiased.

  Returns:
    Whole numbers in [0, 255].

  Raises:
    ValueError: unknown interpolation, or shapes that do not fit; when traced.
  """
  _check(canvas, box, flip, interpolation)
  weights = functools.partial(
    _weights, num_in=canvas.shape[1], size=size, interpolation=interpolation
  )
  top, left, height, width = box.T
  # Pillow 13 rounds between its passes and works along rows first, except
  # where that costs more; then rows and columns change places here.
  swap = (height > size) & (height - size > 2 * (width - size))
  image = _swapped(swap, canvas).astype(jnp.float32)
  kernel = weights(
    jnp.where(swap, top, left), jnp.where(swap, height, width), flip & ~swap
  )
  image = _product("nhwc,npxw->pnhxc", image, kernel)
  kernel = weights(
    jnp.where(swap, left, top), jnp.where(swap, width, height), flip & swap
  )
  image = _product("nhxc,npyh->pnyxc", image, kernel)
  return _swapped(swap, image)


def _swapped(swap: Bool[Array, " n"], image: Array) -> Array:
  """Rows and columns exchanged, in the images where `swap` says so."""
  return jnp.where(swap[:, None, None, None], image.swapaxes(1, 2), image)


def _weights(
  start: Float[Array, " n"],
  extent: Float[Array, " n"],
  flip: Bool[Array, " n"],
  *,
  num_in: int,
  size: int,
  interpolation: str,
) -> Float[Array, "n 2 size num_in"]:
  """How much every pixel counts in every pixel of the result.

  As in PIL, weights are whole multiples of 2^-22. They come in two parts, high
  and low, of 12 and 10 bits, with which float32 sums are exact.
  """
  start, extent = start[:, None, None], extent[:, None, None]
  out = jnp.arange(size, dtype=jnp.float32)[None, :, None]
  out = jnp.where(flip[:, None, None], size - 1 - out, out)
  pixel = jnp.arange(num_in, dtype=jnp.float32) - start
  # The distance of two centres and the width of the filter, which grows where
  # the image shrinks, times 2 * size: whole numbers, hence exact.
  distance = jnp.abs(size * (2 * pixel + 1) - (2 * out + 1) * extent)
  weight = FILTERS[interpolation](distance, 2 * jnp.maximum(extent, size))
  weight = jnp.where((pixel >= 0) & (pixel < extent), weight, 0)
  # A long division: a quotient of floats would lack the last bits.
  total = weight.sum(axis=-1, keepdims=True)
  high = jnp.floor(weight * 2**12 / total)
  rest = weight * 2**12 - high * total
  low = jnp.floor(rest * 2**10 / total + 0.5)
  return jnp.stack((high, low), axis=1)


def _triangle(distance: Array, width: Array) -> Array:
  return jnp.maximum(width - distance, 0)


def _cubic(distance: Array, width: Array) -> Array:
  """The kernel of Keys, 1981, with a = -0.5, factored to keep it precise."""
  x, to_1 = distance / width, (width - distance) / width
  near = to_1 * (1 + x - 1.5 * x * x)
  far = 0.5 * to_1 * jnp.square((2 * width - distance) / width)
  return jnp.where(x < 1, near, jnp.where(x < 2, far, 0))


FILTERS = {"bilinear": _triangle, "bicubic": _cubic}


def _product(
  subscripts: str,
  image: Float[Array, "n h w 3"],
  weights: Float[Array, "n 2 size num_in"],
) -> Float[Array, "n _ _ 3"]:
  """Weighted sums, rounded and clipped to [0, 255]."""
  high, low = jnp.einsum(
    subscripts, image, weights, precision=jax.lax.Precision.HIGHEST
  ).astype(jnp.int32)
  total = (high << 10) + low + (1 << 21)
  return jnp.clip(total >> 22, 0, 255).astype(jnp.float32)


def _check(canvas: Array, box: Array, flip: Array, interpolation: str) -> None:
  if interpolation not in FILTERS:
    raise ValueError(
      f"interpolation={interpolation!r}; on the device it must be one of "
      f"{sorted(FILTERS)}"
    )
  n, side = canvas.shape[0], canvas.shape[1]
  expected = ((n, side, side, 3), (n, 4), (n,))
  found = (canvas.shape, box.shape, flip.shape)
  if found != expected:
    raise ValueError(
      f"canvas, box and flip have shapes {found}; they must be "
      "(n, side, side, 3), (n, 4) and (n,)"
    )
