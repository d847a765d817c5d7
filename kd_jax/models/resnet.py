"""ResNet (arXiv:1512.03385), Wide ResNet (1605.07146), ResNeXt (1611.05431).

Names, hyper-parameters and feature maps are timm's; the stride sits in the 3x3
convolution. Initialisation: convolutions N(0, 2 / (k k c_out)), normalisation
scale 1, classifier as PyTorch's linear layer.

Example:
  model = create_model("resnet18", num_classes=0)
  variables = model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
  maps = model.apply(variables, images, end="stage4")
"""

from __future__ import annotations

from typing import Any

from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models import backbone, layers


def _variant(*sizes: int, block: str = "bottleneck", **more: Any) -> dict:
  return {"layers": sizes, "block": block, **more}


VARIANTS = {
  "resnet18": _variant(2, 2, 2, 2, block="basic"),
  "resnet34": _variant(3, 4, 6, 3, block="basic"),
  "resnet26": _variant(2, 2, 2, 2),
  "resnet50": _variant(3, 4, 6, 3),
  "resnet101": _variant(3, 4, 23, 3),
  "resnet152": _variant(3, 8, 36, 3),
  "wide_resnet50_2": _variant(3, 4, 6, 3, base_width=128),
  "wide_resnet101_2": _variant(3, 4, 23, 3, base_width=128),
  "resnext50_32x4d": _variant(3, 4, 6, 3, cardinality=32, base_width=4),
  "resnext101_32x4d": _variant(3, 4, 23, 3, cardinality=32, base_width=4),
  "resnext101_32x8d": _variant(3, 4, 23, 3, cardinality=32, base_width=8),
  "resnext101_32x16d": _variant(3, 4, 23, 3, cardinality=32, base_width=16),
  "resnext101_32x32d": _variant(3, 4, 23, 3, cardinality=32, base_width=32),
  "resnext101_64x4d": _variant(3, 4, 23, 3, cardinality=64, base_width=4),
}

_BLOCK = "params/stage{s}/block{b}/"
RULES = (
  ("conv1.weight", "params/stem/conv1/kernel", "conv"),
  ("bn1", "params/stem/bn1", "norm"),
  ("layer{s}.{b}.conv{c}.weight", _BLOCK + "conv{c}/kernel", "conv"),
  ("layer{s}.{b}.bn{c}", _BLOCK + "bn{c}", "norm"),
  ("layer{s}.{b}.downsample.0.weight", _BLOCK + "downsample/kernel", "conv"),
  ("layer{s}.{b}.downsample.1", _BLOCK + "downsample_bn", "norm"),
  ("fc.weight", "params/head/kernel", "linear"),
  ("fc.bias", "params/head/bias", "copy"),
)
"""(timm name, path here, layout), see `kd_jax.convert.rules`."""

_EXPANSION = {"basic": 1, "bottleneck": 4}


class Block(nn.Module):
  """One residual block, without its final ReLU.

  Attributes:
    kind: 'basic' (3x3, 3x3) or 'bottleneck' (1x1, 3x3, 1x1).
    channels: base width of the stage.
    width: channels of the 3x3 convolution.
    groups: groups of the 3x3 convolution of a bottleneck.
    stride: stride of the first 3x3 convolution.
    dilation: dilation of the blocks of this stage.
    first_dilation: dilation of the first 3x3 convolution.
    drop_path: probability of dropping the branch.
    zero_init_last: start the last normalisation scale at 0.
    dtype: compute dtype.
  """

  kind: str
  channels: int
  width: int
  groups: int
  stride: int
  dilation: int
  first_dilation: int
  drop_path: float
  zero_init_last: bool
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """Shortcut plus branch."""
    out = self.channels * _EXPANSION[self.kind]
    zero = initializers.zeros if self.zero_init_last else initializers.ones
    convs = self._convs(out)
    y = x
    for i, fields in enumerate(convs, 1):
      last = i == len(convs)
      y = layers.Conv(**fields, dtype=self.dtype, name=f"conv{i}")(y)
      scale = zero if last else initializers.ones
      norm = layers.BatchNorm(self.dtype, scale, name=f"bn{i}")
      y = norm(y, train=train)
      y = y if last else nn.relu(y)
    if self.drop_path:
      y = layers.DropPath(self.drop_path)(y, train=train)
    return self._shortcut(x, out, train) + y

  def _shortcut(self, x: Array, out: int, train: bool) -> Array:
    if self.stride == 1 and x.shape[-1] == out:
      return x
    conv = layers.Conv(
      out, stride=self.stride, dtype=self.dtype, name="downsample"
    )
    norm = layers.BatchNorm(self.dtype, name="downsample_bn")
    return norm(conv(x), train=train)

  def _convs(self, out: int) -> tuple[dict[str, int], ...]:
    first = {"size": 3, "stride": self.stride, "dilation": self.first_dilation}
    if self.kind == "basic":
      return (
        {"features": self.width, **first},
        {"features": out, "size": 3, "dilation": self.dilation},
      )
    return (
      {"features": self.width},
      {"features": self.width, "groups": self.groups, **first},
      {"features": out},
    )


