"""RegNetX and RegNetY (arXiv:2003.13678): widths from a quantised line.

Names, hyper-parameters and feature maps are timm's; blocks count from 1, as
there. Initialisation: convolutions N(0, 2 / (k k c_out)), the last
normalisation scale of each block 0, classifier N(0, 0.01^2), biases 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, Unpack

import numpy as np
from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models import backbone
from kd_jax.models.blocks import layers, strides


def _variant(
  depth: int,
  w0: int,
  wa: float,
  wm: float,
  group_size: int,
  **more: backbone.FieldValue,
) -> dict[str, Any]:
  return {
    "depth": depth,
    "w0": w0,
    "wa": wa,
    "wm": wm,
    "group_size": group_size,
    **more,
  }


_X = {"se_ratio": 0.0}
_TV = {"crop_pct": 0.965}
_TIMM = {"crop_pct": 0.95}
_SEER = {"crop_pct": 1.0, "input_size": (3, 384, 384)}
_NINE = {"group_min_ratio": 0.9, **_TV}

VARIANTS = {
  "regnetx_002": _variant(13, 24, 36.44, 2.49, 8, **_X),
  "regnetx_004": _variant(22, 24, 24.48, 2.54, 16, **_X),
  "regnetx_004_tv": _variant(22, 24, 24.48, 2.54, 16, **_X, **_NINE),
  "regnetx_006": _variant(16, 48, 36.97, 2.24, 24, **_X),
  "regnetx_008": _variant(16, 56, 35.73, 2.28, 16, **_X, **_TV),
  "regnetx_016": _variant(18, 80, 34.01, 2.25, 24, **_X, **_TV),
  "regnetx_032": _variant(25, 88, 26.31, 2.25, 48, **_X, **_TV),
  "regnetx_040": _variant(23, 96, 38.65, 2.43, 40, **_X),
  "regnetx_064": _variant(17, 184, 60.83, 2.07, 56, **_X),
  "regnetx_080": _variant(23, 80, 49.56, 2.88, 120, **_X, **_TV),
  "regnetx_120": _variant(19, 168, 73.36, 2.37, 112, **_X),
  "regnetx_160": _variant(22, 216, 55.59, 2.1, 128, **_X, **_TV),
  "regnetx_320": _variant(23, 320, 69.86, 2.0, 168, **_X, **_TV),
  "regnety_002": _variant(13, 24, 36.44, 2.49, 8),
  "regnety_004": _variant(16, 48, 27.89, 2.09, 8, **_TV),
  "regnety_006": _variant(15, 48, 32.54, 2.32, 16),
  "regnety_008": _variant(14, 56, 38.84, 2.4, 16),
  "regnety_008_tv": _variant(14, 56, 38.84, 2.4, 16, **_NINE),
  "regnety_016": _variant(27, 48, 20.71, 2.65, 24, **_TV),
  "regnety_032": _variant(21, 80, 42.63, 2.66, 24, **_TIMM),
  "regnety_040": _variant(22, 96, 31.41, 2.24, 64, **_TIMM),
  "regnety_064": _variant(25, 112, 33.22, 2.27, 72, **_TIMM),
  "regnety_080": _variant(17, 192, 76.82, 2.19, 56, **_TIMM),
  "regnety_080_tv": _variant(17, 192, 76.82, 2.19, 56, **_NINE),
  "regnety_120": _variant(19, 168, 73.36, 2.37, 112, **_TIMM),
  "regnety_160": _variant(18, 200, 106.23, 2.48, 112, **_TIMM),
  "regnety_320": _variant(20, 232, 115.89, 2.53, 232, **_TV),
  "regnety_640": _variant(20, 352, 147.48, 2.4, 328, **_SEER),
  "regnety_1280": _variant(27, 456, 160.83, 2.52, 264, **_SEER),
  "regnety_2560": _variant(27, 640, 230.83, 2.53, 373, **_SEER),
}

_BLOCK = "params/stage{s}/block{b}/"
RULES = (
  ("stem.conv.weight", "params/stem/conv/kernel", "conv"),
  ("stem.bn", "params/stem/bn", "norm"),
  ("s{s}.b{b}.conv{c}.conv.weight", _BLOCK + "conv{c}/kernel", "conv"),
  ("s{s}.b{b}.conv{c}.bn", _BLOCK + "bn{c}", "norm"),
  ("s{s}.b{b}.se.fc1", _BLOCK + "se/reduce", "conv2d"),
  ("s{s}.b{b}.se.fc2", _BLOCK + "se/expand", "conv2d"),
  ("s{s}.b{b}.downsample.conv.weight", _BLOCK + "downsample/kernel", "conv"),
  ("s{s}.b{b}.downsample.bn", _BLOCK + "downsample_bn", "norm"),
  ("head.fc", "params/head", "dense"),
)
"""(timm name, path here, layout), see `kd_jax.convert.rules`."""


class Block(nn.Module):
  """Bottleneck with grouped 3x3 and squeeze-excite, without its final ReLU.

  Attributes:
    features: number of output channels, and of the 3x3 convolution.
    group_size: channels per group of the 3x3 convolution.
    se_ratio: hidden channels of squeeze-excite over input channels; 0: none.
    stride: stride of the 3x3 convolution.
    dilation: its dilation.
    drop_path: probability of dropping the branch.
    zero_init_last: start the last normalisation scale at 0.
    dtype: compute dtype.
  """

  features: int
  group_size: int
  se_ratio: float
  stride: int
  dilation: int
  drop_path: float
  zero_init_last: bool
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """Shortcut plus branch."""
    y = nn.relu(self._conv(x, ("conv1", "bn1"), train))
    grouped: layers.WindowFields = {
      "size": 3,
      "stride": self.stride,
      "dilation": self.dilation,
      "groups": self.features // self.group_size,
    }
    y = nn.relu(self._conv(y, ("conv2", "bn2"), train, **grouped))
    if self.se_ratio:
      width = round(x.shape[-1] * self.se_ratio)
      y = layers.SqueezeExcite(width, self.dtype, name="se")(y)
    y = self._conv(y, ("conv3", "bn3"), train)
    if self.drop_path:
      y = layers.DropPath(self.drop_path)(y, train=train)
    if self.stride != 1 or x.shape[-1] != self.features:
      names = ("downsample", "downsample_bn")
      x = self._conv(x, names, train, stride=self.stride)
    return y + x

  def _conv(
    self,
    x: Array,
    names: tuple[str, str],
    train: bool,
    **fields: Unpack[layers.WindowFields],
  ) -> Array:
    conv = layers.Conv(self.features, **fields, dtype=self.dtype, name=names[0])
    zero = self.zero_init_last and names[1] == "bn3"
    scale = initializers.zeros if zero else initializers.ones
    norm = layers.BatchNorm(self.dtype, scale, name=names[1])
    return norm(conv(x), train=train)


class Stem(nn.Module):
  """3x3 convolution of stride 2, normalisation and ReLU.

  Attributes:
    features: number of output channels.
    dtype: compute dtype.
  """

  features: int
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w 3"], *, train: bool
  ) -> Float[Array, "n y x c"]:
    """Applies the three."""
    x = layers.Conv(self.features, 3, 2, dtype=self.dtype, name="conv")(x)
    return nn.relu(layers.BatchNorm(self.dtype, name="bn")(x, train=train))


class Stage(nn.Module):
  """Blocks of one resolution.

  Attributes:
    blocks: the fields of each `Block`.
  """

  blocks: tuple[dict[str, Any], ...]

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> tuple[Float[Array, "n y x d"], Float[Array, "n y x d"]]:
    """Returns the map after and before the last ReLU."""
    before = x
    for i, fields in enumerate(self.blocks, 1):
      before = Block(**fields, name=f"block{i}")(x, train=train)
      x = nn.relu(before)
    return x, before


class Model(backbone.ConvNet):
  """RegNet family; `VARIANTS` lists the named members.

  Attributes:
    interpolation: see `Backbone`.
    depth: number of blocks, over the four stages.
    w0: width at the start of the line, a multiple of 8.
    wa: slope of the line, in channels per block.
    wm: factor between the widths of neighbouring stages.
    group_size: channels per group of the 3x3 convolutions.
    group_min_ratio: share of a width that rounding to the group size must
      keep, as torchvision does; 0 rounds to the nearest.
    se_ratio: see `Block`; RegNetX has 0.
    stem_width: channels of the first convolution.
    zero_init_last: start each block as the identity.
  """

  interpolation: str = "bicubic"
  depth: int = 21
  w0: int = 80
  wa: float = 42.63
  wm: float = 2.66
  group_size: int = 24
  group_min_ratio: float = 0.0
  se_ratio: float = 0.25
  stem_width: int = 32
  zero_init_last: bool = True

  def __post_init__(self) -> None:
    super().__post_init__()
    for name in ("depth", "group_size", "stem_width"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name} is {getattr(self, name)}; it must be > 0")
    for name in ("se_ratio", "group_min_ratio"):
      if not 0 <= getattr(self, name) <= 1:
        raise ValueError(f"{name} is {getattr(self, name)}, not in [0, 1]")
    if self.w0 < 8 or self.w0 % 8 or self.wa < 0 or self.wm <= 1:
      raise ValueError(
        f"w0={self.w0}, wa={self.wa}, wm={self.wm}: w0 must be a multiple of "
        "8, wa not negative, and wm above 1"
      )
    found = len(set(_line(self)))
    if found != 4:
      raise ValueError(
        f"depth={self.depth}, w0={self.w0}, wa={self.wa}, wm={self.wm} make "
        f"{found} widths; there are 4 stages"
      )

  @property
  def num_features(self) -> int:
    """Width of the tap 'pooled'."""
    width = _widths(self)[-1].features
    return width * layers.pool_factor(self.global_pool)

  def run_stage(
    self, stage: str, x: Array, *, train: bool
  ) -> tuple[Array, dict[str, Array]]:
    """See `Backbone.run_stage`; 'feature' comes with 'stage4'."""
    if stage == "stem":
      x = Stem(self.stem_width, self.dtype, name="stem")(x, train=train)
      return x, {"stem": x}
    if stage == "head":
      return backbone.classify(
        self,
        x,
        kernel_init=initializers.normal(0.01),
        bias_init=initializers.zeros,
      )
    index = int(stage[-1]) - 1
    x, before = Stage(_blocks(self, index), name=stage)(x, train=train)
    last = backbone.before_activation(before) if index == 3 else {}
    return x, {stage: x, **last}


class _Width(NamedTuple):
  features: int
  group_size: int
  depth: int


def _line(model: Model) -> list[int]:
  """Width of every block, before it is fitted to the groups."""
  # float32, as in the original: some values lie next to a rounding limit.
  line = np.arange(model.depth, dtype=np.float32) * np.float32(model.wa)
  line += np.float32(model.w0)
  powers = np.round(np.log(line / np.float32(model.w0)) / np.log(model.wm))
  widths = model.w0 * np.power(np.float32(model.wm), np.float32(powers))
  return [int(w) for w in np.round(widths / 8) * 8]


def _widths(model: Model) -> list[_Width]:
  """Width, group size and depth per stage."""
  line = _line(model)
  found = []
  for width in sorted(set(line)):
    group = min(model.group_size, width)
    fitted = round(width / group) * group
    if model.group_min_ratio:
      fitted = max(group, int(width + group / 2) // group * group)
      fitted += group if fitted < model.group_min_ratio * width else 0
    found.append(_Width(fitted, group, line.count(width)))
  return found


def _blocks(model: Model, index: int) -> tuple[dict[str, Any], ...]:
  """The fields of every block of a stage."""
  widths = _widths(model)
  step = strides.steps(model.output_stride, 2, (2, 2, 2, 2))[index]
  rates = strides.drop_rates(model.drop_path_rate, [w.depth for w in widths])
  return tuple(
    {
      "features": widths[index].features,
      "group_size": widths[index].group_size,
      "se_ratio": model.se_ratio,
      "stride": step.stride if b == 0 else 1,
      "dilation": step.first_dilation if b == 0 else step.dilation,
      "drop_path": rate,
      "zero_init_last": model.zero_init_last,
      "dtype": model.dtype,
    }
    for b, rate in enumerate(rates[index])
  )


# Names of torchvision and of VISSL inside a block; the first match counts.
_RENAMED = (
  ("f.a.0.", "conv1.conv."),
  ("f.a.1.", "conv1.bn."),
  ("f.b.0.", "conv2.conv."),
  ("f.b.1.", "conv2.bn."),
  ("f.final_bn.", "conv3.bn."),
  ("f.se.excitation.0.", "se.fc1."),
  ("f.se.excitation.2.", "se.fc2."),
  ("f.se.", "se."),
  ("f.c.0.", "conv3.conv."),
  ("f.c.1.", "conv3.bn."),
  ("f.c.", "conv3.conv."),
  ("proj.0.", "downsample.conv."),
  ("proj.1.", "downsample.bn."),
  ("proj.", "downsample.conv."),
  ("bn.", "downsample.bn."),
)


def adapt(
  state_dict: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
  """The names of torchvision and of VISSL's SEER as timm's.

  Heads of the pre-training are dropped.

  Args:
    state_dict: tensors of a file.
    shapes: {timm name: shape} of the model.
  """
  del shapes
  return {
    _renamed(name): value
    for name, value in state_dict.items()
    if not re.search("projection_head|prototypes", name)
  }


def _renamed(name: str) -> str:
  stem = re.match(r"(?:_feature_blocks\.conv1\.)?stem\.([01])\.(.*)", name)
  if stem:
    return f"stem.{'conv' if stem[1] == '0' else 'bn'}.{stem[2]}"
  block = re.match(
    r"(?:trunk_output\.block\d|_feature_blocks\.res\d)\."
    r"block(\d)-(\d+)\.(.*)",
    name,
  )
  if not block:
    return re.sub(r"^(?:fc|0\.clf\.0)\.", "head.fc.", name)
  stage, index, rest = block.groups()
  for old, new in _RENAMED:
    if rest.startswith(old):
      rest = new + rest.removeprefix(old)
      break
  return f"s{stage}.b{int(index) + 1}.{rest}"
