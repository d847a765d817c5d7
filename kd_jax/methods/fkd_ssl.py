"""FKD without labels: soft cross-entropy between embeddings (ECCV 2022).

What is known of FKD's self-supervised form: student and teacher yield
embeddings of 128 numbers, scaled to unit length, and the loss is
-sum q log softmax(s / .2), q = softmax(t / .2), both over the entries of the
embedding, as in S2-BNN (Shen et al., CVPR 2021). How FKD stores embeddings and
which augmentation it trains with is not; any codec that keeps the tap 'logits'
will do.

The embedding is what the last layer yields: `num_classes` is its length.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

from kd_jax.methods import fkd
from kd_jax.types import Array, Batch, Taps, Teacher, Variables


@dataclasses.dataclass(frozen=True)
class Method(fkd.Method):
  """FKD's loss on embeddings of unit length; fields as there, no labels.

  Attributes:
    temperature: divides the student's entries.
    teacher_temperature: divides the teacher's.
  """

  TERMS: ClassVar[tuple[str, ...]] = ("soft",)

  temperature: float = 0.2
  teacher_temperature: float = 0.2

  def scores(self, taps: Taps) -> Float[Array, "n d"]:
    """The student's side."""
    return _unit(taps["logits"]) / self.temperature

  def target(self, teacher: Teacher, batch: Batch) -> Float[Array, "n d"]:
    """The teacher's side."""
    del batch
    embedding = _unit(teacher.taps["logits"])
    return jax.nn.softmax(embedding / self.teacher_temperature)

  def metrics(
    self, variables: Variables, taps: Taps, teacher: Teacher, batch: Batch
  ) -> dict[str, tuple[Array, Array]]:
    """'cosine' of both embeddings."""
    del variables, batch
    if "logits" not in teacher.taps:
      return {}
    pair = _unit(taps["logits"]) * _unit(teacher.taps["logits"])
    cosine = pair.sum(-1)
    return {"cosine": (cosine, jnp.ones(cosine.shape))}


def _unit(x: Array) -> Array:
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  square = jnp.sum(jnp.square(wide), -1, keepdims=True)
  return wide * jax.lax.rsqrt(jnp.maximum(square, 1e-24))
