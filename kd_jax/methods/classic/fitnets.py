"""FitNets: hints from the teacher's inner maps (Romero et al., ICLR 2015).

A 1x1 convolution with bias brings the student's map to the teacher's width;
the term 'hint' is their mean squared difference (equation 3), as in the tables
of mdistiller, where hints and labels are learnt together.

Ours: the hint is the last stage, so that the whole network learns without
labels (the paper takes a middle layer, and goes on with logits); maps of
another size are averaged down to the smaller one; several stages are summed.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from kd_jax import losses
from kd_jax.align import linear, maps
from kd_jax.methods import one_phase
from kd_jax.methods.classic import sizes
from kd_jax.types import Array, Batch, Specs, Stats, Taps, Variables


@dataclasses.dataclass(frozen=True)
class Method(one_phase.OnePhase):
  """Mean squared error of maps after a regressor.

  Attributes:
    terms: 'hint', and 'kl' and 'ce' beside it.
    stages: taps that are compared, of both networks.
  """

  OWN: ClassVar[tuple[str, ...]] = ("hint",)

  terms: tuple[str, ...] = OWN
  stages: tuple[str, ...] = ("stage4",)

  def reads(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The stages."""
    return tuple(self.stages), tuple(self.stages)

  def variables_of(
    self, key: Array, student: Specs, teacher: Specs
  ) -> Variables:
    """A regressor per stage."""
    params = {}
    for index, stage in enumerate(self.stages):
      own = jax.random.fold_in(key, index)
      one_phase.check_maps(stage, "student", student)
      one_phase.check_maps(stage, "teacher", teacher)
      widths = student[stage].shape[-1], teacher[stage].shape[-1]
      params[stage] = linear.Aligner().init(own, *widths)
    return {"params": params}

  def compare(
    self, variables: Variables, student: Taps, teacher: Taps, batch: Batch
  ) -> tuple[dict[str, Array], Stats]:
    """The sum over the stages."""
    del batch
    total = jnp.zeros(())
    for stage in self.stages:
      x, target = sizes.smaller(
        maps.as_map(student[stage]), maps.as_map(teacher[stage])
      )
      x = linear.Aligner().student(variables["params"][stage], x)
      total += losses.mse(x, target)
    return {"hint": total}, {}
