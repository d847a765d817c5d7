"""BiT: pre-activation ResNets of Big Transfer (arXiv:1912.11370).

Group normalisation (1803.08494) and convolutions with standardised weights
(1903.10520). Names, hyper-parameters and feature maps are timm's: 'stem' is
the first convolution alone, and the stages end without activation; what is
pooled, the normalised last map, is the tap 'final'. Initialisation:
convolutions N(0, 2 / (k k c_out)), classifier N(0, 0.01^2), biases 0.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen import dtypes
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models import backbone
from kd_jax.models.blocks import convolutions, layers, pooling, strides

HALF = (0.5, 0.5, 0.5)


def _variant(
  *sizes: int, width: int, **more: backbone.FieldValue
) -> dict[str, Any]:
  return {"layers": sizes, "width_factor": width, **more}


def _large(size: int) -> dict[str, Any]:
  return {"crop_pct": 1.0, "input_size": (3, size, size)}


_BICUBIC = {"interpolation": "bicubic"}

VARIANTS = {
  "resnetv2_50x1_bit": _variant(3, 4, 6, 3, width=1, **_BICUBIC),
  "resnetv2_50x3_bit": _variant(3, 4, 6, 3, width=3, **_large(448)),
  "resnetv2_101x1_bit": _variant(3, 4, 23, 3, width=1, **_large(448)),
  "resnetv2_101x3_bit": _variant(3, 4, 23, 3, width=3, **_large(448)),
  "resnetv2_152x2_bit": _variant(3, 8, 36, 3, width=2, **_BICUBIC),
  "resnetv2_152x4_bit": _variant(3, 8, 36, 3, width=4, **_large(480)),
}


def _block_rules(stage: int) -> tuple[tuple[str, str, str], ...]:
  theirs = f"stages.{stage - 1}.blocks.{{b}}."
  ours = f"params/stage{stage}/block{{b}}/"
  return (
    (theirs + "conv{c}.weight", ours + "conv{c}/kernel", "conv"),
    (theirs + "norm{c}", ours + "norm{c}", "affine"),
    (theirs + "downsample.conv.weight", ours + "downsample/kernel", "conv"),
  )


RULES = (
  ("stem.conv.weight", "params/stem/kernel", "conv"),
  *(rule for stage in (1, 2, 3, 4) for rule in _block_rules(stage)),
  ("norm", "params/neck", "affine"),
  ("head.fc.weight", "params/head/kernel", "pointwise"),
  ("head.fc.bias", "params/head/bias", "copy"),
)
"""(timm name, path here, layout), see `kd_jax.convert.rules`."""


class StdConv(nn.Module):
  """Convolution whose filters are shifted and scaled to mean 0, variance 1.

  Attributes:
    features: number of output channels.
    size: width of the window, odd.
    stride: step in pixels.
    dilation: distance of neighbouring weights.
    dtype: compute dtype; None promotes input and parameters. The filters are
      standardised in float32 or wider.
    same: see `layers.Conv`.
  """

  features: int
  size: int = 1
  stride: int = 1
  dilation: int = 1
  dtype: layers.Dtype = None
  same: bool = False

  @nn.compact
  def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n y x o"]:
    """Applies the convolution; pads so that stride 1 keeps the size."""
    shape = (self.size, self.size, x.shape[-1], self.features)
    init = layers.kaiming_fan_out
    kernel = self.param("kernel", init, shape, jnp.float32)
    centred = kernel - kernel.mean((0, 1, 2))
    variance = jnp.square(centred).mean((0, 1, 2))
    kernel = centred * jax.lax.rsqrt(variance + 1e-8)
    x, kernel = dtypes.promote_dtype(x, kernel, dtype=self.dtype)
    padding = self.dilation * (self.size - 1) // 2
    if self.same:
      x = layers.same_pad(x, self.size, self.stride, self.dilation)
      padding = 0
    window = convolutions.Window(self.stride, self.dilation, padding)
    return convolutions.conv(x, kernel, window)


def group_norm(groups: int, dtype: layers.Dtype, name: str) -> nn.Module:
  """Group normalisation, eps 1e-5, statistics in float32 or wider."""
  return nn.GroupNorm(
    groups, epsilon=1e-5, dtype=dtype, use_fast_variance=False, name=name
  )


class Block(nn.Module):
  """Bottleneck that normalises and activates before each convolution.

  Attributes:
    features: number of output channels.
    stride: stride of the 3x3 convolution.
    dilation: its dilation.
    project: send the shortcut through a convolution.
    groups: of the normalisations.
    drop_path: probability of dropping the branch.
    dtype: compute dtype.
  """

  features: int
  stride: int
  dilation: int
  project: bool
  groups: int
  drop_path: float
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """Shortcut plus branch."""
    width = strides.divisible(self.features / 4)
    y = first = self._activate(x, 1)
    y = self._conv("conv1", width)(y)
    second = self._conv(
      "conv2", width, size=3, stride=self.stride, dilation=self.dilation
    )
    y = second(self._activate(y, 2))
    y = self._conv("conv3", self.features)(self._activate(y, 3))
    if self.drop_path:
      y = layers.DropPath(self.drop_path)(y, train=train)
    if self.project:
      x = self._conv("downsample", self.features, stride=self.stride)(first)
    return y + x

  def _activate(self, x: Array, index: int) -> Array:
    return nn.relu(group_norm(self.groups, self.dtype, f"norm{index}")(x))

  def _conv(
    self,
    name: str,
    features: int,
    *,
    size: int = 1,
    stride: int = 1,
    dilation: int = 1,
  ) -> StdConv:
    return StdConv(features, size, stride, dilation, self.dtype, name=name)


class Stage(nn.Module):
  """Blocks of one resolution.

  Attributes:
    blocks: the fields of each `Block`.
    pool: begin with 3x3 max pooling of stride 2, in which zeros around the
      map take part.
  """

  blocks: tuple[dict[str, Any], ...]
  pool: bool

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """The map of the last block."""
    if self.pool:
      x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
      x = pooling.max_pool(x, pooling.Pool(size=3, stride=2, padding=0))
    for i, fields in enumerate(self.blocks):
      x = Block(**fields, name=f"block{i}")(x, train=train)
    return x


class Model(backbone.ConvNet):
  """BiT family; `VARIANTS` lists the named members.

  Attributes:
    mean: see `Backbone`.
    std: see `Backbone`.
    layers: number of blocks per stage.
    channels: width per stage, before `width_factor`.
    stem_chs: channels of the first convolution, before `width_factor`.
    width_factor: factor of all widths, which are then rounded to 8.
    num_groups: groups of the normalisations; divides all widths, and a
      quarter of the stages'.
  """

  mean: tuple[float, ...] = HALF
  std: tuple[float, ...] = HALF
  layers: tuple[int, ...] = (3, 4, 6, 3)
  channels: tuple[int, ...] = (256, 512, 1024, 2048)
  stem_chs: int = 64
  width_factor: float = 1
  num_groups: int = 32

  def __post_init__(self) -> None:
    super().__post_init__()
    backbone.positive("layers", self.layers, 4)
    backbone.positive("channels", self.channels, 4)
    for name in ("stem_chs", "width_factor", "num_groups"):
      if not getattr(self, name) > 0:
        raise ValueError(f"{name} is {getattr(self, name)}; it must be > 0")
    widths = [self._width(c) for c in (self.stem_chs, *self.channels)]
    widths += [strides.divisible(w / 4) for w in widths[1:]]
    if any(w % self.num_groups for w in widths):
      raise ValueError(
        f"num_groups={self.num_groups} does not divide all of the widths "
        f"{widths}, which stem_chs, channels and width_factor make"
      )

  @property
  def num_features(self) -> int:
    """Width of the tap 'pooled'."""
    width = self._width(self.channels[-1])
    return width * layers.pool_factor(self.global_pool)

  def run_stage(
    self, stage: str, x: Array, *, train: bool
  ) -> tuple[Array, dict[str, Array]]:
    """See `Backbone.run_stage`; 'feature' and 'final' come with 'head'."""
    if stage == "stem":
      width = self._width(self.stem_chs)
      x = StdConv(width, 7, 2, dtype=self.dtype, name="stem")(x)
      return x, {"stem": x}
    if stage != "head":
      index = int(stage[-1]) - 1
      blocks = self._blocks(index)
      x = Stage(blocks, index == 0, name=stage)(x, train=train)
      return x, {stage: x}
    x = group_norm(self.num_groups, self.dtype, "neck")(x)
    final = nn.relu(x)
    logits, taps = backbone.classify(
      self,
      final,
      kernel_init=initializers.normal(0.01),
      bias_init=initializers.zeros,
    )
    return logits, {"feature": x.mean((1, 2)), "final": final, **taps}

  def _width(self, channels: int) -> int:
    return strides.divisible(channels * self.width_factor)

  def _blocks(self, index: int) -> tuple[dict[str, Any], ...]:
    """The fields of every block of a stage."""
    step = strides.steps(self.output_stride, net_stride=4)[index]
    rates = strides.drop_rates(self.drop_path_rate, self.layers)[index]
    return tuple(
      {
        "features": self._width(self.channels[index]),
        "stride": step.stride if b == 0 else 1,
        "dilation": step.first_dilation if b == 0 else step.dilation,
        "project": b == 0,
        "groups": self.num_groups,
        "drop_path": rate,
        "dtype": self.dtype,
      }
      for b, rate in enumerate(rates)
    )
