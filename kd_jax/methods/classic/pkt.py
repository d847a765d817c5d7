"""Probabilistic knowledge transfer (Passalis and Tefas, ECCV 2018).

The cosines of the images of a batch, moved to [0, 1], are a distribution over
the others for each image; the term 'neighbours' is the mean over all pairs of
t ln(t / s) (equations 5 to 9). Verified against the figures of mdistiller.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

from kd_jax.methods import one_phase
from kd_jax.types import Array, Batch, Stats, Taps, Variables

_EPS = 1e-7


@dataclasses.dataclass(frozen=True)
class Method(one_phase.OnePhase):
  """Which images are near each other, as probabilities.

  Attributes:
    terms: 'neighbours', and 'kl' and 'ce' beside it.
    tap: of both networks, a vector per image.
  """

  OWN: ClassVar[tuple[str, ...]] = ("neighbours",)

  terms: tuple[str, ...] = OWN
  tap: str = "pooled"

  def reads(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The same tap of both."""
    return (self.tap,), (self.tap,)

  def compare(
    self, variables: Variables, student: Taps, teacher: Taps, batch: Batch
  ) -> tuple[dict[str, Array], Stats]:
    """Mean over all pairs of images."""
    del variables, batch
    return {"neighbours": distance(student[self.tap], teacher[self.tap])}, {}


def distance(
  student: Float[Array, "n s"], teacher: Float[Array, "n t"]
) -> Float[Array, ""]:
  """Mean of t ln(t / s) over all n^2 pairs."""
  s, t = _neighbours(student), _neighbours(teacher)
  return jnp.mean(t * jnp.log((t + _EPS) / (s + _EPS)))


def _neighbours(x: Array) -> Array:
  square = jnp.sum(jnp.square(x), -1, keepdims=True)
  unit = x / (jnp.sqrt(jnp.maximum(square, 1e-24)) + _EPS)
  cosine = jnp.matmul(unit, unit.T, precision=jax.lax.Precision.HIGHEST)
  near = (cosine + 1) / 2
  return near / jnp.sum(near, -1, keepdims=True)
