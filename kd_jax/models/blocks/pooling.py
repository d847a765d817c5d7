"""Max pooling whose gradient is fast on CPU.

XLA's CPU backend finds the places of the maxima again with an index per pixel,
13 times slower than comparisons of shifted maps. GPU and TPU keep the native
operation and its gradient.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from kd_jax.models.blocks import forms


class Pool(NamedTuple):
  """Geometry of a square pooling window.

  Attributes:
    size: of the window, in pixels.
    stride: step in pixels.
    padding: pixels that never win, on each of the four sides.
  """

  size: int
  stride: int
  padding: int


def native(x: Float[Array, "n h w c"], pool: Pool) -> Float[Array, "n y x c"]:
  """`max_pool` by `lax.reduce_window`."""
  size, stride, padding = ((edge, edge) for edge in pool)
  pooled: Callable[..., Array] = nn.max_pool  # takes more paddings than it says
  return pooled(x, size, stride, (padding, padding))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(x: Float[Array, "n h w c"], pool: Pool) -> Float[Array, "n y x c"]:
  """The maximum of every window; the first of equal ones has the gradient.

  No forward-mode gradients.
  """
  return lax.platform_dependent(
    x,
    cpu=functools.partial(_shifted, pool=pool),
    default=functools.partial(native, pool=pool),
  )


def _forward(x: Array, pool: Pool) -> tuple[Array, tuple[Array, Array]]:
  y: Array = max_pool(x, pool)
  return y, (x, y)


def _backward(pool: Pool, saved: tuple[Array, Array], g: Array) -> tuple[Array]:
  dx = lax.platform_dependent(
    *saved,
    g,
    cpu=functools.partial(_shifted_vjp, pool=pool),
    default=functools.partial(_native_vjp, pool=pool),
  )
  return (dx,)


max_pool.defvjp(_forward, _backward)


def _native_vjp(x: Array, y: Array, g: Array, pool: Pool) -> Array:
  del y
  return jax.vjp(functools.partial(native, pool=pool), x)[1](g)[0]


def _shifted(x: Array, pool: Pool) -> Array:
  return functools.reduce(jnp.maximum, _taps(x, pool))


def _taps(x: Array, pool: Pool) -> list[Array]:
  """The pixel of each window at every place in it, row by row."""
  sides = (pool.padding,) * 2
  edges = ((0, 0), sides, sides, (0, 0))
  padded = jnp.pad(x, edges, constant_values=-jnp.inf)
  rows, columns = (
    [
      slice(i, i + (length - pool.size) // pool.stride * pool.stride + 1)
      for i in range(pool.size)
    ]
    for length in padded.shape[1:3]
  )
  step = pool.stride
  return [
    padded[:, r.start : r.stop : step, c.start : c.stop : step]
    for r in rows
    for c in columns
  ]


def _shifted_vjp(x: Array, y: Array, g: Array, pool: Pool) -> Array:
  """Gradients of the pixels, by their place in a square of the stride."""
  parts = _shares(x, y, g, pool)
  stride = pool.stride
  cells = tuple(-(-length // stride) for length in x.shape[1:3])
  phases = [
    _phase(parts, divmod(index, stride), cells, pool)
    for index in range(stride * stride)
  ]
  rows = [
    jnp.stack(phases[start : start + stride], 3)
    for start in range(0, stride * stride, stride)
  ]
  sides = (cells[0] * stride, cells[1] * stride)
  dx = jnp.stack(rows, 2).reshape(len(x), *sides, x.shape[3])
  return dx[:, : x.shape[1], : x.shape[2]].astype(x.dtype)


def _shares(x: Array, y: Array, g: Array, pool: Pool) -> list[Array]:
  """What each place of a window takes of the gradient."""
  *taps, _ = _taps(x, pool)
  g = forms.wide(g)
  taken, parts = jnp.zeros(y.shape, bool), []
  for tap in taps:
    equal = tap == y
    parts.append(jnp.where(equal & ~taken, g, 0))
    taken = taken | equal
  # The last place has what is left: also that of windows that hold a NaN.
  return [*parts, jnp.where(taken, 0, g)]


def _phase(
  parts: list[Array],
  phase: tuple[int, int],
  cells: tuple[int, ...],
  pool: Pool,
) -> Array:
  """The gradient of the pixels `stride * cell + phase`."""
  total = jnp.zeros((), parts[0].dtype)
  for index, part in enumerate(parts):
    shifts = []
    for place, own, count, out in zip(
      divmod(index, pool.size), phase, cells, part.shape[1:3], strict=True
    ):
      cell, rest = divmod(place - pool.padding - own, pool.stride)
      if not rest:
        shifts.append((cell, count - out - cell, 0))
    if len(shifts) == 2:
      zero = jnp.zeros((), part.dtype)
      total += lax.pad(part, zero, [(0, 0, 0), *shifts, (0, 0, 0)])
  shape = (len(parts[0]), *cells, parts[0].shape[3])
  return jnp.broadcast_to(total, shape)
