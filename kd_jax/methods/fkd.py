"""FKD: fast knowledge distillation from soft labels (ECCV 2022).

Shen & Xing, A Fast Knowledge Distillation Framework for Visual Recognition:
loss = mean -sum_c q_c log softmax(z / T)_c, q = softmax(teacher / Tt), without
a factor T^2 and without labels. The teacher's logits come from a bank, several
crops of every decoded image; an online teacher works as well. ReLabel (Yun et
al., CVPR 2021) is the same loss on a bank of label maps.

Example:
  Method(terms=('soft',), single_last=4 / 300)  # with preprocess.num_crops=4
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

from kd_jax import interfaces, losses
from kd_jax.types import (
  Array,
  Batch,
  Needs,
  Phase,
  Specs,
  Stats,
  Taps,
  Teacher,
  Variables,
)

_SINGLE = (("num_crops", 1),)


@dataclasses.dataclass(frozen=True)
class Method(interfaces.Method):
  """Soft cross-entropy with the teacher's probabilities.

  Attributes:
    terms: 'soft', and 'ce' for cross-entropy with labels beside it (which FKD
      does without).
    temperature: T, divides the student's logits.
    teacher_temperature: Tt, divides the teacher's. A bank of probabilities
      has its own, which must be repeated here: another one would sharpen or
      flatten what is stored, not what the teacher said.
    single_first: share of the steps, at the start, with one crop per image
      whatever `preprocess.num_crops` says (FKD's warm-up of transformers).
    single_last: the same at the end (FKD: the last `num_crops` epochs).

  Raises:
    ValueError: a value that is not allowed.
  """

  TERMS: ClassVar[tuple[str, ...]] = ("soft", "ce")

  terms: tuple[str, ...] = ("soft",)
  temperature: float = 1.0
  teacher_temperature: float = 1.0
  single_first: float = 0.0
  single_last: float = 0.0

  def __post_init__(self) -> None:
    unknown = sorted(set(self.terms) - set(self.TERMS))
    if unknown or "soft" not in self.terms:
      raise ValueError(
        f"{self._name} has the loss terms {list(self.TERMS)} and needs soft; "
        f"got {list(self.terms)}. Give soft a weight in config.losses, and "
        "every other term the weight 0."
      )
    if min(self.temperature, self.teacher_temperature) <= 0:
      raise ValueError(
        f"{self._name} divides logits by temperature={self.temperature} and "
        f"teacher_temperature={self.teacher_temperature}; both must be positive"
      )
    shares = (self.single_first, self.single_last)
    if min(shares) < 0 or sum(shares) >= 1:
      raise ValueError(
        f"method.single_first={shares[0]} and single_last={shares[1]} are "
        "shares of the steps; both at least 0, together below 1"
      )

  def init(self, key: Array, student: Specs, teacher: Specs) -> Variables:
    """No variables of its own.

    Raises:
      ValueError: student and teacher disagree on the number of classes.
    """
    del key
    widths = [specs["logits"].shape[-1] for specs in (student, teacher)]
    if widths[0] != widths[1]:
      raise ValueError(
        f"{self._name} compares logits; the student has {widths[0]} and the "
        f"teacher {widths[1]}. Set "
        f"--config.student.overrides.num_classes={widths[1]}."
      )
    return {}

  def phases(self) -> tuple[Phase, ...]:
    """One crop per image, then several, then one; one optimizer for all."""
    several = 1 - self.single_first - self.single_last
    plan = (
      ("first", self.single_first, _SINGLE),
      ("crops", several, ()),
      ("last", self.single_last, _SINGLE),
    )
    needs = Needs(student=("logits",), teacher=("logits",))
    return tuple(
      Phase(
        f"{self._name}/{name}",
        self.losses,
        needs,
        trainable=("student",),
        steps_frac=share,
        data=data,
        fresh_opt=False,
      )
      for name, share, data in plan
      if share
    )

  def losses(
    self, variables: Variables, taps: Taps, teacher: Teacher, batch: Batch
  ) -> tuple[dict[str, Array], Stats]:
    """The unweighted terms, each a mean over the batch."""
    del variables
    target = self.target(teacher, batch)
    found = {"soft": losses.cross_entropy(self.scores(taps), target)}
    if "ce" in self.terms:
      logits = _wide(taps["logits"])
      found["ce"] = losses.cross_entropy(logits, batch.classes)
    return found, {}

  def scores(self, taps: Taps) -> Float[Array, "n c"]:
    """The student's side: logits / T."""
    return _wide(taps["logits"]) / self.temperature

  def target(self, teacher: Teacher, batch: Batch) -> Float[Array, "n c"]:
    """q; a row of zeros is left out of the loss."""
    del batch
    logits = _wide(teacher.taps["logits"])
    return jax.nn.softmax(logits / self.teacher_temperature)

  def metrics(
    self, variables: Variables, taps: Taps, teacher: Teacher, batch: Batch
  ) -> dict[str, tuple[Array, Array]]:
    """'accuracy' where there are labels, 'agreement' with the teacher."""
    del variables
    guess = jnp.argmax(taps["logits"], -1)
    labelled = batch.label >= 0
    hit = (guess == batch.label) & labelled
    found = {"accuracy": (_wide(hit), _wide(labelled))}
    if "logits" in teacher.taps:  # a bank says nothing about these images
      same = guess == jnp.argmax(teacher.taps["logits"], -1)
      found["agreement"] = (_wide(same), jnp.ones(same.shape))
    return found

  @property
  def _name(self) -> str:
    return type(self).__module__.rpartition(".")[2]


def _wide(x: Array) -> Array:
  """Losses are computed in float32 at least, whatever the networks used."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))
