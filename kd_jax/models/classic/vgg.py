"""VGG (arXiv:1409.1556) with timm's names, widths and feature maps.

'stem' is at a stride of 2, the map in front of the second pooling; 'stage3' is
in front of the last pooling, and 'stage4' behind it, without parameters. Two
wide layers, `neck`, come before global pooling; smaller maps than theirs are
stretched, as in timm.
Initialisation: convolutions N(0, 2 / (k k c_out)), linear layers N(0, 0.01).
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models import backbone
from kd_jax.models.blocks import layers
from kd_jax.types import STAGES

WIDTHS = (64, 128, 256, 512, 512)
_DEPTHS = {
  "vgg11": (1, 1, 2, 2, 2),
  "vgg13": (2, 2, 2, 2, 2),
  "vgg16": (2, 2, 3, 3, 3),
  "vgg19": (2, 2, 4, 4, 4),
}
VARIANTS: dict[str, dict[str, Any]] = {
  **{name: {"depths": depths} for name, depths in _DEPTHS.items()},
  **{
    f"{name}_bn": {"depths": depths, "batch_norm": True}
    for name, depths in _DEPTHS.items()
  },
}

RULES = (
  *(
    ("features.{i}", f"params/{stage}/{kind}{{i}}", layout)
    for stage in STAGES[:-1]
    for kind, layout in (("conv", "conv2d"), ("bn", "norm"))
  ),
  ("pre_logits.fc{i}", "params/neck/fc{i}", "conv2d"),
  ("head.fc", "params/head", "dense"),
)
SIZE = 7
"""Width of the window of the first layer of `neck`."""


class Chain(nn.Module):
  """Convolutions, with poolings between groups of them.

  Attributes:
    groups: (number in timm, width) of every convolution, group by group.
    first: begin with a pooling.
    last: end with one.
    normed: batch normalisation after every convolution.
    dtype: compute dtype.
  """

  groups: tuple[tuple[tuple[int, int], ...], ...]
  first: bool
  last: bool
  normed: bool
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """The last map."""
    for i, group in enumerate(self.groups):
      if i or self.first:
        x = _halve(x)
      for number, width in group:
        fields = {"use_bias": True, "dtype": self.dtype}
        x = layers.Conv(width, 3, **fields, name=f"conv{number}")(x)
        if self.normed:
          norm = layers.BatchNorm(self.dtype, name=f"bn{number + 1}")
          x = norm(x, train=train)
        x = nn.relu(x)
    return _halve(x) if self.last else x


class Neck(nn.Module):
  """Two layers before global pooling.

  Attributes:
    width: outputs of both.
    dtype: compute dtype.
  """

  width: int
  dtype: layers.Dtype

  @nn.compact
  def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n y x d"]:
    """A map that is smaller by `SIZE` - 1."""
    x = stretched(x, SIZE)
    fields = {"dtype": self.dtype, "kernel_init": layers.kaiming_fan_out}
    size = (SIZE, SIZE)
    conv = nn.Conv(self.width, size, padding="VALID", **fields, name="fc1")
    x = nn.relu(conv(x))
    return nn.relu(nn.Conv(self.width, (1, 1), **fields, name="fc2")(x))


def _halve(x: Array) -> Array:
  return nn.max_pool(x, (2, 2), (2, 2))


def stretched(
  x: Float[Array, "n h w c"], least: int
) -> Float[Array, "n y x c"]:
  """Sides below `least` become as long, by averages of what they cover."""
  for axis in (1, 2):
    length = x.shape[axis]
    if length >= least:
      continue
    matrix = np.zeros((least, length))
    for i in range(least):
      start, end = i * length // least, -(-(i + 1) * length // least)
      matrix[i, start:end] = 1 / (end - start)
    moved = jnp.moveaxis(x, axis, -1) @ jnp.asarray(matrix.T, x.dtype)
    x = jnp.moveaxis(moved, -1, axis)
  return x


class Model(backbone.Backbone):
  """VGG family; `VARIANTS` lists the named members.

  It emits 'final' with the head: the map that global pooling reads.

  Attributes:
    depths: convolutions of the five groups.
    widths: their channels.
    head_width: of the two layers before pooling.
    batch_norm: batch normalisation after every convolution.
  """

  depths: tuple[int, ...] = (2, 2, 3, 3, 3)
  widths: tuple[int, ...] = WIDTHS
  head_width: int = 4096
  batch_norm: bool = False

  def __post_init__(self) -> None:
    super().__post_init__()
    backbone.positive("depths", self.depths, 5)
    backbone.positive("widths", self.widths, 5)

  @property
  def num_features(self) -> int:
    """Width of the tap 'pooled'."""
    return self.head_width * layers.pool_factor(self.global_pool)

  def run_stage(
    self, stage: str, x: Array, *, train: bool
  ) -> tuple[Array, dict[str, Array]]:
    """See `Backbone.run_stage`; 'feature' comes with 'stage4'."""
    if stage == "head":
      final = Neck(self.head_width, self.dtype, name="neck")(x)
      inits = {"kernel_init": initializers.normal(0.01)}
      logits, taps = backbone.classify(self, final, **inits)
      return logits, {"final": final, **taps}
    groups, k = self._groups(), STAGES.index(stage)
    layer = Chain(
      groups[:2] if k == 0 else groups[k + 1 : k + 2],
      first=0 < k < 4,
      last=k == 4,
      normed=self.batch_norm,
      dtype=self.dtype,
      name=stage,
    )
    x = layer(x, train=train)
    if k == 4:
      return x, {stage: x, "feature": x.mean((1, 2))}
    return x, {stage: x}

  def _groups(self) -> tuple[tuple[tuple[int, int], ...], ...]:
    """See `Chain.groups`; timm counts activations and poolings, too."""
    number, groups = 0, []
    for depth, width in zip(self.depths, self.widths, strict=True):
      step = 3 if self.batch_norm else 2
      groups.append(tuple((number + i * step, width) for i in range(depth)))
      number += depth * step + 1
    return tuple(groups)
