"""All channels of the teacher divided by one number.

Proportions between channels stay; their mean variance is 1. The 'global'
standardisation that PHI-S (arXiv:2410.01680) compares with.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kd_jax.align import base
from kd_jax.align.balance import headed


@dataclasses.dataclass(frozen=True)
class Aligner(headed.Headed):
  """(feature - mean) / sqrt(mean variance of the channels)."""

  needs_basis: ClassVar[bool] = True

  def teacher(
    self,
    artifact: base.Artifact,
    feature: Float[Array, "*n d"],
    width: int,
  ) -> Float[Array, "*n d"]:
    """The scaled feature."""
    del width
    base.check_artifact(artifact, feature)
    scale = jax.lax.rsqrt(jnp.mean(artifact["channel_variance"]))
    return (feature - artifact["mean"]) * scale
