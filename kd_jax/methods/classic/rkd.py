"""Relational knowledge distillation (Park et al., CVPR 2019).

The terms 'distance' and 'angle' compare the distances of all pairs of images,
divided by their mean, and the cosines of the angles of all triplets, by smooth
L1 (equations 4 to 8); the paper weighs them 25 and 50 (1 to 2). `losses.rkd`,
which both terms are, is verified against KDEP's released code.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from kd_jax import losses
from kd_jax.methods import one_phase
from kd_jax.types import Array, Batch, Stats, Taps, Variables


@dataclasses.dataclass(frozen=True)
class Method(one_phase.OnePhase):
  """How the images of a batch lie to each other.

  Attributes:
    terms: 'distance' and 'angle', and 'kl' and 'ce' beside them.
    tap: of both networks, a vector per image.
  """

  OWN: ClassVar[tuple[str, ...]] = ("distance", "angle")

  terms: tuple[str, ...] = OWN
  tap: str = "pooled"

  def reads(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The same tap of both."""
    return (self.tap,), (self.tap,)

  def compare(
    self, variables: Variables, student: Taps, teacher: Taps, batch: Batch
  ) -> tuple[dict[str, Array], Stats]:
    """Means over pairs and triplets."""
    del variables, batch
    pair = student[self.tap], teacher[self.tap]
    weights = {"distance": (1.0, 0.0), "angle": (0.0, 1.0)}
    found = {}
    for term in self.own:
      distance, angle = weights[term]
      found[term] = losses.rkd(
        *pair, distance_weight=distance, angle_weight=angle
      )
    return found, {}
