"""What methods of one phase share: their own terms, beside logits and labels.

A method subclasses `OnePhase`, names its own terms in `OWN`, says in `reads`
which taps they compare, and computes them in `compare`. The terms 'kl' (the
teacher's logits, Hinton et al., 2015) and 'ce' (labels) can have a weight
beside them, as in the tables that compare these methods; pre-training without
labels does without both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax.numpy as jnp

from kd_jax import interfaces, losses
from kd_jax.methods import sizes
from kd_jax.types import (
  HEAD,
  STAGES,
  Array,
  Batch,
  Hidden,
  Needs,
  Phase,
  Specs,
  Stats,
  Taps,
  Teacher,
  Variables,
)

BESIDE = ("kl", "ce")
MAPS = STAGES[1:-1]
_LAST = {"stage4", "final", "feature", "pooled", "logits"}


@dataclasses.dataclass(frozen=True)
class OnePhase(interfaces.Method):
  """One phase; what no term reads of the student's head is not trained.

  Attributes:
    terms: one or more of `OWN`, and of 'kl' and 'ce'.
    kl_temperature: T of the term 'kl'.
    sizes: ((share of the steps, side of the student's images), ...); ()
      leaves them at `preprocess.image_size`.

  Raises:
    ValueError: a term that the method does not have, or none of its own.
  """

  OWN: ClassVar[tuple[str, ...]] = ()
  OF_HIDDEN: ClassVar[tuple[str, ...]] = ("patch",)
  """Own terms that only the second run has."""

  terms: tuple[str, ...] = ()
  kl_temperature: float = 4.0
  sizes: tuple[tuple[float, int], ...] = ()

  def __post_init__(self) -> None:
    sizes.check(self.sizes)
    unknown = sorted(set(self.terms) - {*self.OWN, *BESIDE})
    if unknown or not self.own:
      raise ValueError(
        f"{self.name} has the loss terms {[*self.OWN, *BESIDE]} and needs one "
        f"of {list(self.OWN)}; got {list(self.terms)}. Give it a weight in "
        "config.losses, and every other term the weight 0."
      )
    self.positive("kl_temperature")
    if not _LAST & set(self._student_taps):
      raise ValueError(
        f"{self.name} reads the student's taps {list(self._student_taps)}, "
        "which leave its last stage untrained; name 'stage4' among them, or "
        "give kl a weight in config.losses"
      )

  @property
  def own(self) -> tuple[str, ...]:
    """Those terms with a weight that are the method's own."""
    return tuple(term for term in self.OWN if term in self.terms)

  @property
  def name(self) -> str:
    """The file's."""
    return type(self).__module__.rpartition(".")[2]

  def reads(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Taps of (student, teacher) that the own terms compare."""
    raise NotImplementedError

  def compare(
    self, variables: Variables, student: Taps, teacher: Taps, batch: Batch
  ) -> tuple[Mapping[str, Array], Stats]:
    """The own terms, each a mean over the batch, and new statistics.

    Args:
      variables: the method's.
      student: taps that `reads` names, float32 or wider.
      teacher: the same.
      batch: images and labels.
    """
    raise NotImplementedError

  @property
  def second_run(self) -> Hidden | None:
    """The second run of the student that the own terms read, if any."""
    return None

  def init(self, key: Array, student: Specs, teacher: Specs) -> Variables:
    """What `variables_of` says.

    Raises:
      ValueError: with 'kl', another number of classes than the teacher's.
    """
    if "kl" in self.terms:
      check_classes("the kl term", student, teacher)
    return self.variables_of(key, student, teacher)

  def variables_of(
    self, key: Array, student: Specs, teacher: Specs
  ) -> Variables:
    """Variables of the method; none unless it says so."""
    del key, student, teacher
    return {}

  def phases(self) -> tuple[Phase, ...]:
    """One phase or one per size, over the student and the method's own."""
    beside = ("logits",) if "kl" in self.terms else ()
    needs = Needs(
      student=self._student_taps,
      teacher=tuple(sorted({*self.reads()[1], *beside})),
    )
    frozen = unread(self._student_taps)
    phase = Phase(self.name, self.losses, needs, frozen=frozen)
    if self.second_run is not None:
      # A batch in which nothing happens to be hidden has no such term.
      vanish = tuple(term for term in self.own if term in self.OF_HIDDEN)
      phase = dataclasses.replace(
        phase, hidden=self.second_run, may_vanish=vanish
      )
    return sizes.spread(phase, self.sizes)

  def losses(
    self, variables: Variables, taps: Taps, teacher: Teacher, batch: Batch
  ) -> tuple[dict[str, Array], Stats]:
    """The unweighted terms, each a mean over the batch."""
    ours, theirs = self.reads()
    second = {tap: taps[tap] for tap in taps if tap.startswith("hidden/")}
    found, stats = self.compare(
      variables,
      {tap: wide(taps[tap]) for tap in ours} | second,
      {tap: wide(teacher.taps[tap]) for tap in theirs},
      batch,
    )
    terms = {term: found[term] for term in self.own}
    beside: Mapping[str, Callable[[], Array]] = {
      "kl": lambda: losses.distill_kl(
        wide(taps["logits"]), wide(teacher.taps["logits"]), self.kl_temperature
      ),
      "ce": lambda: losses.cross_entropy(wide(taps["logits"]), batch.classes),
    }
    terms |= {term: beside[term]() for term in BESIDE if term in self.terms}
    return terms, stats

  def positive(self, *fields: str) -> None:
    """Whether fields are above 0.

    Raises:
      ValueError: one is not.
    """
    for field in fields:
      value: Any = getattr(self, field)
      if not value > 0:
        raise ValueError(f"method.{field} is {value}; it must be positive")

  @property
  def _student_taps(self) -> tuple[str, ...]:
    logits = {"logits"} if set(BESIDE) & set(self.terms) else set()
    return tuple(sorted({*self.reads()[0], *logits}))


@dataclasses.dataclass(frozen=True)
class WithHidden(OnePhase):
  """Its term 'patch' is of a second run of the student, with hidden patches.

  Attributes:
    token: tap of both networks, a vector per image.
    student: tap, a map or tokens.
    teacher: tap, a map or tokens.
    patch: side of what is hidden, pixels.
    prob: share of the images in which something is hidden.
    share: of their patches, at most.

  Raises:
    ValueError: a value that is not allowed.
  """

  token: str = "pooled"
  student: str = "final"
  teacher: str = "final"
  patch: int = 16
  prob: float = 0.5
  share: float = 0.5

  def __post_init__(self) -> None:
    super().__post_init__()
    self.positive("patch", "prob", "share")
    if max(self.prob, self.share) > 1:
      raise ValueError(
        f"method.prob is {self.prob} and share={self.share}; both are at most 1"
      )

  @property
  def second_run(self) -> Hidden | None:
    """For the term 'patch'."""
    if "patch" not in self.terms:
      return None
    return Hidden((self.student,), self.patch, self.prob, self.share)


def unread(taps: tuple[str, ...]) -> tuple[str, ...]:
  """Paths of the student's parameters behind all of these taps."""
  if "logits" in taps:
    return ()
  return HEAD[-1:] if {"final", "feature", "pooled"} & set(taps) else HEAD


def wide(x: Array) -> Array:
  """Losses are computed in float32 at least, whatever the networks used."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def check_classes(what: str, student: Specs, teacher: Specs) -> None:
  """Whether both networks have the same classes.

  Raises:
    ValueError: they do not.
  """
  widths = [specs["logits"].shape[-1] for specs in (student, teacher)]
  if widths[0] != widths[1]:
    raise ValueError(
      f"{what} compares logits; the student has {widths[0]} and the teacher "
      f"{widths[1]}. Set --config.student.overrides.num_classes={widths[1]}."
    )


def check_maps(tap: str, side: str, specs: Specs) -> None:
  """Whether a tap is a map or tokens.

  Raises:
    ValueError: it is missing, or a vector per image.
  """
  shape = specs[tap].shape if tap in specs else ()
  if len(shape) not in (3, 4):
    have = sorted(k for k, v in specs.items() if len(v.shape) in (3, 4))
    raise ValueError(
      f"the method compares maps, and {tap!r} of the {side} is none; it "
      f"offers {have}"
    )
