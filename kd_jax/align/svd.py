"""KDEP's aligner: the leading principal directions of the teacher.

z = (f - mean) V[:, :d] with V the right singular vectors of the centred
teacher features (He et al., Knowledge Distillation as Efficient Pre-training,
CVPR 2022, section 3.3). Among d-dimensional linear images of the teacher it
keeps the most variance.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from kd_jax.align import base


@dataclasses.dataclass(frozen=True)
class Aligner(base.TeacherSide):
  """Projects the teacher onto as many directions as the student is wide."""

  needs_basis: ClassVar[bool] = True

  def teacher(
    self,
    artifact: base.Artifact,
    feature: Float[Array, "*n d"],
    width: int,
  ) -> Float[Array, "*n width"]:
    """(feature - mean) V[:, :width], repeated cyclically when width > d."""
    basis, _ = base.take_basis(artifact, feature, width)
    return base.cycle(project(feature, artifact["mean"], basis), width)


def project(
  feature: Float[Array, "*n d"],
  mean: Float[Array | np.ndarray, " d"],
  basis: Float[Array | np.ndarray, "d k"],
) -> Float[Array, "*n k"]:
  """(feature - mean) basis, without reduced-precision products."""
  return jnp.matmul(feature - mean, basis, precision=jax.lax.Precision.HIGHEST)
