"""PP-HGNet and PP-HGNetV2, which RT-DETR uses (arXiv:2304.08069).

Names, widths and feature maps are timm's. 'stem' is at a stride of 4. A 1x1
convolution, `neck`, follows global pooling. Initialisation: convolutions
N(0, 2 / (k k c_out)), linear layers PyTorch's with biases 0.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models import backbone
from kd_jax.models.blocks import layers, strides
from kd_jax.types import STAGES


def _first(
  stem: tuple[int, ...],
  middle: tuple[int, ...],
  out: tuple[int, ...],
  depths: tuple[int, ...],
  count: int,
) -> dict[str, Any]:
  return {
    "stem_type": "v1",
    "stem_chs": stem,
    "middle": middle,
    "widths": out,
    "depths": depths,
    "layer_num": count,
    "light": (False,) * 4,
    "kernel_sizes": (3,) * 4,
  }


def _second(
  stem: tuple[int, int],
  middle: tuple[int, ...],
  out: tuple[int, ...],
  depths: tuple[int, ...],
  count: int,
  **more: backbone.FieldValue,
) -> dict[str, Any]:
  return {
    "stem_chs": stem,
    "middle": middle,
    "widths": out,
    "depths": depths,
    "layer_num": count,
    **more,
  }


_LAB: dict[str, Any] = {"use_lab": True}
_SHORT = (1, 1, 3, 1)
_WIDE = (128, 512, 1024, 2048)
VARIANTS = {
  "hgnet_tiny": _first(
    (48, 48, 96), (96, 128, 160, 192), (224, 448, 512, 768), (1, 1, 2, 1), 5
  ),
  "hgnet_small": _first(
    (64, 64, 128), (128, 160, 192, 224), (256, 512, 768, 1024), (1, 1, 2, 1), 6
  ),
  "hgnet_base": _first(
    (96, 96, 160), (192, 224, 256, 288), (320, 640, 960, 1280), (1, 2, 3, 2), 7
  ),
  "hgnetv2_b0": _second(
    (16, 16), (16, 32, 64, 128), (64, 256, 512, 1024), (1, 1, 2, 1), 3, **_LAB
  ),
  "hgnetv2_b1": _second(
    (24, 32), (32, 48, 96, 192), (64, 256, 512, 1024), (1, 1, 2, 1), 3, **_LAB
  ),
  "hgnetv2_b2": _second(
    (24, 32), (32, 64, 128, 256), (96, 384, 768, 1536), _SHORT, 4, **_LAB
  ),
  "hgnetv2_b3": _second((24, 32), (32, 64, 128, 256), _WIDE, _SHORT, 5, **_LAB),
  "hgnetv2_b4": _second((32, 48), (48, 96, 192, 384), _WIDE, _SHORT, 6),
  "hgnetv2_b5": _second((32, 64), (64, 128, 256, 512), _WIDE, (1, 2, 5, 2), 6),
  "hgnetv2_b6": _second(
    (48, 96), (96, 192, 384, 768), (192, 512, 1024, 2048), (2, 3, 6, 3), 6
  ),
}


def _unit(theirs: str, ours: str) -> tuple[tuple[str, str, str], ...]:
  """Timm's names of a `Unit`."""
  return (
    (f"{theirs}.conv.weight", f"{ours}/conv/kernel", "conv"),
    (f"{theirs}.bn", f"{ours}/bn", "norm"),
    (f"{theirs}.lab.scale", f"{ours}/lab/scale", "copy"),
    (f"{theirs}.lab.bias", f"{ours}/lab/bias", "copy"),
  )


def _stage(k: int) -> tuple[tuple[str, str, str], ...]:
  theirs, ours = f"stages.{k}", f"params/stage{k + 1}"
  block = f"{theirs}.blocks.{{b}}", f"{ours}/block{{b}}"
  return (
    *_unit(f"{theirs}.downsample", f"{ours}/down"),
    *_unit(f"{block[0]}.layers.{{i}}", f"{block[1]}/layer{{i}}"),
    *_unit(
      f"{block[0]}.layers.{{i}}.conv{{j}}", f"{block[1]}/layer{{i}}_{{j}}"
    ),
    *_unit(f"{block[0]}.aggregation.{{i}}", f"{block[1]}/sum{{i}}"),
    (f"{block[0]}.aggregation.1.conv", f"{block[1]}/gate", "conv2d"),
  )


RULES = (
  *_unit("stem.stem1", "params/stem/stem1"),
  *_unit("stem.stem{i}", "params/stem/stem{i}"),
  *_unit("stem.stem2a", "params/stem/stem2a"),
  *_unit("stem.stem2b", "params/stem/stem2b"),
  *_unit("stem.stem.{i}", "params/stem/first{i}"),
  *(rule for k in range(4) for rule in _stage(k)),
  ("head.last_conv.0.weight", "params/neck/dense/kernel", "pointwise"),
  ("head.last_conv.2.scale", "params/neck/lab/scale", "copy"),
  ("head.last_conv.2.bias", "params/neck/lab/bias", "copy"),
  ("head.fc", "params/head", "dense"),
)


