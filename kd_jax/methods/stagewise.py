"""Stage-wise distillation: the student's stages learn one after the other.

After Gao et al., An Embarrassingly Simple Approach for Knowledge Distillation
(arXiv:1812.01819, "stage-by-stage"; not the self-supervision method that
shares its acronym). Phase k trains stage k of the student, on its own frozen
earlier stages, to yield the teacher's map: with s_k = S_k(stop(s_{k-1})),
L_k = mean (A_k(s_k) - t_k)^2 over images, positions and channels. Then the
classifier learns from labels with the backbone frozen. What the paper leaves
open here, or could not be read, is a field; docs/stagewise.md says which.

Example:
  method = Method(terms=("stage1", "stage2", "stage3", "stage4", "ce"))
  phases = method.bind(networks).phases()
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp

from kd_jax import interfaces, losses
from kd_jax.methods import stage_maps
from kd_jax.types import (
  STAGES,
  Array,
  Batch,
  Needs,
  Networks,
  Phase,
  Specs,
  Stats,
  Taps,
  Teacher,
  Variables,
)

_MAPS = STAGES[:-1]
_CHOICES = {
  "adapter": ("auto", *stage_maps.ADAPTERS),
  "size": stage_maps.SIZES,
  "normalise": ("auto", *stage_maps.NORMALISATIONS),
  "reduction": stage_maps.REDUCTIONS,
  "last": ("auto", "stage4", "final"),
  "budget": ("flops", "equal"),
  "hand_over": ("best", "last"),
}


@dataclasses.dataclass(frozen=True)
class Method(interfaces.Method):
  """What the stages of the student learn, and for how long.

  Attributes:
    terms: the stages whose maps are compared, 'stem' to 'stage4'; one that is
      left out is trained together with the next. 'ce' adds the last phase, the
      classifier on labels.
    adapter: see `stage_maps.Comparison`; 'auto' is 'none' where the widths of
      a stage are equal and 'linear' where they are not.
    size: see `stage_maps.Comparison`.
    normalise: see there; 'auto' is 'off' for networks of one family, else
      'standard'.
    reduction: see there.
    last: which tap stands for stage 4, 'stage4' or 'final', the map that is
      pooled; 'auto' is 'final' in networks that have one.
    budget: how steps are shared out: 'flops', in proportion to the student's
      forward pass through the stages, each of K stages at least 1 / (2 K); or
      'equal'.
    hand_over: which weights a stage ends with: 'best', those of the evaluation
      with the lowest L_k (see config.eval.every), or 'last'.
    head_frac: share of the steps for the classifier, if it is trained.
    clip: largest norm of the gradient in the first stage; 0 leaves the
      optimizer's own limit.
    joint: all stages learn at once, from the mean of L_k over the stages.

  Raises:
    ValueError: a value that is not allowed.
  """

  needs_networks: ClassVar[bool] = True

  terms: tuple[str, ...] = ("stage1", "stage2", "stage3", "stage4", "ce")
  adapter: str = "auto"
  size: str = "pool"
  normalise: str = "auto"
  reduction: str = "mean"
  last: str = "auto"
  budget: str = "flops"
  hand_over: str = "best"
  head_frac: float = 0.2
  clip: float = 1.0
  joint: bool = False

  def __post_init__(self) -> None:
    unknown = sorted(set(self.terms) - {*_MAPS, "ce"})
    if unknown or "stage4" not in self.terms:
      raise ValueError(
        f"stagewise has the loss terms {[*_MAPS, 'ce']} and needs stage4; got "
        f"{list(self.terms)}. Give those stages a weight in config.losses, "
        "and every other term the weight 0."
      )
    for field, allowed in _CHOICES.items():
      if getattr(self, field) not in allowed:
        raise ValueError(
          f"method.{field} is {getattr(self, field)!r}; it can be {allowed}"
        )
    if not 0 < self.head_frac < 1 or self.clip < 0:
      raise ValueError(
        f"method.head_frac is {self.head_frac} and clip={self.clip}; the first "
        "is a share between 0 and 1, the second at least 0. Without a head, "
        "give ce the weight 0."
      )

  def bind(self, networks: Networks) -> Bound:
    """The phases between these networks.

    Raises:
      ValueError: a tap that is missing or no map, widths that cannot be
        compared, or a classifier that the student does not have.
    """
    names = [name for name in _MAPS if name in self.terms]
    starts = ["stem", *(_next(name) for name in names[:-1])]
    pairs = [self._pair(name, networks) for name in names]
    found, before = [], frozenset[str]()
    for name, start, pair in zip(names, starts, pairs, strict=True):
      groups = networks.groups[pair[0]]
      widths = [
        specs[tap].shape[-1]
        for specs, tap in zip(
          (networks.student, networks.teacher), pair, strict=True
        )
      ]
      found.append(
        Cut(
          name,
          *pair,
          train_from=start,
          groups=tuple(sorted(groups - before)),
          comparison=self._comparison(widths, networks.same_family),
        )
      )
      before = groups
    head = networks.groups["logits"] - before
    if "ce" in self.terms and "head" not in head:
      raise ValueError(
        "the loss term ce trains the student's classifier, and it has none; "
        "set --config.student.overrides.num_classes, or give ce the weight 0"
      )
    shares = _shares(self._work(found, networks))
    return Bound(self, tuple(found), tuple(shares), tuple(sorted(head)))

  def _pair(self, name: str, networks: Networks) -> tuple[str, str]:
    """The taps of student and teacher at the end of a stage."""
    return (
      self._tap(name, "student", networks.student),
      self._tap(name, "teacher", networks.teacher),
    )

  def _tap(self, name: str, side: str, specs: Specs) -> str:
    tap = name
    if name == "stage4" and self.last != "stage4":
      offered = "final" in specs and len(specs["final"].shape) in (3, 4)
      tap = "final" if offered or self.last == "final" else name
    if tap not in specs or len(specs[tap].shape) not in (3, 4):
      have = [k for k, v in specs.items() if len(v.shape) in (3, 4)]
      raise ValueError(
        f"stagewise reads the map {tap!r} of the {side}, which offers the "
        f"maps {sorted(have)}. Take another {side}, or give that stage the "
        "weight 0 in config.losses."
      )
    return tap

  def _comparison(
    self, widths: Sequence[int], same_family: bool
  ) -> stage_maps.Comparison:
    adapter, normalise = self.adapter, self.normalise
    if adapter == "auto":
      adapter = "none" if widths[0] == widths[1] else "linear"
    if normalise == "auto":
      normalise = "off" if same_family else "standard"
    return stage_maps.Comparison(
      adapter=adapter,
      size=self.size,
      normalise=normalise,
      reduction=self.reduction,
    )

  def _work(self, cuts: Sequence[Cut], networks: Networks) -> list[float]:
    """What the steps of the stages are proportional to."""
    if self.budget == "equal":
      return [1.0] * len(cuts)
    ends = [networks.flops(cut.student) for cut in cuts]
    return [
      stop - start for start, stop in zip([0.0, *ends], ends, strict=False)
    ]


@dataclasses.dataclass(frozen=True)
class Cut:
  """One stage, and what it is compared with.

  Attributes:
    name: of the loss term, 'stage2'.
    student: tap.
    teacher: tap.
    train_from: first stage of the student that learns.
    groups: top-level groups of the student's parameters that learn.
    comparison: of the two taps.
  """

  name: str
  student: str
  teacher: str
  train_from: str
  groups: tuple[str, ...]
  comparison: stage_maps.Comparison

  @property
  def end(self) -> str:
    """Last stage of the student that runs."""
    return self.student if self.student in STAGES else "head"

  @property
  def trainable(self) -> tuple[str, ...]:
    """Path prefixes, with those of the adapter."""
    own = (f"method/{self.name}",)
    learnt = self.comparison.adapter in ("linear", "orthogonal")
    return (*(f"student/{g}" for g in self.groups), *(own if learnt else ()))

  def sides(
    self, variables: Variables, taps: Taps, teacher: Teacher
  ) -> tuple[Array, Array]:
    """(A_k(s_k), t_k), both (n, h, w, c)."""
    return self.comparison.sides(
      variables.get("params", {}).get(self.name, {}),
      variables.get("artifact", {}).get(self.teacher, {}),
      taps[self.student],
      teacher.taps[self.teacher],
    )


@dataclasses.dataclass(frozen=True)
class Bound(interfaces.Method):
  """Stage-wise distillation between two networks.

  Attributes:
    method: its fields.
    cuts: the stages, in order.
    shares: of the steps of all stages; they sum to 1.
    head: groups of the student's parameters behind the last cut.
  """

  method: Method
  cuts: tuple[Cut, ...]
  shares: tuple[float, ...]
  head: tuple[str, ...]

  @interfaces.computed
  def terms(self) -> tuple[str, ...]:
    """Names of the loss terms."""
    return self.method.terms

  @property
  def artifact_taps(self) -> tuple[str, ...]:
    """The teacher's taps whose statistics the losses read."""
    return tuple(c.teacher for c in self.cuts if c.comparison.needs_statistics)

  def init(self, key: Array, student: Specs, teacher: Specs) -> Variables:
    """Parameters of the adapters, {'params': {stage: ...}}."""
    found = {}
    for index, cut in enumerate(self.cuts):
      widths = student[cut.student].shape[-1], teacher[cut.teacher].shape[-1]
      own = cut.comparison.init(jax.random.fold_in(key, index), *widths)
      found |= {cut.name: own} if own else {}
    return {"params": found} if found else {}

  def phases(self) -> tuple[Phase, ...]:
    """A phase per stage, or one for all; then the classifier."""
    left = 1 - self.method.head_frac if "ce" in self.terms else 1.0
    if self.method.joint:
      stages = [self._phase(self.cuts, 0, left)]
    else:
      stages = [
        self._phase((cut,), index, left * share)
        for index, (cut, share) in enumerate(
          zip(self.cuts, self.shares, strict=True)
        )
      ]
    if "ce" not in self.terms:
      return tuple(stages)
    head = Phase(
      "head",
      _classify,
      Needs(student=("logits",)),
      trainable=tuple(f"student/{group}" for group in self.head),
      train_from="",
      steps_frac=1 - left,
    )
    return (*stages, head)

  def metrics(
    self, variables: Variables, taps: Taps, teacher: Teacher, batch: Batch
  ) -> dict[str, tuple[Array, Array]]:
    """Of every stage L_k and, as '<stage>_error', ||A s - t||^2 / ||t||^2.

    'stages' is the mean of L_k over the stages.
    """
    del batch
    found: dict[str, tuple[Array, Array]] = {}
    parts = []
    for cut in self.cuts:
      x, target = cut.sides(variables, taps, teacher)
      rows = cut.comparison.rows(x, target)
      parts.append(rows / len(self.cuts))
      found[cut.name] = (rows, jnp.ones(rows.shape))
      error = jnp.sum(jnp.square(x - target), (1, 2, 3))
      found[f"{cut.name}_error"] = (error, jnp.sum(target**2, (1, 2, 3)))
    total = sum(parts[1:], parts[0])
    return {**found, "stages": (total, jnp.ones(total.shape))}

  def _phase(self, cuts: tuple[Cut, ...], index: int, share: float) -> Phase:
    """The phase in which `cuts` learn."""
    last = cuts[-1]
    name = last.name if len(cuts) == 1 else "stages"
    clips = index == 0 and self.method.clip
    return Phase(
      name,
      lambda *given: (_distances(cuts, *given), {}),
      Needs(
        student=tuple(cut.student for cut in cuts),
        teacher=tuple(cut.teacher for cut in cuts),
      ),
      trainable=tuple(path for cut in cuts for path in cut.trainable),
      train_from=cuts[0].train_from,
      end=last.end,
      steps_frac=share,
      optim=(("clip_norm", self.method.clip),) if clips else (),
      judge=name if self.method.hand_over == "best" else "",
    )