class Stem(nn.Module):
  """First convolution, normalisation and ReLU.

  Attributes:
    features: number of output channels.
    size: width of the window.
    stride: step in pixels.
    dtype: compute dtype.
  """

  features: int
  size: int
  stride: int
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w 3"], *, train: bool
  ) -> Float[Array, "n y x c"]:
    """Applies the three."""
    conv = layers.Conv(
      self.features, self.size, self.stride, dtype=self.dtype, name="conv1"
    )
    norm = layers.BatchNorm(self.dtype, name="bn1")
    return nn.relu(norm(conv(x), train=train))


class Stage(nn.Module):
  """Blocks of one resolution.

  Attributes:
    blocks: the fields of each `Block`.
    pool: begin with the 3x3 max pooling of stride 2.
  """

  blocks: tuple[dict[str, Any], ...]
  pool: bool

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> tuple[Float[Array, "n y x d"], Float[Array, "n y x d"]]:
    """Returns the map after and before the last ReLU."""
    x = before = layers.max_pool(x) if self.pool else x
    for i, fields in enumerate(self.blocks):
      before = Block(**fields, name=f"block{i}")(x, train=train)
      x = nn.relu(before)
    return x, before


class Model(backbone.ConvNet):
  """ResNet family; `VARIANTS` lists the named members.

  Attributes:
    layers: number of blocks per stage.
    channels: base width per stage; a bottleneck emits 4 times as many.
    stem_width: channels of the first convolution, whatever `channels` says;
      timm's plain stem has always 64.
    block: 'basic' or 'bottleneck'.
    cardinality: groups of the 3x3 convolution of a bottleneck.
    base_width: width per group at 64 channels.
    stem_type: '' (7x7 of stride 2, then max pooling) or 'cifar' (3x3 of
      stride 1, no pooling).
    zero_init_last: start each block as the identity (timm's default; KDEP
      does not).
  """

  layers: tuple[int, ...] = (2, 2, 2, 2)
  channels: tuple[int, ...] = (64, 128, 256, 512)
  block: str = "basic"
  cardinality: int = 1
  base_width: int = 64
  stem_width: int = 64
  stem_type: str = ""
  zero_init_last: bool = False

  def __post_init__(self) -> None:
    super().__post_init__()
    backbone.one_of("block", self.block, tuple(_EXPANSION))
    backbone.one_of("stem_type", self.stem_type, ("", "cifar"))
    backbone.positive("layers", self.layers, 4)
    backbone.positive("channels", self.channels, 4)
    if self.stem_width < 1:
      raise ValueError(f"stem_width is {self.stem_width}; it must be > 0")
    wide = (self.cardinality, self.base_width) != (1, 64)
    if self.block == "basic" and wide:
      raise ValueError(
        "basic blocks have cardinality=1 and base_width=64, got "
        f"{self.cardinality} and {self.base_width}. Use block='bottleneck'."
      )

  @property
  def num_features(self) -> int:
    """Width of the tap 'pooled'."""
    width = self.channels[-1] * _EXPANSION[self.block]
    return width * layers.pool_factor(self.global_pool)

  def run_stage(
    self, stage: str, x: Array, *, train: bool
  ) -> tuple[Array, dict[str, Array]]:
    """See `Backbone.run_stage`; 'feature' comes with 'stage4'."""
    if stage == "stem":
      size, stride = (3, 1) if self.stem_type == "cifar" else (7, 2)
      stem = Stem(self.stem_width, size, stride, self.dtype, name="stem")
      x = stem(x, train=train)
      return x, {"stem": x}
    if stage == "head":
      init = layers.torch_linear_init(self.num_features)
      return backbone.classify(self, x, kernel_init=init, bias_init=init)
    index = int(stage[-1]) - 1
    pool = index == 0 and self.stem_type != "cifar"
    blocks = _plan(self)[index]
    x, before = Stage(blocks, pool, name=stage)(x, train=train)
    last = {"feature": before.mean((1, 2))} if index == 3 else {}
    return x, {stage: x, **last}


def _plan(model: Model) -> list[tuple[dict[str, Any], ...]]:
  """The fields of every block, per stage; dilation as in timm."""
  total = sum(model.layers)
  net_stride, dilation, before, done, plan = 4, 1, 1, 0, []
  for index, (depth, channels) in enumerate(
    zip(model.layers, model.channels, strict=True)
  ):
    stride = 1 if index == 0 else 2
    if net_stride >= model.output_stride:
      dilation, stride = dilation * stride, 1
    net_stride *= stride
    blocks = []
    for b in range(depth):
      blocks.append(
        {
          "kind": model.block,
          "channels": channels,
          "width": channels * model.base_width // 64 * model.cardinality,
          "groups": model.cardinality,
          "stride": stride if b == 0 else 1,
          "dilation": dilation,
          "first_dilation": before,
          "drop_path": model.drop_path_rate * done / max(total - 1, 1),
          "zero_init_last": model.zero_init_last,
          "dtype": model.dtype,
        }
      )
      before, done = dilation, done + 1
    plan.append(tuple(blocks))
  return plan
