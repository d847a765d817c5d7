"""MobileNetV2 (arXiv:1801.04381) with timm's names, widths and feature maps.

Initialisation, as in KDEP: convolutions N(0, 2 / (k k c_out)), normalisation
scale 1, classifier weights N(0, 0.01^2) and biases 0.
"""

from __future__ import annotations

import math
from typing import Any

from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models import backbone, layers

VARIANTS = {
  "mobilenetv2_035": {"channel_multiplier": 0.35},
  "mobilenetv2_050": {"channel_multiplier": 0.5},
  "mobilenetv2_075": {"channel_multiplier": 0.75},
  "mobilenetv2_100": {"channel_multiplier": 1.0},
  "mobilenetv2_140": {"channel_multiplier": 1.4},
  "mobilenetv2_110d": {
    "channel_multiplier": 1.1,
    "depth_multiplier": 1.2,
    "fix_stem_head": True,
  },
  "mobilenetv2_120d": {
    "channel_multiplier": 1.2,
    "depth_multiplier": 1.4,
    "fix_stem_head": True,
  },
}

# (stage, channels, blocks, stride) of timm's blocks.0 .. blocks.6.
_STACKS = (
  ("stem", 16, 1, 1),
  ("stage1", 24, 2, 2),
  ("stage2", 32, 3, 2),
  ("stage3", 64, 4, 2),
  ("stage3", 96, 3, 1),
  ("stage4", 160, 3, 2),
  ("stage4", 320, 1, 1),
)
_EXPANSION = 6

RULES = (
  ("conv_stem.weight", "params/stem/conv/kernel", "conv"),
  ("bn1", "params/stem/bn", "norm"),
  *(
    (
      f"blocks.{s}.{{b}}.{conv}.weight",
      f"params/{stage}/block{s}_{{b}}/{conv}/kernel",
      "conv",
    )
    for s, (stage, *_) in enumerate(_STACKS)
    for conv in ("conv_pw", "conv_dw", "conv_pwl")
  ),
  *(
    (
      f"blocks.{s}.{{b}}.bn{{c}}",
      f"params/{stage}/block{s}_{{b}}/bn{{c}}",
      "norm",
    )
    for s, (stage, *_) in enumerate(_STACKS)
  ),
  ("conv_head.weight", "params/neck/conv/kernel", "conv"),
  ("bn2", "params/neck/bn", "norm"),
  ("classifier.weight", "params/head/kernel", "linear"),
  ("classifier.bias", "params/head/bias", "copy"),
)
"""(timm name, path here, layout), see `kd_jax.convert.rules`."""


class Block(nn.Module):
  """Inverted residual; without expansion where `expansion` is 1.

  Attributes:
    features: number of output channels.
    expansion: width of the depthwise convolution over that of the input.
    stride: stride of the depthwise convolution.
    dilation: its dilation.
    drop_path: probability of dropping the branch.
    dtype: compute dtype.
  """

  features: int
  expansion: int
  stride: int
  dilation: int
  drop_path: float
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """Branch, plus the input where the shapes agree."""
    width = x.shape[-1] * self.expansion
    depthwise = {"size": 3, "stride": self.stride, "dilation": self.dilation}
    steps = [("conv_dw", width, {**depthwise, "groups": width})]
    if self.expansion == 1:
      steps += [("conv_pw", self.features, {})]
    else:
      steps = [("conv_pw", width, {}), *steps, ("conv_pwl", self.features, {})]
    y = x
    for i, (name, features, fields) in enumerate(steps, 1):
      y = layers.Conv(features, **fields, dtype=self.dtype, name=name)(y)
      y = layers.BatchNorm(self.dtype, name=f"bn{i}")(y, train=train)
      y = nn.relu6(y) if i < len(steps) else y
    if self.stride != 1 or x.shape[-1] != self.features:
      return y
    if self.drop_path:
      y = layers.DropPath(self.drop_path)(y, train=train)
    return y + x


class Stage(nn.Module):
  """Blocks; the stem has a strided convolution in front of them.

  Attributes:
    blocks: (name, fields) of each `Block`.
    stem: fields of the first convolution, or None.
    dtype: compute dtype.
  """

  blocks: tuple[tuple[str, dict[str, Any]], ...]
  stem: dict[str, int] | None
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """The map of the last block."""
    if self.stem is not None:
      conv = layers.Conv(**self.stem, dtype=self.dtype, name="conv")
      norm = layers.BatchNorm(self.dtype, name="bn")
      x = nn.relu6(norm(conv(x), train=train))
    for name, fields in self.blocks:
      x = Block(**fields, dtype=self.dtype, name=name)(x, train=train)
    return x


