"""LightlyTrain's second published form: dense features by mean squared error.

The target is the maps of the teacher's last two blocks, joined by channel; the
student's last map goes through a linear layer, or an MLP with LayerNorm and
GELU, and is resized to the teacher's grid (bilinear). From the public
description; the loss is checked against NumPy.

Ours: which taps are the last two is a field (stages here, blocks of a plain
transformer such as ('block10', 'block11')).
"""

from __future__ import annotations

import dataclasses
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


@dataclasses.dataclass(frozen=True)
class Method(one_phase.OnePhase):
  """Mean squared error of maps.

  Attributes:
    terms: 'dense', and 'kl' and 'ce' beside it.
    student: tap, a map or tokens.
    teacher: taps, maps or tokens; the grid is that of the last one.
    hidden: width of the MLP (2048 there); 0 is a linear layer.
  """

  OWN: ClassVar[tuple[str, ...]] = ("dense",)

  terms: tuple[str, ...] = OWN
  student: str = "stage4"
  teacher: tuple[str, ...] = ("stage3", "stage4")
  hidden: int = 0

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.hidden < 0 or not self.teacher:
      raise ValueError(
        f"method.hidden is {self.hidden} and teacher={self.teacher}; give at "
        "least 0, and at least one tap"
      )

  def reads(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A map of the student, several of the teacher."""
    return (self.student,), tuple(self.teacher)

  def variables_of(
    self, key: Array, student: Specs, teacher: Specs
  ) -> Variables:
    """Parameters of the head."""
    one_phase.check_maps(self.student, "student", student)
    for tap in self.teacher:
      one_phase.check_maps(tap, "teacher", teacher)
    width = sum(teacher[tap].shape[-1] for tap in self.teacher)
    x = jnp.zeros((1, 1, 1, student[self.student].shape[-1]))
    return {"params": Head(width, self.hidden).init(key, x)["params"]}

  def compare(
    self, variables: Variables, student: Taps, teacher: Taps, batch: Batch
  ) -> tuple[dict[str, Array], Stats]:
    """Mean over all entries."""
    del batch
    found = [maps.as_map(teacher[tap]) for tap in self.teacher]
    size = found[-1].shape[1:3]
    target = jnp.concatenate([resized(x, size) for x in found], -1)
    head = Head(target.shape[-1], self.hidden)
    own = {"params": variables["params"]}
    # Of several types, apply's here is an array: nothing is mutable.
    y = jnp.asarray(head.apply(own, maps.as_map(student[self.student])))
    return {"dense": losses.mse(resized(y, size), target)}, {}


class Head(nn.Module):
  """To the teacher's width, at every position; thrown away afterwards.

  Attributes:
    width: the teacher's.
    hidden: of the layer between; 0 has none.
  """

  width: int
  hidden: int = 0

  @nn.compact
  def __call__(self, x: Float[Array, "*n s"]) -> Float[Array, "*n d"]:
    """Linear, or linear, LayerNorm, GELU, linear."""
    start = nn.initializers.truncated_normal(0.02)
    if self.hidden:
      x = nn.Dense(self.hidden, kernel_init=start, name="hidden")(x)
      x = layers.layer_norm(1e-5, None, "norm")(x)
      x = jax.nn.gelu(x, approximate=False)
    return nn.Dense(self.width, kernel_init=start, name="out")(x)


def resized(
  x: Float[Array, "n h w c"], size: tuple[int, ...]
) -> Float[Array, "n y x c"]:
  """Bilinear, without blurring where it shrinks, or as it is."""
  if x.shape[1:3] == size:
    return x
  shape = (x.shape[0], *size, x.shape[-1])
  return jax.image.resize(x, shape, "linear", antialias=False)
