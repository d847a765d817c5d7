"""SVD components weighted by the variances of the raw teacher channels.

t_k = scale z_k / s_k v_k with v the largest channel variances in descending
order: an alternative in the code of KDEP (CVPR 2022), which uses variances
here where standard deviations would be expected.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
from jaxtyping import Array, Float

from kd_jax.align import base, svd, svd_std


@dataclasses.dataclass(frozen=True)
class Aligner(base.TeacherSide):
  """Principal components with the channels' own variances.

  Attributes:
    scale: common factor; KDEP uses 357.
  """

  scale: float = 357.0
  needs_basis: ClassVar[bool] = True

  def __post_init__(self) -> None:
    if self.scale <= 0:
      raise ValueError(f"scale is positive; got {self.scale}")

  def teacher(
    self,
    artifact: base.Artifact,
    feature: Float[Array, "*n d"],
    width: int,
  ) -> Float[Array, "*n width"]:
    """Scaled components, repeated cyclically when width > d."""
    basis, singular = base.take_basis(artifact, feature, width)
    z = svd.project(feature, artifact["mean"], basis)
    variance, _ = jax.lax.top_k(artifact["channel_variance"], basis.shape[1])
    weight = svd_std.whitening(singular) * variance * self.scale
    return base.cycle(z * weight, width)
