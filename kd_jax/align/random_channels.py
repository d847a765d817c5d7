"""A fixed random choice of teacher channels: the weakest baseline of KDEP."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Array, Float

from kd_jax.align import base


@dataclasses.dataclass(frozen=True)
class Aligner(base.TeacherSide):
  """Distinct teacher channels in random order.

  Attributes:
    seed: decides which; the same seed always picks the same channels.
  """

  seed: int = 0

  def teacher(
    self,
    artifact: base.Artifact,
    feature: Float[Array, "*n d"],
    width: int,
  ) -> Float[Array, "*n width"]:
    """`width` channels; all of them, cyclically, when width > d."""
    del artifact
    order = np.random.default_rng(self.seed).permutation(feature.shape[-1])
    return base.cycle(feature[..., order[:width]], width)
