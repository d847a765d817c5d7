"""Attention transfer (Zagoruyko and Komodakis, ICLR 2017).

An attention map is the mean over the channels of |activation|^p, flattened and
scaled to unit length; the term 'attention' is the mean squared difference of
those of student and teacher, summed over the stages. Verified against the
figures of mdistiller (p = 2; the larger map is averaged down). The paper's
factor beta (1000) is the weight in `config.losses`.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Float

from kd_jax import losses
from kd_jax.align import maps
from kd_jax.methods import one_phase
from kd_jax.methods.classic import sizes
from kd_jax.types import Array, Batch, Specs, Stats, Taps, Variables


@dataclasses.dataclass(frozen=True)
class Method(one_phase.OnePhase):
  """Where both networks look, stage by stage.

  Attributes:
    terms: 'attention', and 'kl' and 'ce' beside it.
    stages: taps that are compared, of both networks.
    power: p.
  """

  OWN: ClassVar[tuple[str, ...]] = ("attention",)

  terms: tuple[str, ...] = OWN
  stages: tuple[str, ...] = one_phase.MAPS
  power: float = 2.0

  def __post_init__(self) -> None:
    super().__post_init__()
    self.positive("power")

  def reads(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The stages."""
    return tuple(self.stages), tuple(self.stages)

  def variables_of(
    self, key: Array, student: Specs, teacher: Specs
  ) -> Variables:
    """None; refuses taps that are no maps."""
    del key
    for stage in self.stages:
      one_phase.check_maps(stage, "student", student)
      one_phase.check_maps(stage, "teacher", teacher)
    return {}

  def compare(
    self, variables: Variables, student: Taps, teacher: Taps, batch: Batch
  ) -> tuple[dict[str, Array], Stats]:
    """The sum over the stages."""
    del variables, batch
    total = jnp.zeros(())
    for stage in self.stages:
      pair = maps.as_map(student[stage]), maps.as_map(teacher[stage])
      total += distance(*pair, power=self.power)
    return {"attention": total}, {}


def distance(
  student: Float[Array, "n h w a"],
  teacher: Float[Array, "n i j b"],
  *,
  power: float = 2.0,
) -> Float[Array, ""]:
  """Mean squared difference of two attention maps."""
  pair = sizes.smaller(student, teacher)
  return losses.mse_l2norm(*(_attention(x, power) for x in pair))


def _attention(x: Array, power: float) -> Array:
  """(n, h w): the mean over the channels of |x|^p."""
  strength = jnp.square(x) if power == 2 else jnp.abs(x) ** power
  return jnp.mean(strength, -1).reshape(x.shape[0], -1)
