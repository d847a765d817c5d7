"""Decoupled knowledge distillation (Zhao et al., CVPR 2022).

The logits' divergence is taken apart: how probable the image's own class is
against all others (TCKD), and how the others share the rest (NCKD). The term
'decoupled' is T^2 (alpha TCKD + beta NCKD) (equation 7), verified against the
figures of mdistiller. Its defaults are those of ImageNet there except T.

Ours: without labels the image's class is the one that the teacher finds most
probable.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from kd_jax.methods import one_phase
from kd_jax.types import Array, Batch, Specs, Stats, Taps, Variables

_TARGETS = ("teacher", "label")
_FAR = 1000.0  # what the own class loses before the softmax of the others


@dataclasses.dataclass(frozen=True)
class Method(one_phase.OnePhase):
  """The teacher's logits, the own class apart from the others.

  Attributes:
    terms: 'decoupled', and 'kl' and 'ce' beside it.
    alpha: weight of TCKD.
    beta: weight of NCKD; 8 on CIFAR-100 and .5 on ImageNet.
    temperature: T; 4 on CIFAR-100, 1 on ImageNet.
    target: the own class is the 'teacher''s or the 'label'.

  Raises:
    ValueError: a value that is not allowed.
  """

  OWN: ClassVar[tuple[str, ...]] = ("decoupled",)

  terms: tuple[str, ...] = OWN
  alpha: float = 1.0
  beta: float = 0.5
  temperature: float = 1.0
  target: str = "teacher"

  def __post_init__(self) -> None:
    super().__post_init__()
    self.positive("temperature")
    if self.target not in _TARGETS:
      raise ValueError(
        f"method.target is {self.target!r}; it can be {_TARGETS}"
      )

  @property
  def reads_labels(self) -> bool:
    """With target='label' or the term 'ce'."""
    return self.target == "label" or "ce" in self.terms

  def reads(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Logits of both."""
    return ("logits",), ("logits",)

  def variables_of(
    self, key: Array, student: Specs, teacher: Specs
  ) -> Variables:
    """None; refuses another number of classes."""
    del key
    one_phase.check_classes("dkd", student, teacher)
    return {}

  def compare(
    self, variables: Variables, student: Taps, teacher: Taps, batch: Batch
  ) -> tuple[dict[str, Array], Stats]:
    """Mean over the images; those without a label take the teacher's."""
    del variables
    own = jnp.argmax(teacher["logits"], -1)
    if self.target == "label":
      own = jnp.where(batch.label >= 0, batch.label, own)
    loss = decoupled(
      student["logits"],
      teacher["logits"],
      own,
      alpha=self.alpha,
      beta=self.beta,
      temperature=self.temperature,
    )
    return {"decoupled": loss}, {}


def decoupled(
  student: Float[Array, "n c"],
  teacher: Float[Array, "n c"],
  label: Int[Array, " n"],
  *,
  alpha: float,
  beta: float,
  temperature: float,
) -> Float[Array, ""]:
  """T^2 (alpha TCKD + beta NCKD), mean over the rows."""
  own = jax.nn.one_hot(label, student.shape[-1], dtype=student.dtype)
  s, t = student / temperature, teacher / temperature
  target = _divergence(_own_or_not(s, own), _own_or_not(t, own))
  others = _divergence(
    jax.nn.log_softmax(s - _FAR * own), jax.nn.log_softmax(t - _FAR * own)
  )
  return temperature**2 * jnp.mean(alpha * target + beta * others)


def _own_or_not(logits: Array, own: Array) -> Array:
  """(n, 2): log probabilities of the own class, and of all others."""
  log_p = jax.nn.log_softmax(logits)
  rest = jax.nn.logsumexp(jnp.where(own > 0, -jnp.inf, log_p), -1)
  return jnp.stack([jnp.sum(own * log_p, -1), rest], -1)


def _divergence(log_s: Array, log_t: Array) -> Array:
  return jnp.sum(jnp.exp(log_t) * (log_t - log_s), -1)
