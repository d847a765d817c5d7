"""Every channel of the teacher with mean 0 and variance 1.

As Theia (arXiv:2407.20179) does with fixed statistics; here they are fitted on
the images of the run. A channel without variance has the target 0.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from kd_jax.align import base
from kd_jax.align.balance import headed


@dataclasses.dataclass(frozen=True)
class Aligner(headed.Headed):
  """(feature - mean) / standard deviation, channel by channel."""

  needs_basis: ClassVar[bool] = True

  def teacher(
    self,
    artifact: base.Artifact,
    feature: Float[Array, "*n d"],
    width: int,
  ) -> Float[Array, "*n d"]:
    """The standardised feature."""
    del width
    base.check_artifact(artifact, feature)
    return (feature - artifact["mean"]) * inverse_root(
      artifact["channel_variance"]
    )


def inverse_root(variance: Float[Array, " d"]) -> Float[Array, " d"]:
  """1/sqrt; 0 for channels with hardly any variance."""
  kept = variance > 1e-12 * jnp.max(variance)
  return jnp.where(kept, 1 / jnp.sqrt(jnp.where(kept, variance, 1.0)), 0.0)
