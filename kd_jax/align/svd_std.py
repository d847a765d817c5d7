"""SVD with prescribed standard deviations of the components.

Every component is divided by its singular value, which gives all of them the
same standard deviation, and then spread linearly in the singular value again,
from `ratio` for the first to 1 for the last:

  t_k = scale z_k / s_k m_k,  m_k = 1 + (ratio - 1)(s_k - s_d)/(s_1 - s_d).

From the alternatives in the code of KDEP (CVPR 2022), which used a ratio of
2.98 or 4.57 and a scale of 357, about the square root of its number of rows.
ratio=1 is the equal-variance variant.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from kd_jax.align import base, svd


@dataclasses.dataclass(frozen=True)
class Aligner(base.TeacherSide):
  """Principal components with linearly spread standard deviations.

  Attributes:
    ratio: standard deviation of the first component over the last one.
    scale: common factor; sqrt(rows of the fit) makes the smallest deviation 1.
  """

  ratio: float = 2.98
  scale: float = 357.0
  needs_basis: ClassVar[bool] = True

  def __post_init__(self) -> None:
    if self.ratio <= 0 or self.scale <= 0:
      raise ValueError(
        f"ratio and scale are positive; got {self.ratio} and {self.scale}"
      )

  def teacher(
    self,
    artifact: base.Artifact,
    feature: Float[Array, "*n d"],
    width: int,
  ) -> Float[Array, "*n width"]:
    """Scaled components, repeated cyclically when width > d."""
    basis, singular = base.take_basis(artifact, feature, width)
    z = svd.project(feature, artifact["mean"], basis)
    weight = linear_spread(singular, self.ratio) * self.scale
    return base.cycle(z * whitening(singular) * weight, width)


def linear_spread(
  singular: Float[Array, " k"], ratio: float
) -> Float[Array, " k"]:
  """Weights from `ratio` (first) to 1 (last), linear in the value."""
  spread = singular[0] - singular[-1]
  safe = jnp.where(spread > 0, spread, 1.0)
  share = jnp.where(spread > 0, (singular - singular[-1]) / safe, 1.0)
  return 1.0 + (ratio - 1.0) * share


def whitening(singular: Float[Array, " k"]) -> Float[Array, " k"]:
  """1/s; 0 for directions without variance, where z is rounding noise."""
  kept = singular > 1e-6 * singular[0]
  return jnp.where(kept, 1.0 / jnp.where(kept, singular, 1.0), 0.0)
