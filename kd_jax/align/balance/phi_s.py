"""PHI-S (arXiv:2410.01680): equal variance in all channels by a rotation.

y = H U^T (x - mean) / sqrt(mean e) with the eigenvectors U and eigenvalues e of
the teacher's covariance and a Hadamard matrix H, whose entries are all of one
size: every channel of y takes the same share of every direction, so each has
variance 1. Unlike whitening it keeps the proportions between directions, up to
one number, and errors mean the same in all of them.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float

from kd_jax.align.balance import hadamard, turned


@dataclasses.dataclass(frozen=True)
class Aligner(turned.Turned):
  """The rotated and scaled feature.

  Attributes:
    seed: of a random rotation, for widths without a Hadamard matrix; variances
      are then only about equal.
  """

  seed: int = 0

  def matrix(
    self,
    basis: Float[np.ndarray, "d d"],
    variances: Float[np.ndarray, " d"],
  ) -> Float[np.ndarray, "d d"]:
    """U H^T / sqrt(mean e)."""
    turn = hadamard.rotation(len(variances), self.seed)
    return basis @ turn.T / np.sqrt(variances.mean())
