"""The teacher's whole basis, every direction with variance 1 (PCA whitening).

KDEP's SVD (CVPR 2022) with all directions, and evened out completely: small
directions, noise among them, weigh as much as large ones. PHI-S
(arXiv:2410.01680) compares with it.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float

from kd_jax.align.balance import turned


@dataclasses.dataclass(frozen=True)
class Aligner(turned.Turned):
  """Principal components over their standard deviations.

  Attributes:
    floor: directions with less than this share of the largest variance have
      the target 0: they are rounding noise.

  Raises:
    ValueError: a floor outside of [0, 1).
  """

  floor: float = 1e-10

  def __post_init__(self) -> None:
    if not 0 <= self.floor < 1:
      raise ValueError(f"align.floor is {self.floor}; it must be in [0, 1)")

  def matrix(
    self,
    basis: Float[np.ndarray, "d d"],
    variances: Float[np.ndarray, " d"],
  ) -> Float[np.ndarray, "d d"]:
    """U / sqrt(e)."""
    kept = variances > self.floor * variances.max()
    return basis * np.where(kept, np.where(kept, variances, 1) ** -0.5, 0)
