"""Maps and tokens: the same features, laid out in two ways.

Convolutional networks and Swin yield maps (n, h, w, c), plain transformers
tokens (n, t, c): the patches row by row, after prefix tokens (class, registers)
if there are any. Images are square here, so the patches are too, and whatever
comes before the largest square number of tokens is the prefix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxtyping import Array, Float


def grid_of(shape: Sequence[int]) -> tuple[int, int]:
  """(height, width) of the map that a tap of this shape holds.

  Raises:
    ValueError: it is neither a map nor tokens.
  """
  if len(shape) == 4:
    return shape[1], shape[2]
  if len(shape) != 3:
    raise ValueError(
      f"a map is (n, h, w, c) and tokens are (n, t, c); got {tuple(shape)}"
    )
  side = math.isqrt(shape[1])
  return side, side


def as_map(x: Float[Array, "n *t c"]) -> Float[Array, "n h w c"]:
  """The tap as a map, without prefix tokens."""
  if x.ndim == 4:
    return x
  side, _ = grid_of(x.shape)
  return x[:, x.shape[1] - side * side :].reshape(
    x.shape[0], side, side, x.shape[-1]
  )


def as_tokens(x: Float[Array, "n *t c"]) -> Float[Array, "n p c"]:
  """The tap as patch tokens, row by row, without prefix tokens."""
  if x.ndim == 4:
    return x.reshape(x.shape[0], -1, x.shape[-1])
  side, _ = grid_of(x.shape)
  return x[:, x.shape[1] - side * side :]
