"""Normalisation by the moments of a batch, whose gradient takes two sums.

What JAX derives from the two passes over the batch adds up five times, and
keeps the batch twice: XLA does not see on a CPU that the sums are related.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Found = tuple[
  Float[Array, "n *b c"], tuple[Float[Array, " c"], Float[Array, " c"]]
]
"""The normalised batch, and (mean, biased variance) of every channel."""


def by_moments(
  x: Float[Array, "n *b c"],
  mean: Float[Array, "*#n c"],
  var: Float[Array, "*#n c"],
  scale: Float[Array, " c"],
  bias: Float[Array, " c"],
  eps: float,
) -> Float[Array, "n *b c"]:
  """Normalises by given moments, which broadcast over the batch."""
  return (x - mean) * (jax.lax.rsqrt(var + eps) * scale) + bias


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def by_batch(
  x: Float[Array, "n *b c"],
  scale: Float[Array, " c"],
  bias: Float[Array, " c"],
  eps: float,
) -> Found:
  """Moments over all axes but the last, the variance in a second pass.

  Args:
    x: the batch, float32 or wider.
    scale: of the normalised values.
    bias: added to them.
    eps: added to the variance.
  """
  return _forward(x, scale, bias, eps)[0]


Kept = tuple[Array, Array, Array, Array]


def _forward(
  x: Array, scale: Array, bias: Array, eps: float
) -> tuple[Found, Kept]:
  axes = tuple(range(x.ndim - 1))
  mean = x.mean(axes)
  centred = x - mean
  var = jnp.square(centred).mean(axes)
  inverse = jax.lax.rsqrt(var + eps)
  y = centred * (inverse * scale) + bias
  return (y, (mean, var)), (centred, inverse, scale, bias)


def _backward(
  eps: float, kept: Kept, slopes: tuple[Array, tuple[Array, Array]]
) -> tuple[Array, Array, Array]:
  """Ioffe and Szegedy 2015 (arXiv:1502.03167), section 3."""
  del eps
  centred, inverse, scale, bias = kept
  g, (to_mean, to_var) = slopes
  axes = tuple(range(g.ndim - 1))
  count = g.size // g.shape[-1]
  total, along = g.sum(axes), (g * centred).sum(axes)
  factor = inverse * scale
  shift = (to_mean - factor * total) / count
  slope = (2 * to_var - factor * jnp.square(inverse) * along) / count
  dx = g * factor + centred * slope + shift
  return dx, (inverse * along).astype(scale.dtype), total.astype(bias.dtype)


by_batch.defvjp(_forward, _backward)
