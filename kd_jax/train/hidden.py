"""Images in which some patches are hidden, for the student's second run."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from kd_jax.types import Hidden


def hide(
  image: Float[Array, "n h w 3"], key: Array, how: Hidden
) -> tuple[Float[Array, "n h w 3"], Bool[Array, "n y x"]]:
  """(images, which patches are hidden).

  In a share `prob` of the images up to a share `share` of the patches, drawn
  uniformly, takes the image's mean colour.

  Raises:
    ValueError: the patches do not fill the image.
  """
  n, height, width, _ = image.shape
  if height % how.patch or width % how.patch:
    raise ValueError(
      f"method.patch is {how.patch}; it must divide the sides of the images, "
      f"{height} and {width}"
    )
  grid = height // how.patch, width // how.patch
  places, some, shares = jax.random.split(key, 3)
  share = how.share * jax.random.uniform(shares, (n, 1))
  share = share * (jax.random.uniform(some, (n, 1)) < how.prob)
  order = jax.random.uniform(places, (n, grid[0] * grid[1]))
  rank = jnp.argsort(jnp.argsort(order, -1), -1)
  mask = (rank < share * rank.shape[-1]).reshape(n, *grid)
  pixels = jnp.repeat(jnp.repeat(mask, how.patch, 1), how.patch, 2)
  mean = jnp.mean(image, (1, 2), keepdims=True)
  return jnp.where(pixels[..., None], mean, image), mask
