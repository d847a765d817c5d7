"""ScaleKD: strong vision transformers as teachers for any student.

Fan et al., NeurIPS 2024 (arXiv:2411.06786), as in the authors' code. A
cross-attention projector brings each of the student's last two maps to the
teacher's grid and width, in two views:

  proxy    stage 3 -> projector -> the teacher's frozen tail (teacher parameter
           perception) -> compared with the teacher's last map
  final    stage 4 -> projector whose queries are the proxy's output ->
           compared with the same map; gradients reach stage 3 too
  ..._alt  the same through projectors of their own, every channel without its
           spatial mean (the alternative view of dual-view mimicking)

plus the teacher's logits (`kd`) and labels (`ce` or `bce`) where they have a
weight. Projectors are trained with the student and dropped at the end.

Example:
  Method(terms=('proxy', 'proxy_alt', 'final', 'final_alt'), heads=(16, 24))
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from kd_jax import interfaces, losses
from kd_jax.align import maps
from kd_jax.models.blocks.projector import Projector
from kd_jax.types import (
  HEAD,
  STAGES,
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

ALTERNATIVE = "_alt"
VIEWS = ("", ALTERNATIVE)
PROXIES = ("proxy", "proxy_alt")
FEATURES = (*PROXIES, "final", "final_alt")
LABELS = {"ce": losses.cross_entropy, "bce": losses.binary_cross_entropy}
TERMS = (*FEATURES, "kd", *LABELS)

REMAT = {
  "none": None,
  "full": jax.checkpoint_policies.nothing_saveable,
  "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}
"""What is kept for the backward pass of projectors and tail; the rest is
computed again."""


@dataclasses.dataclass(frozen=True)
class Method(interfaces.Method):
  """Dual-view feature mimicking through projectors and the teacher's tail.

  Attributes:
    terms: which of `TERMS` to compute; their weights are `config.losses`.
    student: the student's taps, last but one and last; maps or tokens.
    target: the teacher's tap that everything is compared with.
    resume: where the teacher's tail begins, 'stage4' of Swin and ConvNeXt, or
      'blockNN' of others (the authors take the last two); '' does without
      proxies, and the last projectors learn queries of their own.
    heads: attention heads of the projectors, last but one and last.
    sharpness: factor on their attention's logits.
    norm: of their student's side, 'batch' or 'layer'.
    kd_temperature: T of the term `kd`.
    remat: one of `REMAT`.

  Raises:
    ValueError: a value that is not allowed.
  """

  terms: tuple[str, ...] = FEATURES
  student: tuple[str, ...] = ("stage3", "stage4")
  target: str = "final"
  resume: str = "stage4"
  heads: tuple[int, ...] = (8, 8)
  sharpness: float = 5.0
  norm: str = "batch"
  kd_temperature: float = 1.0
  remat: str = "none"

  def __post_init__(self) -> None:
    unknown = sorted(set(self.terms) - set(TERMS))
    if unknown or not set(self.terms) & set(FEATURES):
      raise ValueError(
        f"scalekd has the loss terms {list(TERMS)} and needs one of the first "
        f"four; got {list(self.terms)}. Give it a weight in config.losses, and "
        "every other term the weight 0."
      )
    for field in ("student", "heads"):
      if len(getattr(self, field)) != 2:
        raise ValueError(
          f"method.{field} is {getattr(self, field)!r}; it holds two values, "
          "for the last but one and the last map of the student"
        )
    if self.remat not in REMAT:
      raise ValueError(
        f"method.remat is {self.remat!r}; it can be {sorted(REMAT)}"
      )
    if self.kd_temperature <= 0:
      raise ValueError(
        f"method.kd_temperature is {self.kd_temperature}; it must be positive"
      )
    if not self.resume and set(PROXIES) & set(self.terms):
      raise ValueError(
        "the proxy terms run the teacher's tail, and method.resume is empty. "
        "Name where the tail begins, or give both terms the weight 0."
      )
    if self.resume:
      before(self.resume)

  @property
  def reads_labels(self) -> bool:
    """Whether training needs labelled images."""
    return any(term in LABELS for term in self.terms)

  @property
  def views(self) -> tuple[str, ...]:
    """Those of `VIEWS` that a term belongs to."""
    return tuple(
      view
      for view in VIEWS
      if {"proxy" + view, "final" + view} & set(self.terms)
    )

  def init(self, key: Array, student: Specs, teacher: Specs) -> Variables:
    """Parameters and batch statistics of the projectors.

    Raises:
      ValueError: taps that are no maps, heads that do not divide the teacher's
        width, or, with `kd`, another number of classes.
    """
    if "kd" in self.terms:
      _check_classes(student["logits"].shape[-1], teacher["logits"].shape[-1])
    names = [name for view in self.views for name in self._names(view)]
    found: dict[str, dict[str, Any]] = {"params": {}, "batch_stats": {}}
    for name, own in zip(names, jax.random.split(key, len(names)), strict=True):
      goal = self._entry if name in PROXIES else self.target
      tokens = _tokens_of(goal, teacher)
      learned = name in PROXIES or not self.resume
      made = self._projector(name, tokens[1], tokens[0] if learned else 0)
      x = _map_of(self._student(name), student)
      query = None if learned else jnp.zeros((1, *tokens))
      variables = made.init(own, jnp.zeros((1, *x)), query, train=False)
      for collection, values in variables.items():
        found[collection][name] = values
    return {k: v for k, v in found.items() if v}

  def phases(self) -> tuple[Phase, ...]:
    """One phase; what no term reads of the student's head is not trained."""
    reads = self._reads_logits
    entry = (self._entry,) if self.resume else ()
    needs = Needs(
      student=(*self.student, *(("logits",) if reads else ())),
      teacher=(
        self.target,
        *entry,
        *(("logits",) if "kd" in self.terms else ()),
      ),
      resume=(self.resume,) if self.resume else (),
    )
    unread = () if reads else HEAD
    if "final" in self.student:
      unread = unread[-1:]  # the last normalisation is read
    return (Phase("scalekd", self.losses, needs, frozen=unread),)

  def losses(
    self, variables: Variables, taps: Taps, teacher: Teacher, batch: Batch
  ) -> tuple[dict[str, Array], Stats]:
    """The unweighted terms, each a mean over the batch."""
    found, stats = {}, {}
    for view in self.views:
      outputs, new = self._mimic(view, variables, taps, teacher, train=True)
      stats.update(new)
      for name in (name for name in outputs if name in self.terms):
        found[name] = losses.directions(*self._pair(name, outputs, teacher))
    if "kd" in self.terms:
      found["kd"] = losses.soft_cross_entropy(
        _wide(taps["logits"]),
        _wide(teacher.taps["logits"]),
        self.kd_temperature,
      )
    for term in (term for term in LABELS if term in self.terms):
      found[term] = LABELS[term](_wide(taps["logits"]), batch.classes)
    return found, {"batch_stats": stats} if stats else {}

  def metrics(
    self, variables: Variables, taps: Taps, teacher: Teacher, batch: Batch
  ) -> dict[str, tuple[Array, Array]]:
    """'feature_error': squared distance of directions per position, 0 to 4.

    And 'accuracy' on labelled images, if a term reads logits.
    """
    view = self.views[0]
    outputs, _ = self._mimic(view, variables, taps, teacher, train=False)
    student, target = self._pair(list(outputs)[-1], outputs, teacher)
    each = jax.vmap(lambda s, t: losses.directions(s[None], t[None]))
    error = each(student, target) / target.shape[1]
    found = {"feature_error": (error, jnp.ones(error.shape))}
    if self._reads_logits:
      labelled = batch.label >= 0
      hit = (jnp.argmax(taps["logits"], -1) == batch.label) & labelled
      found["accuracy"] = (_wide(hit), _wide(labelled))
    return found

  def _mimic(
    self,
    view: str,
    variables: Variables,
    taps: Taps,
    teacher: Teacher,
    *,
    train: bool,
  ) -> tuple[dict[str, Array], dict[str, Any]]:
    """One view's maps on the teacher's grid, and new statistics, by name."""
    found: dict[str, Array] = {}
    stats, query = {}, None
    for name in self._names(view):
      x = maps.as_map(taps[self._student(name)])
      y, new = self._project(name, variables, x, query, train)
      if name in PROXIES:
        y = query = self._tail(teacher, y)
      found[name] = y
      if new:
        stats[name] = new
    return found, stats

  def _project(
    self,
    name: str,
    variables: Variables,
    x: Array,
    query: Array | None,
    train: bool,
  ) -> tuple[Float[Array, "n p d"], Any]:
    params = variables["params"][name]
    count = 0 if query is not None else len(params["query"])
    made = self._projector(name, len(params["proj"]["bias"]), count, x.dtype)
    own = {"params": params}
    if "batch_stats" in variables:
      own["batch_stats"] = variables["batch_stats"][name]

    def apply(own: Any, x: Array, query: Array | None) -> tuple[Array, Any]:
      mutable = ["batch_stats"] if train else []
      y, new = made.apply(own, x, query, train=train, mutable=mutable)
      return y, new.get("batch_stats", {})

    return self._kept(apply)(own, x, query)

  def _tail(self, teacher: Teacher, tokens: Array) -> Float[Array, "n p d"]:
    """What the teacher's tail makes of a proxy."""
    resume = teacher.resume
    assert resume is not None
    shape = teacher.taps[self._entry].shape
    x = tokens.reshape(shape) if len(shape) == 4 else tokens
    end = "head" if self.target == "final" else "stage4"

    def run(x: Array) -> Array:
      return resume(self.resume, x, end)[self.target]

    return maps.as_tokens(self._kept(run)(x))

  def _kept(self, run: Callable[..., Any]) -> Callable[..., Any]:
    """`run`, with what it keeps for the backward pass as `remat` says."""
    policy = REMAT[self.remat]
    return run if policy is None else jax.checkpoint(run, policy=policy)

  def _pair(
    self, name: str, outputs: Mapping[str, Array], teacher: Teacher
  ) -> tuple[Float[Array, "n p d"], Float[Array, "n p d"]]:
    """(student, target) as the view of `name` sees them."""
    target = maps.as_tokens(teacher.taps[self.target])
    ours, theirs = _wide(outputs[name]), _wide(target)
    if name.endswith(ALTERNATIVE):
      return losses.without_mean(ours), losses.without_mean(theirs)
    return ours, theirs

  def _projector(
    self, name: str, width: int, num_queries: int, dtype: Any = None
  ) -> Projector:
    return Projector(
      width,
      self.heads[name not in PROXIES],
      num_queries,
      sharpness=self.sharpness,
      norm=self.norm,
      dtype=dtype,
    )

  def _names(self, view: str) -> tuple[str, ...]:
    """Projectors of a view, in the order in which they run."""
    proxy = ("proxy" + view,) if self.resume else ()
    final = ("final" + view,) if "final" + view in self.terms else ()
    return (*proxy, *final)

  def _student(self, name: str) -> str:
    return self.student[name not in PROXIES]

  @property
  def _entry(self) -> str:
    """The tap whose place a proxy takes."""
    return before(self.resume)

  @property
  def _reads_logits(self) -> bool:
    return "kd" in self.terms or self.reads_labels


