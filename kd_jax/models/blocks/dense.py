"""Flax's `Dense`, as one product of two matrices on CPU."""

from __future__ import annotations

import functools
from typing import Any

from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float


def product(
  x: Float[Array, "*n i"],
  w: Float[Array, "i o"],
  dims: lax.DotDimensionNumbers,
  precision: Any = None,
  preferred_element_type: Any = None,
) -> Float[Array, "*n o"]:
  """`lax.dot_general` over the last axis of `x` and the first of `w`.

  The weights' gradient sums over all other axes. XLA's CPU backend does that at
  full speed if there is one of them, and at a quarter of it if there are more.
  Merging them is free there, and may copy on others, which keep them.
  """
  native = functools.partial(
    lax.dot_general,
    dimension_numbers=dims,
    precision=precision,
    preferred_element_type=preferred_element_type,
  )
  if x.ndim < 3:
    return native(x, w)
  rows = functools.partial(native, dimension_numbers=(((1,), (0,)), ((), ())))

  def merged(x: Array, w: Array) -> Array:
    y = rows(x.reshape(-1, x.shape[-1]), w)
    return y.reshape(*x.shape[:-1], -1)

  return lax.platform_dependent(x, w, cpu=merged, default=native)


class Dense(nn.Dense):
  """A linear layer of the last axis, see `product`."""

  dot_general: Any = product
