"""Neuron selectivity transfer (Huang and Wang, arXiv:1707.01219, 2017).

Every channel, flattened over the positions and scaled to unit length, is a
sample; the term 'selectivity' is the squared maximum mean discrepancy of the
samples of both networks under the kernel (x^T y)^2, mean over the images
(equations 4 and 6). Verified against the figures of mdistiller. Ours: the
larger map is averaged down; several stages are summed.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

from kd_jax.align import maps
from kd_jax.methods import one_phase
from kd_jax.methods.classic import sizes
from kd_jax.types import Array, Batch, Specs, Stats, Taps, Variables


@dataclasses.dataclass(frozen=True)
class Method(one_phase.OnePhase):
  """Where channels respond, whatever their number.

  Attributes:
    terms: 'selectivity', and 'kl' and 'ce' beside it.
    stages: taps that are compared, of both networks.
  """

  OWN: ClassVar[tuple[str, ...]] = ("selectivity",)

  terms: tuple[str, ...] = OWN
  stages: tuple[str, ...] = ("stage4",)

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
      total += distance(*sizes.smaller(*pair))
    return {"selectivity": total}, {}


def distance(
  student: Float[Array, "n h w a"], teacher: Float[Array, "n h w b"]
) -> Float[Array, ""]:
  """Squared discrepancy of the channels, mean over the images."""
  s, t = _unit(student), _unit(teacher)
  return _kernel(t, t) + _kernel(s, s) - 2 * _kernel(s, t)


def _unit(x: Array) -> Array:
  """(n, p, c), every channel of unit length."""
  flat = x.reshape(x.shape[0], -1, x.shape[-1])
  square = jnp.sum(jnp.square(flat), 1, keepdims=True)
  return flat / jnp.sqrt(jnp.maximum(square, 1e-24))


def _kernel(x: Array, y: Array) -> Array:
  """Mean of (x_i^T y_j)^2 over images and channels."""
  highest = jax.lax.Precision.HIGHEST
  inner = jnp.einsum("npa,npb->nab", x, y, precision=highest)
  return jnp.mean(jnp.square(inner))
