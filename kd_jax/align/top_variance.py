"""The teacher channels that vary most over the data (KDEP, section 3.3)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
from jaxtyping import Array, Float

from kd_jax.align import base


@dataclasses.dataclass(frozen=True)
class Aligner(base.TeacherSide):
  """Raw channels in descending order of their variance."""

  needs_basis: ClassVar[bool] = True

  def teacher(
    self,
    artifact: base.Artifact,
    feature: Float[Array, "*n d"],
    width: int,
  ) -> Float[Array, "*n width"]:
    """`width` channels; all of them, cyclically, when width > d."""
    base.check_artifact(artifact, feature)
    kept = min(width, feature.shape[-1])
    _, channels = jax.lax.top_k(artifact["channel_variance"], kept)
    return base.cycle(feature[..., channels], width)
