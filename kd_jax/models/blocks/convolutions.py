"""Convolutions that take the fastest exact form for their shape on CPU.

XLA's CPU backend runs most convolutions and gradients as fast as products of
matrices, but not all of them: a kernel that is wider than the map runs at 1 to
10 GFLOP/s where a product runs at 200, the weight gradient of 1x1 kernels at 5
to 60, of grouped ones at 0.1. `chosen` holds the exceptions; `python -m
benchmarks.convolutions` measures them. GPU and TPU keep the native operation.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import lax
from jaxtyping import Array, Float

from kd_jax.models.blocks import forms
from kd_jax.models.blocks.depthwise import Window, depthwise, native

LARGE, SMALL = 144, 64
"""Pixels of a result from which windows are laid out in bands; up to which the
input's gradient is one product."""
WORTH, LEAST = 50_000_000, 1_000_000
"""Products of a convolution from which its forms are worth a third of a second
of compiling (a tenth of it for 'folded', and for weights of 1x1 kernels); and
where XLA's own is far slower."""
NARROW = 8
"""Channels up to which columns are joined: products with such short rows run at
a third of the speed."""


class Forms(NamedTuple):
  """How a convolution is computed on CPU; '' is native.

  Attributes:
    forward: '', 'windows' or 'folded'.
    weight: its weight gradient: '', 'taps' or 'bands'.
    input: its input gradient: '', 'taps' or 'folded'.
  """

  forward: str = ""
  weight: str = ""
  input: str = ""


FORWARD: dict[str, Callable[..., Array]] = {
  "": native,
  "windows": forms.forward_by_windows,
  "folded": forms.forward_folded,
}
WEIGHT: dict[str, Callable[..., Array]] = {
  "taps": forms.weight_by_taps,
  "bands": forms.weight_by_bands,
}
INPUT: dict[str, Callable[..., Array]] = {
  "taps": forms.input_by_taps,
  "folded": forms.input_folded,
}


def conv(
  x: Float[Array, "n h w c"], w: Float[Array, "k k i o"], window: Window
) -> Float[Array, "n y x o"]:
  """2-D convolution; `c // i` groups, as the shapes say.

  Args:
    x: maps.
    w: weights, HWIO, of the dtype of `x`.
    window: stride, dilation and symmetric zero padding.

  Returns:
    Maps of `(h + 2 padding - dilation (k - 1) - 1) // stride + 1` rows.
  """
  if w.shape[2] == 1 and w.shape[3] == x.shape[3] > 1:
    return depthwise(x, *within(x.shape, w, window))
  found = chosen(x.shape, w.shape, window)
  return dense(x, w, window, found) if any(found) else native(x, w, window)


def within(
  x: tuple[int, ...], w: Float[Array, "k k i o"], window: Window
) -> tuple[Float[Array, "m m i o"], Window]:
  """The part of a kernel that meets a map of shape `x`, and its geometry."""
  half, spare = (w.shape[0] - 1) // 2, (max(x[1:3]) - 1) // window.dilation
  cut = half - spare
  centred = w.shape[0] % 2 and window.padding == window.dilation * half
  if cut <= 0 or not centred:
    return w, window
  padding = window.padding - cut * window.dilation
  return w[cut:-cut, cut:-cut], window._replace(padding=padding)


def chosen(x: tuple[int, ...], w: tuple[int, ...], window: Window) -> Forms:
  """The forms for shapes of maps and weights.

  Args:
    x: (n, h, w, c).
    w: (k, k, i, o).
    window: see `conv`.
  """
  size, depth = w[0], w[2]
  high, across = forms.out_size(x, w, window)
  pixels = high * across
  grouped, tiny = depth != x[3], min(x[1:3]) < size
  work = x[0] * pixels * math.prod(w)
  narrow = min(depth, w[3]) <= NARROW and 1 < size <= min(x[1:3])
  if narrow and forms.fold(x, w, window) > 1 and work >= WORTH // 10:
    to, back = w[3] <= NARROW, depth <= NARROW
    return Forms("folded" if to else "", "", "folded" if back else "")
  plain = size == 1 and not window.padding and not grouped
  if plain and WORTH // 10 <= work < WORTH:
    return Forms(weight="taps")
  if work < (LEAST if grouped or tiny else WORTH):
    return Forms()
  if grouped:
    return Forms(weight="bands")
  if plain:
    return Forms("windows", "taps", "taps")
  weight, strided = "", window.stride > 1
  if pixels >= LARGE and size > window.stride:
    weight = "bands"
  elif strided and not tiny and (pixels < LARGE or depth >= 16):
    weight = "taps"
  few = tiny or pixels <= SMALL
  return Forms("windows" if tiny else "", weight, "taps" if few else "")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def dense(
  x: Float[Array, "n h w c"],
  w: Float[Array, "k k i o"],
  window: Window,
  found: Forms,
) -> Float[Array, "n y x o"]:
  """`conv` by these forms on CPU, else native; no forward-mode gradients."""
  if not found.forward:
    return native(x, w, window)
  return lax.platform_dependent(
    x,
    w,
    cpu=functools.partial(FORWARD[found.forward], window=window),
    default=functools.partial(native, window=window),
  )


def _forward(
  x: Array, w: Array, window: Window, found: Forms
) -> tuple[Array, tuple[Array, Array]]:
  return dense(x, w, window, found), (x, w)


def _backward(
  window: Window, found: Forms, saved: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
  return lax.platform_dependent(
    *saved,
    g,
    cpu=functools.partial(by_forms, window=window, found=found),
    default=functools.partial(by_forms, window=window, found=Forms()),
  )


dense.defvjp(_forward, _backward)


def by_forms(
  x: Array, w: Array, g: Array, window: Window, found: Forms
) -> tuple[Array, Array]:
  """(gradient of `x`, gradient of `w`) for the gradient of the result."""
  return _of_input(x, w, g, window, found), _of_weight(x, w, g, window, found)


def _of_input(
  x: Array, w: Array, g: Array, window: Window, found: Forms
) -> Array:
  if found.input:
    return INPUT[found.input](x, w, g, window)
  return jax.vjp(lambda x: native(x, w, window), x)[1](g)[0]


def _of_weight(
  x: Array, w: Array, g: Array, window: Window, found: Forms
) -> Array:
  if found.weight:
    return WEIGHT[found.weight](x, w, g, window)
  return jax.vjp(lambda w: native(x, w, window), w)[1](g)[0]
