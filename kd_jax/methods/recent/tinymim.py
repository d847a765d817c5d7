"""TinyMIM's relations between tokens (Ren et al., CVPR 2023).

What is learnt is not what a token is but how it relates to the others: with
the channels shared out to heads, R = softmax(x x^T / sqrt(d)) over the tokens
of an image, and the term 'relations' is KL(teacher's R || student's R), mean
over tokens, heads and images. The widths may differ, the number of heads is
one. Checked against NumPy.

Ours: the paper takes queries, keys and values of a block's attention, which
are no taps here; the relations are those of its output (which the paper
compares with), and the student's map is resized to the teacher's grid. The
teacher's tap is a field, since a block before the last teaches best there.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

from kd_jax.align import maps
from kd_jax.methods import one_phase
from kd_jax.methods.recent import lightly_dense
from kd_jax.types import Array, Batch, Specs, Stats, Taps, Variables


@dataclasses.dataclass(frozen=True)
class Method(one_phase.OnePhase):
  """Relations of the tokens of each image.

  Attributes:
    terms: 'relations', and 'kl' and 'ce' beside it.
    student: tap, a map or tokens.
    teacher: tap, a map or tokens.
    heads: groups of channels; divides both widths.
  """

  OWN: ClassVar[tuple[str, ...]] = ("relations",)

  terms: tuple[str, ...] = OWN
  student: str = "stage4"
  teacher: str = "stage4"
  heads: int = 1

  def __post_init__(self) -> None:
    super().__post_init__()
    self.positive("heads")

  def reads(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A map of each."""
    return (self.student,), (self.teacher,)

  def variables_of(
    self, key: Array, student: Specs, teacher: Specs
  ) -> Variables:
    """None; refuses taps that are no maps, and heads that do not divide."""
    del key
    one_phase.check_maps(self.student, "student", student)
    one_phase.check_maps(self.teacher, "teacher", teacher)
    widths = [student[self.student].shape[-1], teacher[self.teacher].shape[-1]]
    if any(width % self.heads for width in widths):
      raise ValueError(
        f"method.heads is {self.heads}; it must divide the widths of student "
        f"and teacher, {widths}"
      )
    return {}

  def compare(
    self, variables: Variables, student: Taps, teacher: Taps, batch: Batch
  ) -> tuple[dict[str, Array], Stats]:
    """Mean over tokens, heads and images."""
    del variables, batch
    target = maps.as_map(teacher[self.teacher])
    x = maps.as_map(student[self.student])
    x = lightly_dense.resized(x, target.shape[1:3])
    pair = (maps.as_tokens(side) for side in (x, target))
    return {"relations": divergence(*pair, heads=self.heads)}, {}


def divergence(
  student: Float[Array, "n p s"],
  teacher: Float[Array, "n p t"],
  *,
  heads: int,
) -> Float[Array, ""]:
  """KL(teacher || student) of the relations, mean over rows."""
  log_s, log_t = (_log_relations(x, heads) for x in (student, teacher))
  return jnp.mean(jnp.sum(jnp.exp(log_t) * (log_t - log_s), -1))


def _log_relations(x: Array, heads: int) -> Array:
  """(n, heads, p, p), logarithms; the rows' exponentials sum to 1."""
  n, p, width = x.shape
  x = x.reshape(n, p, heads, width // heads)
  highest = jax.lax.Precision.HIGHEST
  inner = jnp.einsum("nphd,nqhd->nhpq", x, x, precision=highest)
  return jax.nn.log_softmax(inner / jnp.sqrt(width / heads))
