"""DenseNet (arXiv:1608.06993) with timm's names, widths and feature maps.

'stem' is at a stride of 2, in front of its pooling. 'blur' have an
anti-aliased pooling there, 'd' three 3x3 convolutions. Initialisation:
convolutions N(0, 2 / (k k c_in)), linear layers PyTorch's.
"""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models import backbone
from kd_jax.models.blocks import layers, strides
from kd_jax.types import STAGES

_121 = (6, 12, 24, 16)
VARIANTS: dict[str, dict[str, Any]] = {
  "densenet121": {},
  "densenetblur121d": {"stem_type": "deep", "aa_layer": "blur"},
  "densenet169": {"block_config": (6, 12, 32, 32)},
  "densenet201": {"block_config": (6, 12, 48, 32)},
  "densenet161": {"growth_rate": 48, "block_config": (6, 12, 36, 24)},
  "densenet264d": {
    "growth_rate": 48,
    "block_config": (6, 12, 64, 48),
    "stem_type": "deep",
  },
}

_LAYER = ("features.denseblock{k}.denselayer{i}", "params/stage{k}/layer{i}")
RULES = (
  ("features.conv{i}.weight", "params/stem/conv{i}/kernel", "conv"),
  ("features.norm5", "params/stage4/norm5", "norm"),
  ("features.norm{i}", "params/stem/norm{i}", "norm"),
  (f"{_LAYER[0]}.norm{{j}}", f"{_LAYER[1]}/norm{{j}}", "norm"),
  (f"{_LAYER[0]}.conv{{j}}.weight", f"{_LAYER[1]}/conv{{j}}/kernel", "conv"),
  *(
    (f"features.transition{k}.{theirs}", f"params/stage{k + 1}/{ours}", layout)
    for k in (1, 2, 3)
    for theirs, ours, layout in (
      ("norm", "norm", "norm"),
      ("conv.weight", "conv/kernel", "conv"),
    )
  ),
  ("classifier", "params/head", "dense"),
)

_conv = functools.partial(layers.Conv, kernel_init=initializers.he_normal())


class Stem(nn.Module):
  """One 7x7 convolution, or three 3x3 ones.

  Attributes:
    widths: their channels.
    dtype: compute dtype.
  """

  widths: tuple[int, ...]
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """A map at a stride of 2."""
    size = 7 if len(self.widths) == 1 else 3
    for i, width in enumerate(self.widths):
      conv = _conv(
        width, size, 1 if i else 2, dtype=self.dtype, name=f"conv{i}"
      )
      norm = layers.BatchNorm(self.dtype, name=f"norm{i}")
      x = nn.relu(norm(conv(x), train=train))
    return x


class Layer(nn.Module):
  """What one layer adds to the channels.

  Attributes:
    growth: number of new channels.
    width: of the bottleneck.
    dtype: compute dtype.
  """

  growth: int
  width: int
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n h w d"]:
    """The new channels."""
    for i, (width, size) in enumerate(((self.width, 1), (self.growth, 3)), 1):
      norm = layers.BatchNorm(self.dtype, name=f"norm{i}")
      x = nn.relu(norm(x, train=train))
      x = _conv(width, size, dtype=self.dtype, name=f"conv{i}")(x)
    return x


class Stage(nn.Module):
  """A step to half the size, then layers.

  Attributes:
    depth: number of layers.
    layer: fields of each.
    halve: a transition comes first; else the pooling of the stem.
    aa: pooling in place of that one's stride, see `strides.POOLS`; '': none.
    last: end with a normalisation.
  """

  depth: int
  layer: dict[str, Any]
  halve: bool
  aa: str
  last: bool

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> tuple[Float[Array, "n y x d"], Float[Array, "n y x d"]]:
    """The map, and the same before its last activation."""
    dtype = self.layer["dtype"]
    if self.halve:
      norm = layers.BatchNorm(dtype, name="norm")
      x = nn.relu(norm(x, train=train))
      x = _conv(x.shape[-1] // 2, dtype=dtype, name="conv")(x)
      x = strides.average(x)
    elif self.aa:
      sides: Any = ((1, 1), (1, 1))
      x = nn.max_pool(x, (3, 3), (1, 1), sides)
      x = strides.POOLS[self.aa](x)
    else:
      x = layers.max_pool(x)
    for i in range(self.depth):
      new = Layer(**self.layer, name=f"layer{i + 1}")(x, train=train)
      x = jnp.concatenate([x, new], -1)
    if not self.last:
      return x, x
    before = layers.BatchNorm(dtype, name="norm5")(x, train=train)
    return nn.relu(before), before


class Model(backbone.Backbone):
  """DenseNet family; `VARIANTS` lists the named members.

  Attributes:
    interpolation: see `Backbone`.
    growth_rate: channels that a layer adds.
    block_config: layers of the stages.
    bn_size: width of a bottleneck over `growth_rate`.
    stem_type: '' or 'deep'.
    aa_layer: anti-aliasing of the stem's pooling, a name of `strides.POOLS`.
  """

  interpolation: str = "bicubic"
  growth_rate: int = 32
  block_config: tuple[int, ...] = _121
  bn_size: int = 4
  stem_type: str = ""
  aa_layer: str = ""

  def __post_init__(self) -> None:
    super().__post_init__()
    backbone.positive("block_config", self.block_config, 4)
    backbone.one_of("stem_type", self.stem_type, ("", "deep"))
    backbone.one_of("aa_layer", self.aa_layer, ("", *strides.POOLS))

  @property
  def num_features(self) -> int:
    """Width of the tap 'pooled'."""
    width = 2 * self.growth_rate
    for i, depth in enumerate(self.block_config):
      width = (width // 2 if i else width) + depth * self.growth_rate
    return width * layers.pool_factor(self.global_pool)

  def run_stage(
    self, stage: str, x: Array, *, train: bool
  ) -> tuple[Array, dict[str, Array]]:
    """See `Backbone.run_stage`; 'feature' comes with 'stage4'."""
    if stage == "head":
      init = layers.torch_linear_init(x.shape[-1])
      return backbone.classify(self, x, kernel_init=init)
    growth = self.growth_rate
    if stage == "stem":
      deep = self.stem_type == "deep"
      widths = (growth, growth, 2 * growth) if deep else (2 * growth,)
      x = Stem(widths, self.dtype, name="stem")(x, train=train)
      return x, {stage: x}
    k = STAGES.index(stage) - 1
    width = self.bn_size * growth
    layer = Stage(
      self.block_config[k],
      {"growth": growth, "width": width, "dtype": self.dtype},
      halve=k > 0,
      aa=self.aa_layer,
      last=k == 3,
      name=stage,
    )
    x, before = layer(x, train=train)
    if k == 3:
      return x, {stage: x, **backbone.before_activation(before)}
    return x, {stage: x}
