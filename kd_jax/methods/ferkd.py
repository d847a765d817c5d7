"""FerKD: surgical label adaptation for efficient distillation (ICCV 2023).

Shen: FKD that looks at how sure the teacher is of a crop, s. Crops that show
nothing of the object (s < low) and those that are too easy (s > high) are left
out, uncertain ones (low <= s < mid) get their label, softened, and the others
keep the teacher's probabilities. No code was released: what the thresholds
are, and whether s is the largest probability or that of the label, is open;
the defaults here are ours. SelfMix, which mixes crops of the same image, is
left out, its geometry being unknown.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Float

from kd_jax.methods import fkd
from kd_jax.types import Array, Batch, Teacher

CONFIDENCES = ("max", "label")


@dataclasses.dataclass(frozen=True)
class Method(fkd.Method):
  """Soft cross-entropy with calibrated labels; needs labelled images.

  The loss is the mean over the crops that are left. Of an image without a
  label uncertain crops are left out too.

  Attributes:
    low: crops of a lower confidence are left out.
    mid: crops from `low` to here get their label.
    high: crops of a higher confidence are left out; 1 keeps all.
    smoothing: eps; a label has the probability 1 - eps, the rest is shared.
    confidence: 'max', the teacher's largest probability, or 'label', that of
      the image's label.

  Raises:
    ValueError: a value that is not allowed.
  """

  low: float = 0.1
  mid: float = 0.3
  high: float = 0.95
  smoothing: float = 0.1
  confidence: str = "max"

  def __post_init__(self) -> None:
    super().__post_init__()
    if not 0 <= self.low <= self.mid <= self.high <= 1:
      raise ValueError(
        f"ferkd needs 0 <= low <= mid <= high <= 1; got low={self.low}, "
        f"mid={self.mid}, high={self.high}"
      )
    if not 0 <= self.smoothing < 1:
      raise ValueError(
        f"method.smoothing is {self.smoothing}; it must be in [0, 1)"
      )
    if self.confidence not in CONFIDENCES:
      raise ValueError(
        f"method.confidence is {self.confidence!r}; it can be {CONFIDENCES}"
      )

  @property
  def reads_labels(self) -> bool:
    """Always."""
    return True

  def target(self, teacher: Teacher, batch: Batch) -> Float[Array, "n c"]:
    """Calibrated probabilities; rows of zeros are left out of the loss."""
    soft = super().target(teacher, batch)
    label = jax.nn.one_hot(batch.label, soft.shape[-1], dtype=soft.dtype)
    sure = self._confidence(soft, label)[:, None]
    kept = jnp.where((sure < self.low) | (sure > self.high), 0.0, soft)
    uncertain = (sure >= self.low) & (sure < self.mid)
    return jnp.where(uncertain, self._softened(label), kept)

  def _confidence(
    self, soft: Float[Array, "n c"], label: Float[Array, "n c"]
  ) -> Float[Array, " n"]:
    if self.confidence == "max":
      return soft.max(-1)
    return (soft * label).sum(-1)

  def _softened(self, label: Float[Array, "n c"]) -> Float[Array, "n c"]:
    """Label smoothing over the other classes; zeros stay zeros."""
    others = (label.sum(-1, keepdims=True) - label) / (label.shape[-1] - 1)
    return (1 - self.smoothing) * label + self.smoothing * others
