"""A learned linear map on the student, thrown away after training.

The parametric alternative that KDEP compares with (section 3.3): a 1x1
convolution from the student's to the teacher's width. On pooled features it
is a linear layer, on maps it acts on every position.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kd_jax.align import base


@dataclasses.dataclass(frozen=True)
class Aligner(base.TeacherSide):
  """student_dim -> teacher_dim, with a bias; the teacher stays as it is."""

  def init(
    self, key: Array, student_dim: int, teacher_dim: int
  ) -> dict[str, Any]:
    """A kernel (LeCun normal) and a zero bias."""
    initializer = jax.nn.initializers.lecun_normal()
    return {
      "kernel": initializer(key, (student_dim, teacher_dim), jnp.float32),
      "bias": jnp.zeros((teacher_dim,), jnp.float32),
    }

  def student(
    self, params: Mapping[str, Any], feature: Float[Array, "*n s"]
  ) -> Float[Array, "*n d"]:
    """Feature kernel + bias."""
    return feature @ params["kernel"] + params["bias"]

  def teacher(
    self,
    artifact: base.Artifact,
    feature: Float[Array, "*n d"],
    width: int,
  ) -> Float[Array, "*n d"]:
    """The teacher feature; it keeps its own width."""
    del artifact, width
    return feature