def _distances(
  cuts: Sequence[Cut],
  variables: Variables,
  taps: Taps,
  teacher: Teacher,
  batch: Batch,
) -> dict[str, Array]:
  """L_k of the stages, each divided by their number."""
  del batch
  return {
    cut.name: jnp.mean(
      cut.comparison.rows(*cut.sides(variables, taps, teacher))
    )
    / len(cuts)
    for cut in cuts
  }


def _classify(
  variables: Variables, taps: Taps, teacher: Teacher, batch: Batch
) -> tuple[dict[str, Array], Stats]:
  """Cross-entropy with the labels."""
  del variables, teacher
  logits = taps["logits"].astype(batch.image.dtype)
  return {"ce": losses.cross_entropy(logits, batch.classes)}, {}


def _next(stage: str) -> str:
  return STAGES[STAGES.index(stage) + 1]


def _shares(work: Sequence[float]) -> list[float]:
  """Shares in proportion to `work`, none below half an equal one.

  Raises:
    ValueError: the work could not be counted.
  """
  if not all(math.isfinite(w) and w > 0 for w in work):
    raise ValueError(
      f"the FLOPs of the student's stages came out as {list(work)}; set "
      "--config.method.budget=equal"
    )
  least, low = 0.5 / len(work), set[int]()
  while True:
    free = sum(w for i, w in enumerate(work) if i not in low)
    scale = (1 - least * len(low)) / free
    below = {i for i, w in enumerate(work) if w * scale < least} - low
    if not below:
      return [least if i in low else w * scale for i, w in enumerate(work)]
    low |= below
