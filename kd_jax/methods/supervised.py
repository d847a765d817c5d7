"""Supervised training on labels: the baseline, and how teachers are made."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from kd_jax import interfaces, losses
from kd_jax.types import (
  Array,
  Batch,
  Needs,
  Phase,
  Stats,
  Taps,
  Teacher,
  Variables,
)


@dataclasses.dataclass(frozen=True)
class Method(interfaces.Method):
  """Cross-entropy on the labels of the batch.

  Attributes:
    terms: must be ('ce',).
    trains: 'network', or 'head' for a linear probe: the classifier alone, on
      a backbone in evaluation mode.
  """

  terms: tuple[str, ...] = ("ce",)
  trains: str = "network"

  def __post_init__(self) -> None:
    if self.trains not in ("network", "head"):
      raise ValueError(
        f"supervised.trains is {self.trains!r}; it can be 'network' or 'head'"
      )
    if self.terms != ("ce",):
      raise ValueError(
        f"supervised has the one loss term ce; got {self.terms}. Give every "
        "other term of config.losses the weight 0."
      )

  def phases(self) -> tuple[Phase, ...]:
    """One phase over all parameters of the student, or its classifier."""
    part, train_from = ("student", "stem")
    if self.trains == "head":
      part, train_from = ("student/head", "")
    return (
      Phase(
        "supervised",
        self.losses,
        Needs(student=("logits",)),
        trainable=(part,),
        train_from=train_from,
      ),
    )

  def losses(
    self, variables: Variables, taps: Taps, teacher: Teacher, batch: Batch
  ) -> tuple[dict[str, Array], Stats]:
    """Cross-entropy, averaged over the batch."""
    del variables, teacher
    logits = taps["logits"].astype(batch.image.dtype)
    return {"ce": losses.cross_entropy(logits, batch.classes)}, {}

  def metrics(
    self, variables: Variables, taps: Taps, teacher: Teacher, batch: Batch
  ) -> dict[str, tuple[Array, Array]]:
    """Top-1 accuracy, of the rows that have a label."""
    del variables, teacher
    hit = jnp.argmax(taps["logits"], -1) == batch.label
    labelled = (batch.label >= 0).astype(jnp.float32)
    return {"accuracy": (hit * labelled, labelled)}
