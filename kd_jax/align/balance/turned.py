"""What aligners share whose target is one linear map of the feature.

The map is computed once, on the host, of the mean and all directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Array, Float

from kd_jax.align import base, svd
from kd_jax.align.balance import headed


class Turned(headed.Headed):
  """(feature - mean) M; to be written: `matrix`, which makes M."""

  needs_basis: ClassVar[bool] = True
  needs_whole: ClassVar[bool] = True

  def matrix(
    self,
    basis: Float[np.ndarray, "d d"],
    variances: Float[np.ndarray, " d"],
  ) -> Float[np.ndarray, "d d"]:
    """M, of the directions and the variances along them, float64."""
    raise NotImplementedError

  def refined(
    self, artifact: base.Fitted, widths: Sequence[int]
  ) -> base.Fitted:
    """The statistics with M in the place of the directions."""
    del widths
    found = self.matrix(*spectrum(artifact))
    return {**artifact, "basis": found.astype(np.float32)}

  def teacher(
    self,
    artifact: base.Artifact,
    feature: Float[Array, "*n d"],
    width: int,
  ) -> Float[Array, "*n d"]:
    """The target, as wide as the feature."""
    del width
    base.check_artifact(artifact, feature)
    return svd.project(feature, artifact["mean"], artifact["basis"])


def spectrum(
  artifact: base.Fitted,
) -> tuple[Float[np.ndarray, "d d"], Float[np.ndarray, " d"]]:
  """Directions and the (unbiased) variances along them, float64."""
  singular = np.asarray(artifact["singular_values"], np.float64)
  rows = float(artifact["rows"])
  return np.asarray(artifact["basis"], np.float64), singular**2 / (rows - 1)
