"""A queue of past features: the state of methods that compare with them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Float

from kd_jax.types import Array

# Images of the training data, and the rows that LightlyTrain keeps for them.
SIZES = (
  (50, 16),
  (100, 32),
  (250, 64),
  (500, 128),
  (1000, 256),
  (2000, 512),
  (4000, 1024),
  (10_000, 2048),
  (20_000, 4096),
)
LARGEST = 8192


def pushed(
  queue: Float[Array, "q d"], rows: Float[Array, "n d"]
) -> Float[Array, "q d"]:
  """The rows in front, and as many of the old ones behind as there is room.

  Rows that do not fit are left out. No gradient passes.
  """
  rows = jax.lax.stop_gradient(rows)
  return jnp.concatenate([rows, queue])[: queue.shape[0]]


def random_rows(key: Array, size: int, width: int) -> Float[Array, "q d"]:
  """Rows of unit length in random directions."""
  rows = jax.random.normal(key, (size, width), jnp.float32)
  return unit(rows)


def unit(x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
  """Rows of unit length; zeros stay zeros, with a gradient of zero."""
  square = jnp.sum(jnp.square(x), -1, keepdims=True)
  return x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))


def size_for(images: int) -> int:
  """Rows of LightlyTrain's queue for so many images."""
  return next((rows for most, rows in SIZES if images <= most), LARGEST)
