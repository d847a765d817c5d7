"""Rotary position embedding of a grid of patches."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float


class Rotary(nn.Module):
  """Turns pairs of channels by angles that grow along the image's axes.

  A quarter of the channels' pairs follow each frequency of the rows, then of
  the columns; tokens before those of the patches stay (arXiv:2104.09864, in two
  dimensions).

  Attributes:
    grid: patches of an image, down and across.
    reference: grid to which places are scaled; None is `grid`.
  """

  grid: tuple[int, int]
  reference: tuple[int, int] | None

  def __call__(self, x: Float[Array, "n t h d"]) -> Float[Array, "n t h d"]:
    """Turns; sums are in float32 at least."""
    angles = rotary_angles(self.grid, self.reference, x.shape[-1])
    prefix, inner = jnp.split(x, [x.shape[1] - len(angles)], axis=1)
    sin, cos = (f(angles)[:, None] for f in (np.sin, np.cos))
    even, odd = inner[..., ::2], inner[..., 1::2]
    turned = jnp.stack([even * cos - odd * sin, odd * cos + even * sin], -1)
    turned = turned.reshape(inner.shape).astype(x.dtype)
    return jnp.concatenate([prefix, turned], axis=1)


def rotary_angles(
  grid: tuple[int, int], reference: tuple[int, int] | None, width: int
) -> Float[np.ndarray, "p w"]:
  """Angles of the pairs of channels of a head, in radians, float32.

  Args:
    grid: patches of an image, down and across.
    reference: grid to which places are scaled; None is `grid`.
    width: channels of a head, a multiple of 4.

  Returns:
    (patches, width // 2): first for the rows, then for the columns.
  """
  count = width // 4
  exponents = np.arange(count, dtype=np.float32) / np.float32(count)
  bands = np.float32(1) / np.float32(10000) ** exponents
  axes = [
    np.arange(n, dtype=np.float32) / np.float32(n) * np.float32(r)
    for n, r in zip(grid, reference or grid, strict=True)
  ]
  places = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
  return (places[..., None] * bands).reshape(-1, 2 * count)
