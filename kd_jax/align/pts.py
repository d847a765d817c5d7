"""Power temperature scaling of teacher targets, and what it is meant to cure.

KDEP (CVPR 2022, section 3.4) compresses the components that the SVD orders by
size, so that the first few do not dominate the mean squared error.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def power_temperature(
  z: Float[Array, "*n"], temperature: float, power: float
) -> Float[Array, "*n"]:
  """sign(z) |z / temperature|^(1 / power); (1, 1) is the identity.

  The derivative at zero, infinite for power > 1, is taken as zero.

  Raises:
    ValueError: temperature or power is not positive.
  """
  if temperature <= 0 or power <= 0:
    raise ValueError(
      "temperature and power are positive; got temperature="
      f"{temperature}, power={power}. 1 and 1 switch the scaling off."
    )
  if power == 1:
    return z / temperature
  magnitude = jnp.abs(z / temperature)
  positive = magnitude > 0
  root = jnp.where(positive, magnitude, 1.0) ** (1.0 / power)
  return jnp.where(positive, jnp.sign(z) * root, 0.0)


def std_ratio(x: Float[Array, "n d"]) -> Float[Array, ""]:
  """Largest over smallest standard deviation (unbiased) of the channels."""
  std = jnp.std(x, axis=0, ddof=1)
  return jnp.max(std) / jnp.min(std)
