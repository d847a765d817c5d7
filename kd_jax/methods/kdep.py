"""KDEP: knowledge distillation as efficient pre-training (CVPR 2022).

The student's pooled feature without the last ReLU regresses the teacher's,
brought to the student's width by a non-parametric aligner (SVD) and evened out
by power-temperature scaling: loss = mean (f_s - PTS((f_t - mean) V_d))^2.
Labels are read only if the term `ce` has a weight.

Example:
  Method(terms=('feature',), align={'name': 'svd'}, temperature=.1, power=3.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax.numpy as jnp

from kd_jax import interfaces, losses, resolve
from kd_jax.align import pts
from kd_jax.align.base import AlignerLike
from kd_jax.methods import sizes
from kd_jax.types import (
  Array,
  Artifact,
  Batch,
  Needs,
  Phase,
  Specs,
  Stats,
  Taps,
  Teacher,
  Variables,
)

STAGES = ("stage1", "stage2", "stage3", "stage4")

# Every term: the taps that it reads from (student, teacher).
TAPS = {
  "feature": (("feature",), ("feature",)),
  "angle": (("feature",), ("feature",)),
  "rkd": (("feature",), ("feature",)),
  "kl": (("logits",), ("logits",)),
  "ce": (("logits",), ()),
  "fsp": (STAGES, STAGES),
}


@dataclasses.dataclass(frozen=True)
class Method(interfaces.Method):
  """Feature regression plus the optional terms that the paper compares.

  Attributes:
    terms: which of `TAPS` to compute; their weights are `config.losses`.
    align: {'name': file of kd_jax/align, ...its fields}.
    temperature: T of power-temperature scaling.
    power: n of power-temperature scaling; T = n = 1 switches it off.
    kl_temperature: temperature of the logits term (Hinton's T).
    sizes: ((share of the steps, side of the student's images), ...); ()
      leaves them at `preprocess.image_size`.
  """

  terms: tuple[str, ...] = ("feature",)
  align: Mapping[str, Any] = dataclasses.field(
    default_factory=lambda: {"name": "svd"}
  )
  temperature: float = 0.1
  power: float = 3.0
  kl_temperature: float = 4.0
  sizes: tuple[tuple[float, int], ...] = ()

  def __post_init__(self) -> None:
    sizes.check(self.sizes)
    unknown = sorted(set(self.terms) - set(TAPS))
    if unknown or not self.terms:
      raise ValueError(
        f"kdep has no loss term {unknown or 'with a weight'}; give at least "
        f"one of {sorted(TAPS)} a weight in config.losses, and no other."
      )
    if self.temperature <= 0 or self.power < 1:
      raise ValueError(
        "power-temperature scaling needs temperature > 0 and power >= 1; got "
        f"temperature={self.temperature}, power={self.power}."
      )

  @property
  def aligner(self) -> AlignerLike:
    """The aligner that `align` names."""
    return resolve.build("align", "Aligner", self.align)

  @property
  def artifact_tap(self) -> str | None:
    """The teacher's feature, if the aligner reads its statistics."""
    needed = self._reads("feature") and self.aligner.needs_basis
    return "feature" if needed and not self.aligner.needs_whole else None

  @property
  def artifact_taps(self) -> tuple[str, ...]:
    """The same tap, if the aligner reads all of its statistics."""
    needed = self._reads("feature") and self.aligner.needs_whole
    return ("feature",) if needed else ()

  def refined(self, tap: str, artifact: Artifact, teacher: Specs) -> Artifact:
    """As the aligner says."""
    parts = [name for name in sorted(teacher) if name.endswith(f"/{tap}")]
    widths = [teacher[name].shape[-1] for name in parts or [tap]]
    return self.aligner.refined(artifact, widths)

  def init(self, key: Array, student: Specs, teacher: Specs) -> Variables:
    """Parameters of a learnable aligner.

    Raises:
      ValueError: student and teacher disagree on the number of classes (kl)
        or on the channels of a stage (fsp).
    """
    if "kl" in self.terms:
      _check_classes(student["logits"].shape[-1], teacher["logits"].shape[-1])
    if "fsp" in self.terms:
      _check_maps(student, teacher)
      _check_stages(*_widths(student, teacher))
    if not self._reads("feature"):
      return {}
    params = self.aligner.init(
      key, student["feature"].shape[-1], teacher["feature"].shape[-1]
    )
    return {"params": params} if params else {}

  def phases(self) -> tuple[Phase, ...]:
    """One phase, or one per size; no term, no training of the classifier."""
    needs = Needs(
      student=_union(TAPS[term][0] for term in self.terms),
      teacher=_union(TAPS[term][1] for term in self.terms),
    )
    frozen = () if self._reads("logits") else ("student/head",)
    phase = Phase("kdep", self.losses, needs, frozen=frozen)
    return sizes.spread(phase, self.sizes)

  def losses(
    self, variables: Variables, taps: Taps, teacher: Teacher, batch: Batch
  ) -> tuple[dict[str, Array], Stats]:
    """The unweighted terms, each a mean over the batch."""
    compute: dict[str, Callable[[], Array]] = {
      "feature": lambda: losses.mse(*self._pair(variables, taps, teacher)),
      "angle": lambda: losses.angle(*self._pair(variables, taps, teacher)),
      "rkd": lambda: losses.rkd(*self._pair(variables, taps, teacher)),
      "kl": lambda: losses.distill_kl(
        _wide(taps["logits"]),
        _wide(teacher.taps["logits"]),
        temperature=self.kl_temperature,
      ),
      "ce": lambda: losses.cross_entropy(_wide(taps["logits"]), batch.classes),
      "fsp": lambda: _fsp(taps, teacher.taps),
    }
    return {term: compute[term]() for term in self.terms}, {}

  @property
  def image_terms(self) -> tuple[str, ...]:
    """The main one."""
    return ("feature",) if "feature" in self.terms else ()

  def image_losses(
    self, variables: Variables, taps: Taps, teacher: Teacher, batch: Batch
  ) -> dict[str, Array]:
    """The squared distance of every image, a mean over the channels."""
    del batch
    student, target = self._pair(variables, taps, teacher)
    return {"feature": jnp.mean((student - target) ** 2, -1)}

  def metrics(
    self, variables: Variables, taps: Taps, teacher: Teacher, batch: Batch
  ) -> dict[str, tuple[Array, Array]]:
    """'feature_error': ||s - t||^2 / ||t||^2 after alignment."""
    del batch
    if not self._reads("feature"):
      return {}
    student, target = self._pair(variables, taps, teacher)
    error = jnp.sum((student - target) ** 2, -1)
    return {"feature_error": (error, jnp.sum(target**2, -1))}

  def _pair(
    self, variables: Variables, taps: Taps, teacher: Teacher
  ) -> tuple[Array, Array]:
    """The student's feature and its target, (n, k) each."""
    feature = _wide(taps["feature"])
    student = self.aligner.student(variables.get("params", {}), feature)
    artifact = variables.get("artifact", {})
    if self.artifact_taps:
      artifact = artifact["feature"]
    target = self.aligner.teacher(
      artifact,
      _wide(teacher.taps["feature"]),
      feature.shape[-1],
    )
    return student, pts.power_temperature(target, self.temperature, self.power)

  def _reads(self, tap: str) -> bool:
    return any(tap in TAPS[term][0] for term in self.terms)


def _fsp(student: Taps, teacher: Taps) -> Array:
  """Sum over the pairs of stages."""
  sides = ([_wide(side[s]) for s in STAGES] for side in (student, teacher))
  return sum(losses.fsp(*sides), jnp.zeros(()))


def _wide(x: Array) -> Array:
  """Losses are computed in float32 at least, whatever the networks used."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _union(groups: Iterable[Iterable[str]]) -> tuple[str, ...]:
  return tuple(sorted({tap for group in groups for tap in group}))


def _check_classes(student: int, teacher: int) -> None:
  if student != teacher:
    raise ValueError(
      f"the kl term compares logits; the student has {student} and the "
      f"teacher {teacher}. Set "
      f"--config.student.overrides.num_classes={teacher}."
    )


def _check_maps(*sides: Specs) -> None:
  tokens = [s for specs in sides for s in STAGES if len(specs[s].shape) != 4]
  if tokens:
    raise ValueError(
      f"the fsp term compares maps, and {sorted(set(tokens))} of one of these "
      "networks are tokens. Give fsp the weight 0, or take networks with maps."
    )


def _widths(*sides: Specs) -> list[list[int]]:
  return [[specs[stage].shape[-1] for stage in STAGES] for specs in sides]


def _check_stages(student: list[int], teacher: list[int]) -> None:
  if student != teacher:
    raise ValueError(
      "the fsp term compares maps of equal width; the stages of the student "
      f"have {student} channels and those of the teacher {teacher}. Give fsp "
      "the weight 0, or choose networks of the same widths."
    )
