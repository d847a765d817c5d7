"""What aligners share that keep the teacher's width: a head on the student."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Array, Float

from kd_jax.align import base, linear


class Headed(base.TeacherSide):
  """A linear map from the student's to the teacher's width, with a bias."""

  def init(
    self, key: Array, student_dim: int, teacher_dim: int
  ) -> dict[str, Any]:
    """Kernel and bias of the head."""
    return linear.Aligner().init(key, student_dim, teacher_dim)

  def student(
    self, params: Mapping[str, Any], feature: Float[Array, "*n s"]
  ) -> Float[Array, "*n d"]:
    """Feature kernel + bias."""
    return linear.Aligner().student(params, feature)