def before(begin: str) -> str:
  """The teacher's tap that enters the stage or block `begin`.

  Raises:
    ValueError: neither a stage behind the stem nor a block.
  """
  if begin in STAGES[1:]:
    return STAGES[STAGES.index(begin) - 1]
  block = re.fullmatch(r"block(\d\d)", begin)
  if block is None:
    raise ValueError(
      f"method.resume is {begin!r}; a teacher's tail begins at one of "
      f"{STAGES[1:]} or at a block of a transformer, such as 'block22'"
    )
  number = int(block[1])
  return f"block{number - 1:02d}" if number else "stem"


def _tokens_of(tap: str, specs: Specs) -> tuple[int, int]:
  """(positions, channels) of a tap without prefix tokens."""
  return math.prod(maps.grid_of(specs[tap].shape)), specs[tap].shape[-1]


def _map_of(tap: str, specs: Specs) -> tuple[int, int, int]:
  """(height, width, channels) of a tap as a map."""
  return *maps.grid_of(specs[tap].shape), specs[tap].shape[-1]


def _wide(x: Array) -> Array:
  """Losses are computed in float32 at least, whatever the networks used."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _check_classes(student: int, teacher: int) -> None:
  if student != teacher:
    raise ValueError(
      f"the kd term compares logits; the student has {student} and the "
      f"teacher {teacher}. Set "
      f"--config.student.overrides.num_classes={teacher}, or give kd the "
      "weight 0."
    )