class Lab(nn.Module):
  """s x + b, two numbers for all channels."""

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Elementwise; parameters `scale` and `bias`."""
    scale = self.param("scale", initializers.ones, (1,), jnp.float32)
    bias = self.param("bias", initializers.zeros, (1,), jnp.float32)
    return scale.astype(x.dtype) * x + bias.astype(x.dtype)


class Unit(nn.Module):
  """Convolution, normalisation, ReLU, `Lab`.

  Attributes:
    features: number of output channels.
    size: width of the window; 2 leaves the padding to the caller.
    lab: end with a `Lab`.
    dtype: compute dtype.
    stride: step in pixels.
    groups: number of channel groups.
    act: whether ReLU and `Lab` are there.
  """

  features: int
  size: int
  lab: bool
  dtype: layers.Dtype
  stride: int = 1
  groups: int = 1
  act: bool = True

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """A map."""
    conv = layers.Conv(
      self.features,
      self.size,
      self.stride,
      groups=self.groups,
      dtype=self.dtype,
      name="conv",
    )
    x = layers.BatchNorm(self.dtype, name="bn")(conv(x), train=train)
    if not self.act:
      return x
    x = nn.relu(x)
    return Lab(name="lab")(x) if self.lab else x


class Stem(nn.Module):
  """Convolutions to a stride of 4.

  Attributes:
    kind: 'v1' or 'v2'.
    widths: of 'v1' each one's, of 'v2' the inner and the last.
    lab: see `Unit`.
    dtype: compute dtype.
  """

  kind: str
  widths: tuple[int, ...]
  lab: bool
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """A map."""
    rest = {"lab": self.lab, "dtype": self.dtype}
    if self.kind == "v1":
      for i, width in enumerate(self.widths):
        unit = Unit(width, 3, **rest, stride=1 if i else 2, name=f"first{i}")
        x = unit(x, train=train)
      return layers.max_pool(x)
    width, last = self.widths
    x = Unit(width, 3, **rest, stride=2, name="stem1")(x, train=train)
    x = _pad(x)
    y = Unit(width // 2, 2, **rest, name="stem2a")(x, train=train)
    y = Unit(width, 2, **rest, name="stem2b")(_pad(y), train=train)
    x = jnp.concatenate([nn.max_pool(x, (2, 2)), y], -1)
    x = Unit(width, 3, **rest, stride=2, name="stem3")(x, train=train)
    return Unit(last, 1, **rest, name="stem4")(x, train=train)


def _pad(x: Array) -> Array:
  """One row and one column of zeros, below and to the right."""
  return jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))


class Block(nn.Module):
  """Layers one after another; all of their maps are put together.

  Attributes:
    middle: channels of the layers.
    features: number of output channels.
    count: number of layers.
    size: width of their windows.
    light: layers are a 1x1 and a depthwise convolution.
    gated: gate the result; else squeeze it first.
    residual: add the input.
    lab: see `Unit`.
    drop_path: probability of dropping the branch.
    dtype: compute dtype.
  """

  middle: int
  features: int
  count: int
  size: int
  light: bool
  gated: bool
  residual: bool
  lab: bool
  drop_path: float
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n h w d"]:
    """A map."""
    rest, out = {"lab": self.lab, "dtype": self.dtype}, self.features
    maps = [x]
    for i in range(self.count):
      maps.append(self._layer(maps[-1], i, train))
    y = jnp.concatenate(maps, -1)
    widths = (out,) if self.gated else (out // 2, out)
    for i, width in enumerate(widths):
      y = Unit(width, 1, **rest, name=f"sum{i}")(y, train=train)
    if self.gated:
      conv = layers.Conv(out, use_bias=True, dtype=self.dtype, name="gate")
      y = y * nn.sigmoid(conv(y.mean((1, 2), keepdims=True)))
    if not self.residual:
      return y
    if self.drop_path:
      y = layers.DropPath(self.drop_path)(y, train=train)
    return y + x

  def _layer(self, x: Array, i: int, train: bool) -> Array:
    width, rest = self.middle, {"lab": self.lab, "dtype": self.dtype}
    if not self.light:
      return Unit(width, self.size, **rest, name=f"layer{i}")(x, train=train)
    x = Unit(width, 1, **rest, act=False, name=f"layer{i}_1")(x, train=train)
    deep = Unit(width, self.size, **rest, groups=width, name=f"layer{i}_2")
    return deep(x, train=train)


class Stage(nn.Module):
  """Blocks, perhaps with a step to half the size in front of them.

  Attributes:
    down: whether the step is there.
    blocks: fields of each block.
  """

  down: bool
  blocks: tuple[dict[str, Any], ...]

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """The map of the last block."""
    width, rest = x.shape[-1], {k: self.blocks[0][k] for k in ("lab", "dtype")}
    if self.down:
      fields = {"stride": 2, "groups": width, "act": False}
      x = Unit(width, 3, **rest, **fields, name="down")(x, train=train)
    for i, fields in enumerate(self.blocks):
      x = Block(**fields, name=f"block{i}")(x, train=train)
    return x


class Neck(nn.Module):
  """The layer after pooling.

  Attributes:
    features: number of outputs.
    lab: see `Unit`.
    dtype: compute dtype.
  """

  features: int
  lab: bool
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n c"]
  ) -> tuple[Float[Array, "n d"], Float[Array, "n d"]]:
    """The result before and after its activation."""
    dense = nn.Dense(
      self.features,
      use_bias=False,
      dtype=self.dtype,
      kernel_init=layers.kaiming_fan_out,
      name="dense",
    )
    before = dense(x)
    after = nn.relu(before)
    return before, Lab(name="lab")(after) if self.lab else after


class Model(backbone.Backbone):
  """HGNet family; `VARIANTS` lists the named members.

  Attributes:
    interpolation: see `Backbone`.
    crop_pct: see `Backbone`.
    stem_type: 'v1' or 'v2'; blocks of 'v1' are gated.
    stem_chs: widths of the stem.
    middle: channels inside blocks, per stage.
    widths: channels of the stages.
    depths: blocks of the stages.
    layer_num: layers of a block.
    light: whether these are a 1x1 and a depthwise convolution, per stage.
    kernel_sizes: widths of their windows, per stage.
    use_lab: a learnt scale and shift after every activation.
    head_hidden_size: channels of the layer after pooling.
  """

  POOLS = ("avg", "max", "avgmax")

  interpolation: str = "bicubic"
  crop_pct: float = 0.965
  stem_type: str = "v2"
  stem_chs: tuple[int, ...] = (16, 16)
  middle: tuple[int, ...] = (16, 32, 64, 128)
  widths: tuple[int, ...] = (64, 256, 512, 1024)
  depths: tuple[int, ...] = (1, 1, 2, 1)
  layer_num: int = 3
  light: tuple[bool, ...] = (False, False, True, True)
  kernel_sizes: tuple[int, ...] = (3, 3, 5, 5)
  use_lab: bool = False
  head_hidden_size: int = 2048

  def __post_init__(self) -> None:
    super().__post_init__()
    backbone.one_of("stem_type", self.stem_type, ("v1", "v2"))
    if self.stem_type == "v2":
      backbone.positive("stem_chs", self.stem_chs, 2)
    for name in ("middle", "widths", "depths", "kernel_sizes"):
      backbone.positive(name, getattr(self, name), 4)

  @property
  def num_features(self) -> int:
    """Width of the tap 'pooled'."""
    return self.head_hidden_size

  def run_stage(
    self, stage: str, x: Array, *, train: bool
  ) -> tuple[Array, dict[str, Array]]:
    """See `Backbone.run_stage`; 'feature' comes with 'head'."""
    if stage == "head":
      return self._classify(x)
    if stage == "stem":
      fields = {"lab": self.use_lab, "dtype": self.dtype, "name": "stem"}
      x = Stem(self.stem_type, self.stem_chs, **fields)(x, train=train)
      return x, {stage: x}
    k = STAGES.index(stage) - 1
    x = Stage(k > 0, self._blocks(k), name=stage)(x, train=train)
    return x, {stage: x}

  def _classify(self, x: Array) -> tuple[Array, dict[str, Array]]:
    neck = Neck(self.head_hidden_size, self.use_lab, self.dtype, name="neck")
    feature, pooled = neck(layers.global_pool(x, self.global_pool))
    logits = pooled
    if self.num_classes:
      init = layers.torch_linear_init(self.head_hidden_size)
      fields = {"dtype": self.dtype, "kernel_init": init, "name": "head"}
      logits = nn.Dense(self.num_classes, **fields)(pooled)
    return logits, {"feature": feature, "pooled": pooled, "logits": logits}

  def _blocks(self, k: int) -> tuple[dict[str, Any], ...]:
    shared = {
      "middle": self.middle[k],
      "features": self.widths[k],
      "count": self.layer_num,
      "size": self.kernel_sizes[k],
      "light": self.light[k],
      "gated": self.stem_type == "v1",
      "lab": self.use_lab,
      "dtype": self.dtype,
    }
    rates = strides.drop_rates(self.drop_path_rate, self.depths)[k]
    return tuple(
      {**shared, "residual": i > 0, "drop_path": rate}
      for i, rate in enumerate(rates)
    )
