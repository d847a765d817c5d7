"""Convolution with a fast path for depthwise kernels on CPU.

XLA's CPU backend runs depthwise convolutions, above all their gradients, ten
and more times slower than necessary. As a sum of shifted products they run at
memory speed. GPU and TPU keep the native operation.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

_SOME = 4  # images whose sums are formed together


class Window(NamedTuple):
  """Geometry of a square convolution window.

  Attributes:
    stride: step in pixels, the same in both directions.
    dilation: distance of neighbouring weights, in pixels.
    padding: zeros added on each of the four sides.
  """

  stride: int
  dilation: int
  padding: int


def native(
  x: Float[Array, "n h w c"], w: Float[Array, "k k i o"], window: Window
) -> Float[Array, "n y x o"]:
  """`convolutions.conv` by `lax.conv_general_dilated`."""
  sides = window.padding, window.padding
  return lax.conv_general_dilated(
    x,
    w,
    (window.stride,) * 2,
    (sides, sides),
    rhs_dilation=(window.dilation,) * 2,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=x.shape[3] // w.shape[2],
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise(
  x: Float[Array, "n h w c"], w: Float[Array, "k k 1 c"], window: Window
) -> Float[Array, "n y x c"]:
  """`native` with one filter per channel; the platform picks the algorithm.

  Sums are accumulated in float32 or wider. First-order gradients only.
  """
  return lax.platform_dependent(
    x,
    w,
    cpu=functools.partial(_shifted, window=window),
    default=functools.partial(native, window=window),
  )


def _forward(
  x: Array, w: Array, window: Window
) -> tuple[Array, tuple[Array, Array]]:
  return depthwise(x, w, window), (x, w)


def _backward(
  window: Window, saved: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
  return lax.platform_dependent(
    *saved,
    g,
    cpu=functools.partial(_shifted_vjp, window=window),
    default=functools.partial(_native_vjp, window=window),
  )


depthwise.defvjp(_forward, _backward)


def _native_vjp(
  x: Array, w: Array, g: Array, window: Window
) -> tuple[Array, Array]:
  return jax.vjp(functools.partial(native, window=window), x, w)[1](g)


def _wide(x: Array) -> Array:
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _pad(x: Array, window: Window) -> Array:
  sides = (window.padding,) * 2
  return jnp.pad(x, ((0, 0), sides, sides, (0, 0)))


def _shifts(
  size: int, out: tuple[int, int], stride: int, dilation: int
) -> Iterator[tuple[int, int, tuple[slice, slice]]]:
  """(row, column, pixels of the padded map that meet this weight)."""
  for i in range(size):
    for j in range(size):
      y, x = i * dilation, j * dilation
      rows = slice(y, y + (out[0] - 1) * stride + 1, stride)
      columns = slice(x, x + (out[1] - 1) * stride + 1, stride)
      yield i, j, (rows, columns)


def _shifted(x: Array, w: Array, window: Window) -> Array:
  stride, dilation, _ = window
  wide, size = _wide(w), w.shape[0]
  reach = dilation * (size - 1) + 1

  def some(x: Array) -> Array:
    padded = _pad(_wide(x), window)
    high, across = ((padded.shape[a] - reach) // stride + 1 for a in (1, 2))
    products = (
      padded[(slice(None), *pixels)] * wide[i, j, 0]
      for i, j, pixels in _shifts(size, (high, across), stride, dilation)
    )
    return functools.reduce(jnp.add, products).astype(x.dtype)

  return _by_some(some, x)


def _by_some(
  some: Callable[[Float[Array, "m ..."]], Float[Array, "m ..."]],
  x: Float[Array, "n ..."],
) -> Float[Array, "n ..."]:
  """A function of single images, of a few at a time.

  Besides fitting the cache, a loop has a result that is stored: what follows, a
  normalisation say, would compute the sums anew for each of its own.
  """
  count = math.gcd(len(x), _SOME)
  found = lax.map(some, x.reshape(-1, count, *x.shape[1:]))
  return found.reshape(len(x), *found.shape[2:])


def _shifted_vjp(
  x: Array, w: Array, g: Array, window: Window
) -> tuple[Array, Array]:
  wide = _wide(g)
  dx = _input_grad(wide, _wide(w), (x.shape[1], x.shape[2]), window)
  dw = _weight_grad(_pad(_wide(x), window), wide, w.shape[0], window)
  return dx.astype(x.dtype), dw.astype(w.dtype)


def _input_grad(
  g: Array, w: Array, size: tuple[int, int], window: Window
) -> Array:
  stride, dilation, padding = window
  reach = dilation * (w.shape[0] - 1)
  config = [(0, 0, 0)]
  for length, out in zip(size, g.shape[1:3], strict=True):
    high = length + padding - ((out - 1) * stride + 1)
    config.append((reach - padding, high, stride - 1))
  config.append((0, 0, 0))
  flipped = w[::-1, ::-1, 0]

  def some(g: Array) -> Array:
    spread = lax.pad(g, jnp.zeros((), g.dtype), config)
    products = (
      spread[(slice(None), *pixels)] * flipped[i, j]
      for i, j, pixels in _shifts(w.shape[0], size, 1, dilation)
    )
    return functools.reduce(jnp.add, products)

  return _by_some(some, g)


def _weight_grad(padded: Array, g: Array, size: int, window: Window) -> Array:
  out = g.shape[1], g.shape[2]
  shifts = list(_shifts(size, out, window.stride, window.dilation))

  def add(
    sums: tuple[Array, ...], pair: tuple[Array, Array]
  ) -> tuple[tuple[Array, ...], None]:
    xi, gi = pair
    return tuple(
      s + xi[pixels] * gi
      for s, (_, _, pixels) in zip(sums, shifts, strict=True)
    ), None

  # One example at a time keeps the nine running sums in the cache.
  zeros = tuple(jnp.zeros(g.shape[1:], g.dtype) for _ in shifts)
  sums, _ = lax.scan(add, zeros, (padded, g))
  return jnp.stack([s.sum((0, 1)) for s in sums]).reshape(size, size, 1, -1)
