"""DIST: distillation from a stronger teacher (Huang et al., NeurIPS 2022).

Probabilities are matched by correlation, not exactly: the term 'images' is
T^2 (1 - Pearson's correlation of the two rows of an image), mean over the
images (equation 6), 'classes' the same of the columns, mean over the classes
(equation 8). From the paper; checked against NumPy.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

from kd_jax.methods import one_phase
from kd_jax.types import Array, Batch, Specs, Stats, Taps, Variables

_EPS = 1e-8


@dataclasses.dataclass(frozen=True)
class Method(one_phase.OnePhase):
  """Correlations of probabilities.

  Attributes:
    terms: 'images' and 'classes', and 'kl' and 'ce' beside them.
    temperature: T.
  """

  OWN: ClassVar[tuple[str, ...]] = ("images", "classes")

  terms: tuple[str, ...] = OWN
  temperature: float = 1.0

  def __post_init__(self) -> None:
    super().__post_init__()
    self.positive("temperature")

  def reads(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Logits of both."""
    return ("logits",), ("logits",)

  def variables_of(
    self, key: Array, student: Specs, teacher: Specs
  ) -> Variables:
    """None; refuses another number of classes."""
    del key
    one_phase.check_classes("dist", student, teacher)
    return {}

  def compare(
    self, variables: Variables, student: Taps, teacher: Taps, batch: Batch
  ) -> tuple[dict[str, Array], Stats]:
    """Means over images and classes."""
    del variables, batch
    s, t = (
      jax.nn.softmax(side["logits"] / self.temperature)
      for side in (student, teacher)
    )
    square = self.temperature**2
    return {
      "images": square * uncorrelated(s, t),
      "classes": square * uncorrelated(s.T, t.T),
    }, {}


def uncorrelated(
  student: Float[Array, "n c"], teacher: Float[Array, "n c"]
) -> Float[Array, ""]:
  """1 - Pearson's correlation of two rows, mean over the rows."""
  s, t = (x - jnp.mean(x, -1, keepdims=True) for x in (student, teacher))
  lengths = jnp.sum(s * s, -1) * jnp.sum(t * t, -1)
  correlation = jnp.sum(s * t, -1) / jnp.sqrt(lengths + _EPS**2)
  return 1 - jnp.mean(correlation)
