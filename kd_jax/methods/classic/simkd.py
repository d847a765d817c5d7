"""SimKD: the teacher's classifier, reused (Chen et al., CVPR 2022).

A projector brings the student's last map to the teacher's width; the term
'feature' is the mean squared difference of the two maps (equation 3), and the
teacher's own classifier reads the projected map: no logits are learnt. The
projector is a bottleneck of 1x1, 3x3 and 1x1 convolutions with BatchNorm and
ReLU, its inner width the teacher's divided by `factor` (2 in the paper). From
the paper; the loss is checked against NumPy.

Ours: the larger map is averaged down. What is kept is the student's backbone;
the figure 'agreement' says how often the teacher's classifier finds the same
class in both maps.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from kd_jax import losses
from kd_jax.align import maps
from kd_jax.methods import one_phase
from kd_jax.methods.classic import sizes
from kd_jax.models.blocks import layers
from kd_jax.types import (
  Array,
  Batch,
  Specs,
  Stats,
  Taps,
  Teacher,
  Variables,
)


@dataclasses.dataclass(frozen=True)
class Method(one_phase.OnePhase):
  """Mean squared error of the last maps after a projector.

  Attributes:
    terms: 'feature', and 'kl' and 'ce' beside it.
    tap: of both networks, a map or tokens: what their heads pool.
    factor: the projector's inner width is the teacher's divided by this.
  """

  OWN: ClassVar[tuple[str, ...]] = ("feature",)

  terms: tuple[str, ...] = OWN
  tap: str = "stage4"
  factor: int = 2

  def __post_init__(self) -> None:
    super().__post_init__()
    self.positive("factor")

  def reads(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The same tap of both."""
    return (self.tap,), (self.tap,)

  def variables_of(
    self, key: Array, student: Specs, teacher: Specs
  ) -> Variables:
    """Parameters and batch statistics of the projector."""
    one_phase.check_maps(self.tap, "student", student)
    one_phase.check_maps(self.tap, "teacher", teacher)
    width = teacher[self.tap].shape[-1]
    size = maps.grid_of(student[self.tap].shape)
    x = jnp.zeros((1, *size, student[self.tap].shape[-1]))
    return Projector(width, self.factor).init(key, x, train=False)

  def compare(
    self, variables: Variables, student: Taps, teacher: Taps, batch: Batch
  ) -> tuple[dict[str, Array], Stats]:
    """Mean over all entries."""
    del batch
    x, target = sizes.smaller(
      maps.as_map(student[self.tap]), maps.as_map(teacher[self.tap])
    )
    y, stats = self._project(variables, x, target.shape[-1], train=True)
    return {"feature": losses.mse(y, target)}, {"batch_stats": stats}

  def metrics(
    self, variables: Variables, taps: Taps, teacher: Teacher, batch: Batch
  ) -> dict[str, tuple[Array, Array]]:
    """'agreement' of the teacher's classifier, where its network runs."""
    del batch
    if teacher.resume is None or self.tap != "stage4":
      return {}
    x = one_phase.wide(maps.as_map(taps[self.tap]))
    target = teacher.taps[self.tap]
    y, _ = self._project(variables, x, target.shape[-1], train=False)
    if target.ndim != 4 or y.shape != target.shape:
      return {}
    ours, theirs = (
      jnp.argmax(teacher.resume("head", z)["logits"], -1) for z in (y, target)
    )
    same = (ours == theirs).astype(jnp.float32)
    return {"agreement": (same, jnp.ones(same.shape))}

  def _project(
    self, variables: Variables, x: Array, width: int, *, train: bool
  ) -> tuple[Array, Any]:
    own = {k: variables[k] for k in ("params", "batch_stats")}
    made = Projector(width, self.factor)
    y, new = made.apply(own, x, train=train, mutable=["batch_stats"])
    return y, new["batch_stats"]


class Projector(nn.Module):
  """(n, h, w, s) of the student -> (n, h, w, width), not negative.

  Attributes:
    width: the teacher's.
    factor: how much narrower the middle is.
  """

  width: int
  factor: int = 2

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w s"], *, train: bool
  ) -> Float[Array, "n h w d"]:
    """Three convolutions, each with BatchNorm and ReLU."""
    inner = max(self.width // self.factor, 1)
    for index, (width, kernel) in enumerate(
      ((inner, 1), (inner, 3), (self.width, 1))
    ):
      init = nn.initializers.he_normal()
      conv = layers.Conv(
        width, kernel, use_bias=False, kernel_init=init, name=f"conv{index}"
      )
      x = layers.BatchNorm(name=f"norm{index}")(conv(x), train=train)
      x = jax.nn.relu(x)
    return x
