"""Similarity-preserving distillation (Tung and Mori, ICCV 2019).

The term 'similarity' is the mean squared difference of the two matrices of
inner products of the images of a batch, whose rows have unit length (equations
2 to 4). Verified against the figures of mdistiller.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

from kd_jax import losses
from kd_jax.methods import one_phase
from kd_jax.types import Array, Batch, Stats, Taps, Variables


@dataclasses.dataclass(frozen=True)
class Method(one_phase.OnePhase):
  """Which images are alike.

  Attributes:
    terms: 'similarity', and 'kl' and 'ce' beside it.
    tap: of both networks, a map, tokens or a vector per image.
  """

  OWN: ClassVar[tuple[str, ...]] = ("similarity",)

  terms: tuple[str, ...] = OWN
  tap: str = "stage4"

  def reads(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The same tap of both."""
    return (self.tap,), (self.tap,)

  def compare(
    self, variables: Variables, student: Taps, teacher: Taps, batch: Batch
  ) -> tuple[dict[str, Array], Stats]:
    """Mean over all pairs of images."""
    del variables, batch
    return {"similarity": distance(student[self.tap], teacher[self.tap])}, {}


def distance(
  student: Float[Array, "n ..."], teacher: Float[Array, "n ..."]
) -> Float[Array, ""]:
  """Mean squared difference of the similarities, over all n^2 pairs."""
  return losses.mse_l2norm(_inner(student), _inner(teacher))


def _inner(x: Array) -> Array:
  rows = x.reshape(x.shape[0], -1)
  return jnp.matmul(rows, rows.T, precision=jax.lax.Precision.HIGHEST)