class Neck(nn.Module):
  """The last 1x1 convolution and its normalisation, before ReLU6.

  Attributes:
    features: number of output channels.
    dtype: compute dtype.
  """

  features: int
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n h w d"]:
    """No activation."""
    conv = layers.Conv(self.features, dtype=self.dtype, name="conv")
    norm = layers.BatchNorm(self.dtype, name="bn")
    return norm(conv(x), train=train)


class Model(backbone.ConvNet):
  """MobileNetV2 family; `VARIANTS` lists the named members.

  Besides the common taps it emits 'final' with the head: the map after the
  last 1x1 convolution, which is what global pooling reads.

  Attributes:
    interpolation: see `Backbone`.
    channel_multiplier: factor of all widths, which are then rounded to 8.
    depth_multiplier: factor of the number of blocks, rounded up.
    fix_stem_head: leave the width of stem and neck, and the depth of the
      first and last group, as they are.
    stem_stride: stride of the first convolution; 1 suits tiny images.
  """

  interpolation: str = "bicubic"
  channel_multiplier: float = 1.0
  depth_multiplier: float = 1.0
  fix_stem_head: bool = False
  stem_stride: int = 2

  def __post_init__(self) -> None:
    super().__post_init__()
    backbone.one_of("stem_stride", self.stem_stride, (1, 2))
    for name in ("channel_multiplier", "depth_multiplier"):
      if not getattr(self, name) > 0:
        raise ValueError(f"{name} is {getattr(self, name)}; it must be > 0")

  @property
  def num_features(self) -> int:
    """Width of the tap 'pooled'."""
    return self._neck_width() * layers.pool_factor(self.global_pool)

  def run_stage(
    self, stage: str, x: Array, *, train: bool
  ) -> tuple[Array, dict[str, Array]]:
    """See `Backbone.run_stage`; 'feature' comes with 'head'."""
    if stage != "head":
      stem = self._stem() if stage == "stem" else None
      blocks = _plan(self)[stage]
      x = Stage(blocks, stem, self.dtype, name=stage)(x, train=train)
      return x, {stage: x}
    x = Neck(self._neck_width(), self.dtype, name="neck")(x, train=train)
    final = nn.relu6(x)
    logits, taps = backbone.classify(
      self,
      final,
      kernel_init=initializers.normal(0.01),
      bias_init=initializers.zeros,
    )
    return logits, {"feature": x.mean((1, 2)), "final": final, **taps}

  def _neck_width(self) -> int:
    if self.fix_stem_head:
      return 1280
    return max(1280, _round(1280 * self.channel_multiplier))

  def _stem(self) -> dict[str, int]:
    width = 32 if self.fix_stem_head else _round(32 * self.channel_multiplier)
    return {"features": width, "size": 3, "stride": self.stem_stride}


def _round(width: float) -> int:
  """The nearest multiple of 8 that loses at most a tenth."""
  rounded = max(8, int(width + 4) // 8 * 8)
  return rounded + 8 if rounded < 0.9 * width else rounded


def _depths(model: Model) -> list[int]:
  """Number of blocks of each group."""
  depths = [math.ceil(n * model.depth_multiplier) for _, _, n, _ in _STACKS]
  if model.fix_stem_head:
    depths[0], depths[-1] = _STACKS[0][2], _STACKS[-1][2]
  return depths


def _plan(model: Model) -> dict[str, list[tuple[str, dict[str, Any]]]]:
  """Name and fields of every block, per stage; dilation as in timm."""
  depths = _depths(model)
  net_stride, dilation, done = 2, 1, 0
  plan: dict[str, list[tuple[str, dict[str, Any]]]] = {}
  for s, (stage, width, _, step) in enumerate(_STACKS):
    for b in range(depths[s]):
      stride = step if b == 0 else 1
      dilate = net_stride * stride > model.output_stride
      fields = {
        "features": _round(width * model.channel_multiplier),
        "expansion": 1 if s == 0 else _EXPANSION,
        "stride": 1 if dilate else stride,
        "dilation": dilation,
        "drop_path": model.drop_path_rate * done / sum(depths),
      }
      plan.setdefault(stage, []).append((f"block{s}_{b}", fields))
      dilation *= stride if dilate else 1
      net_stride *= fields["stride"]
      done += 1
  return plan
