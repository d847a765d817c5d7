"""ReviewKD: knowledge review (Chen et al., CVPR 2021).

From the deepest stage upwards, the student's map is fused with what the stage
below it passed on: both are brought to one width (1x1 convolution), two maps
of attention in (0, 1) say how much of each is taken, and a 3x3 convolution
makes of the sum what is compared with the teacher's map of that stage. The
term 'review' is the hierarchical pooling loss summed over the stages (figure
3), verified against the figures of mdistiller; the fusion is by the paper.

Ours: BatchNorm after both convolutions as in the released heads; a student's
map is brought to the teacher's size before the fusion (nearest, or averaged
down); the paper's width of 512 is a field.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from kd_jax import losses
from kd_jax.align import maps
from kd_jax.methods import one_phase
from kd_jax.models.blocks import layers
from kd_jax.types import Array, Batch, Specs, Stats, Taps, Variables

_LEVELS = (4, 2, 1)  # heights of the pooled maps, weights 1/2, 1/4, 1/8


@dataclasses.dataclass(frozen=True)
class Method(one_phase.OnePhase):
  """Stages of the teacher against fused stages of the student.

  Attributes:
    terms: 'review', and 'kl' and 'ce' beside it.
    stages: taps that are compared, of both networks, from early to late.
    width: of the fused maps.
  """

  OWN: ClassVar[tuple[str, ...]] = ("review",)

  terms: tuple[str, ...] = OWN
  stages: tuple[str, ...] = one_phase.MAPS
  width: int = 256

  def __post_init__(self) -> None:
    super().__post_init__()
    self.positive("width")

  def reads(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The stages."""
    return tuple(self.stages), tuple(self.stages)

  def variables_of(
    self, key: Array, student: Specs, teacher: Specs
  ) -> Variables:
    """Parameters and batch statistics of the fusion."""
    xs = []
    for stage in self.stages:
      one_phase.check_maps(stage, "student", student)
      one_phase.check_maps(stage, "teacher", teacher)
      shape = student[stage].shape
      xs.append(jnp.zeros((1, *maps.grid_of(shape), shape[-1])))
    shapes = [
      (*maps.grid_of(teacher[s].shape), teacher[s].shape[-1])
      for s in self.stages
    ]
    return self._fusion(shapes).init(key, xs, train=False)

  def compare(
    self, variables: Variables, student: Taps, teacher: Taps, batch: Batch
  ) -> tuple[dict[str, Array], Stats]:
    """The sum over the stages."""
    del batch
    xs = [maps.as_map(student[stage]) for stage in self.stages]
    targets = [maps.as_map(teacher[stage]) for stage in self.stages]
    own = {k: variables[k] for k in ("params", "batch_stats")}
    fusion = self._fusion([t.shape[1:] for t in targets])
    ys, new = fusion.apply(own, xs, train=True, mutable=["batch_stats"])
    pairs = zip(ys, targets, strict=True)
    total = sum((hierarchical(*pair) for pair in pairs), jnp.zeros(()))
    return {"review": total}, {"batch_stats": new["batch_stats"]}

  def _fusion(self, shapes: Sequence[tuple[int, ...]]) -> Fusion:
    return Fusion(tuple(map(tuple, shapes)), self.width)


class Fusion(nn.Module):
  """Maps of the student, each with what the deeper ones have passed on.

  Attributes:
    shapes: (height, width, channels) of the teacher's maps, early to late.
    width: of what is passed on.
  """

  shapes: tuple[tuple[int, ...], ...]
  width: int

  @nn.compact
  def __call__(
    self, xs: Sequence[Array], *, train: bool
  ) -> list[Float[Array, "n h w c"]]:
    """One map of the teacher's shape per map of the student."""
    found: list[Array] = []
    passed: Array | None = None
    for index in reversed(range(len(xs))):
      *size, channels = self.shapes[index]
      x = self._conv(f"in{index}", self.width, 1, xs[index], train)
      x = _at(x, tuple(size))
      if passed is not None:
        above = _at(passed, tuple(size))
        both = jnp.concatenate([x, above], -1)
        share = layers.Conv(2, 1, name=f"attention{index}")(both)
        share = jax.nn.sigmoid(share)
        x = x * share[..., :1] + above * share[..., 1:]
      passed = x
      found.append(self._conv(f"out{index}", channels, 3, x, train))
    return found[::-1]

  def _conv(
    self, name: str, width: int, kernel: int, x: Array, train: bool
  ) -> Array:
    init = nn.initializers.he_uniform()
    conv = layers.Conv(
      width, kernel, use_bias=False, kernel_init=init, name=name
    )
    return layers.BatchNorm(name=f"{name}_norm")(conv(x), train=train)


def _at(x: Array, size: tuple[int, ...]) -> Array:
  """The map at another size: averaged down, or repeated."""
  if x.shape[1:3] == size:
    return x
  if size[0] <= x.shape[1] and size[1] <= x.shape[2]:
    return losses.adaptive_mean(x, size)
  shape = (x.shape[0], *size, x.shape[-1])
  return jax.image.resize(x, shape, "nearest")


def hierarchical(
  student: Float[Array, "n h w c"], teacher: Float[Array, "n h w c"]
) -> Float[Array, ""]:
  """Mean squared differences of two maps, and of both pooled to 4, 2 and 1.

  Weights 1, 1/2, 1/4, 1/8, divided by their sum; levels that are no smaller
  than the map are left out.
  """
  total, weights, weight = losses.mse(student, teacher), 1.0, 1.0
  for level in (level for level in _LEVELS if level < student.shape[1]):
    weight /= 2
    pair = (losses.adaptive_mean(x, (level, level)) for x in (student, teacher))
    total += weight * losses.mse(*pair)
    weights += weight
  return total / weights
