"""Nearest-neighbour interpolation along the channels.

Channel i of the target is teacher channel floor(i D / d): a baseline of KDEP
(section 3.3) that ignores what the channels mean.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Array, Float

from kd_jax.align import base


@dataclasses.dataclass(frozen=True)
class Aligner(base.TeacherSide):
  """Evenly spaced teacher channels."""

  def teacher(
    self,
    artifact: base.Artifact,
    feature: Float[Array, "*n d"],
    width: int,
  ) -> Float[Array, "*n width"]:
    """Channels floor(i D / d); all of them, cyclically, when width > D."""
    del artifact
    dim = feature.shape[-1]
    kept = min(width, dim)
    return base.cycle(feature[..., np.arange(kept) * dim // kept], width)
