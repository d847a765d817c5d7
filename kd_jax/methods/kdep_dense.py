"""KDEP on maps: the summary and the patches, as terms of their own.

'summary' is KDEP's loss on the pooled feature before the last activation, and
'patches' the same at every position: the teacher's map, with a basis over all
positions of all images, is projected to its leading directions, evened out by
power-temperature scaling and interpolated to the student's grid. KDEP (He et
al., CVPR 2022) has the first; the second is ours, as RADIO's and DINOv2's
successors have both.

Heads, which are thrown away: 'none', as in KDEP, where the student itself is
as wide as the target; 'linear'; 'mlp', two layers with GELU between; or
'attention', ScaleKD's projector (arXiv:2411.06786): a learnt query for every
position of the teacher's grid attends to the student's map, so that nothing is
interpolated. Its normalisation is by layer, as ScaleKD's for transformers; the
summary, which has no positions, then has a linear head. With a head the target
may be wider than the student.

Example:
  Method(terms=('summary', 'patches'), student='stage4', teacher='stage4')
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from kd_jax import losses
from kd_jax.align import maps, pts, svd
from kd_jax.methods import one_phase
from kd_jax.models.blocks import projector
from kd_jax.types import Array, Batch, Specs, Stats, Taps, Variables

HEADS = ("none", "linear", "mlp", "attention")
_SUMMARY = "feature"


@dataclasses.dataclass(frozen=True)
class Method(one_phase.OnePhase):
  """Regression of aligned features, pooled and position by position.

  Attributes:
    terms: 'summary' and 'patches', and 'kl' and 'ce' beside them.
    student: tap, a map or tokens.
    teacher: tap, a map or tokens.
    head: one of `HEADS`, one for each term.
    width: directions of the targets; 0: as wide as the student.
    hidden: width of the middle of 'mlp'.
    heads: of 'attention'; divides the width of the target.
    sharpness: factor on the logits of 'attention'.
    temperature: T of power-temperature scaling.
    power: n of power-temperature scaling.

  Raises:
    ValueError: a value that is not allowed.
  """

  OWN: ClassVar[tuple[str, ...]] = ("summary", "patches")

  terms: tuple[str, ...] = OWN
  student: str = "stage4"
  teacher: str = "stage4"
  head: str = "none"
  width: int = 0
  hidden: int = 2048
  heads: int = 8
  sharpness: float = 1.0
  temperature: float = 0.1
  power: float = 3.0

  def __post_init__(self) -> None:
    super().__post_init__()
    self.positive("temperature", "power", "hidden", "sharpness")
    if self.head not in HEADS:
      raise ValueError(f"method.head is {self.head!r}; it can be {HEADS}")
    if self.width < 0 or (self.width and self.head == "none"):
      raise ValueError(
        f"method.width is {self.width} with head={self.head!r}; without a head "
        "the target is as wide as the student: set width=0, or head='linear'"
      )

  @property
  def artifact_taps(self) -> tuple[str, ...]:
    """The teacher's side of every term."""
    return tuple(dict.fromkeys(self._taps(term)[1] for term in self.own))

  def artifact_widths(self, student: Specs) -> Mapping[str, int]:
    """As many directions as the targets have."""
    pairs = (self._taps(term) for term in self.own)
    return {
      theirs: self.width or student[ours].shape[-1] for ours, theirs in pairs
    }

  def reads(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A vector and a map of each."""
    pairs = [self._taps(term) for term in self.own]
    return tuple(ours for ours, _ in pairs), tuple(
      theirs for _, theirs in pairs
    )

  def variables_of(
    self, key: Array, student: Specs, teacher: Specs
  ) -> Variables:
    """Parameters of the heads.

    Raises:
      ValueError: taps that are no maps, or more directions than there are.
    """
    params = {}
    for index, term in enumerate(self.own):
      ours, theirs = self._taps(term)
      if term == "patches":
        one_phase.check_maps(ours, "student", student)
        one_phase.check_maps(theirs, "teacher", teacher)
      widths = student[ours].shape[-1], teacher[theirs].shape[-1]
      if self.width > widths[1]:
        raise ValueError(
          f"method.width is {self.width}, and the teacher's tap {theirs!r} has "
          f"{widths[1]} directions; set it to at most that"
        )
      if self.head != "none":
        own = jax.random.fold_in(key, index)
        shapes = student[ours].shape, teacher[theirs].shape
        params[term] = self._fresh(own, term, *shapes)
    return {"params": params} if params else {}

  def compare(
    self, variables: Variables, student: Taps, teacher: Taps, batch: Batch
  ) -> tuple[dict[str, Array], Stats]:
    """Means over images, positions and directions."""
    del batch
    found = {}
    for term in self.own:
      ours, theirs = self._taps(term)
      x, target = student[ours], teacher[theirs]
      if term == "patches":
        x, target = maps.as_map(x), maps.as_map(target)
      artifact = variables["artifact"][theirs]
      target = self._target(artifact, target, self.width or x.shape[-1])
      if term == "patches" and self.head != "attention":
        target = interpolated(target, x.shape[1:3])
      if self.head != "none":
        x = self._headed(term, variables["params"][term], x, target.shape)
      found[term] = losses.mse(x, target)
    return found, {}

  def _taps(self, term: str) -> tuple[str, str]:
    if term == "summary":
      return _SUMMARY, _SUMMARY
    return self.student, self.teacher

  def _target(
    self, artifact: Variables, x: Array, width: int
  ) -> Float[Array, "*n d"]:
    z = svd.Aligner().teacher(artifact, x, width)
    return pts.power_temperature(z, self.temperature, self.power)

  def _fresh(
    self,
    key: Array,
    term: str,
    student: tuple[int, ...],
    teacher: tuple[int, ...],
  ) -> Variables:
    """Parameters of the head of a term, between taps of these shapes."""
    x = jnp.zeros((1, *student[1:]))
    width = self.width or student[-1]
    if term == "patches":
      x = maps.as_map(x)
    head = self._head(term, width, _grid(term, teacher))
    return head.init(key, x)["params"]

  def _headed(
    self, term: str, params: Variables, x: Array, target: tuple[int, ...]
  ) -> Array:
    """The student's side, laid out as the target."""
    head = self._head(term, target[-1], target[1:-1])
    return jnp.asarray(head.apply({"params": params}, x)).reshape(target)

  def _head(
    self, term: str, width: int, grid: tuple[int, ...]
  ) -> Head | Attending:
    if self.head == "attention" and term == "patches":
      return Attending(width, self.heads, math.prod(grid), self.sharpness)
    return Head(width, self.hidden if self.head == "mlp" else 0)


def _grid(term: str, shape: tuple[int, ...]) -> tuple[int, ...]:
  """Positions of the teacher's tap of a term; a vector has none."""
  return maps.grid_of(shape) if term == "patches" else ()


class Attending(nn.Module):
  """ScaleKD's projector with a learnt query per position.

  Attributes:
    width: of the target; `heads` divides it.
    heads: of the attention.
    positions: of the target.
    sharpness: factor on the logits.
  """

  width: int
  heads: int
  positions: int
  sharpness: float

  @nn.compact
  def __call__(self, x: Float[Array, "n h w s"]) -> Float[Array, "n p d"]:
    """The map of the student, as one of the teacher's grid."""
    project = projector.Projector(
      self.width,
      self.heads,
      num_queries=self.positions,
      sharpness=self.sharpness,
      norm="layer",
      name="projector",
    )
    return project(x, train=True)


class Head(nn.Module):
  """What stands between the student and the target while training.

  Attributes:
    width: of the target.
    hidden: of the layer between; 0 has none.
  """

  width: int
  hidden: int = 0

  @nn.compact
  def __call__(self, x: Float[Array, "*n s"]) -> Float[Array, "*n d"]:
    """Linear, or linear, GELU, linear, at every position."""
    if self.hidden:
      x = jax.nn.gelu(nn.Dense(self.hidden, name="hidden")(x))
    return nn.Dense(self.width, name="out")(x)


def interpolated(
  x: Float[Array, "n h w c"], size: tuple[int, ...]
) -> Float[Array, "n y x c"]:
  """Bilinear, averaging where it shrinks, or as it is."""
  if x.shape[1:3] == size:
    return x
  return jax.image.resize(x, (x.shape[0], *size, x.shape[-1]), "linear")
