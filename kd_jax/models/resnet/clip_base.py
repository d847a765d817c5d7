"""What the ResNets of CLIP (arXiv:2103.00020) share, up to the last map.

A stem of three convolutions, and average pooling wherever the resolution
drops. Names and feature maps are timm's. Initialisation: convolutions
N(0, 2 / (k k c_out)), normalisation scale 1, but 0 at the end of each block.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models import backbone
from kd_jax.models.blocks import layers, strides
from kd_jax.models.resnet.blocks import Stem

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
_CHANNELS = (256, 512, 1024, 2048)
_STEM = (32, 32, 64)
_CONVS = {1: "conv1_1x1", 2: "conv2_kxk", 3: "conv3_1x1"}
_OPENAI = "visual."


def sized(
  depths: tuple[int, ...], width: float = 1.0, size: int = 224
) -> dict[str, Any]:
  """The fields of a variant; image size in pixels."""
  return {
    "layers": depths,
    "width_factor": width,
    "input_size": (3, size, size),
  }


SIZES = {
  "resnet50": sized((3, 4, 6, 3)),
  "resnet101": sized((3, 4, 23, 3)),
  "resnet50x4": sized((4, 6, 10, 6), 1.25, 288),
  "resnet50x16": sized((6, 8, 18, 8), 1.5, 384),
  "resnet50x64": sized((3, 15, 36, 10), 2.0, 448),
}
"""Fields of the trunks."""


def _stage_rules(stage: int) -> tuple[tuple[str, str, str], ...]:
  theirs = f"stages.{stage - 1}.{{b}}."
  ours = f"params/stage{stage}/block{{b}}/"
  convs = {**_CONVS, "_down": "shortcut.conv"}
  kernels = tuple(
    (f"{theirs}{name}.conv.weight", f"{ours}conv{c}/kernel", "conv")
    for c, name in convs.items()
  )
  norms = tuple(
    (f"{theirs}{name}.bn", f"{ours}bn{c}", "norm") for c, name in convs.items()
  )
  return kernels + norms


RULES = (
  ("stem.conv1.conv.weight", "params/stem/conv1/kernel", "conv"),
  ("stem.conv{c}.conv.weight", "params/stem/conv{c}/kernel", "conv"),
  ("stem.conv{c}.bn", "params/stem/bn{c}", "norm"),
  *(rule for stage in (1, 2, 3, 4) for rule in _stage_rules(stage)),
)
"""(timm name, path here, layout) of everything below the last map."""


class Block(nn.Module):
  """Bottleneck that pools instead of striding; without its final ReLU.

  Attributes:
    features: number of output channels.
    stride: of the block.
    dilation: of the 3x3 convolution.
    drop_path: probability of dropping the branch.
    zero_init_last: start the last normalisation scale at 0.
    dtype: compute dtype.
  """

  features: int
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
    y = nn.relu(self._conv(x, "1", self._width(), train))
    y = nn.relu(self._conv(y, "2", self._width(), train, 3))
    if self.stride > 1:
      y = nn.avg_pool(y, (2, 2), (2, 2))
    y = self._conv(y, "3", self.features, train)
    if self.drop_path:
      y = layers.DropPath(self.drop_path)(y, train=train)
    if self.stride > 1 or x.shape[-1] != self.features:
      x = strides.average_down(x, self.stride, self.dilation)
      x = self._conv(x, "_down", self.features, train)
    return x + y

  def _width(self) -> int:
    return strides.divisible(self.features / 4)

  def _conv(
    self, x: Array, name: str, features: int, train: bool, size: int = 1
  ) -> Array:
    dilation = self.dilation if size > 1 else 1
    conv = layers.Conv(
      features, size, dilation=dilation, dtype=self.dtype, name=f"conv{name}"
    )
    zero = self.zero_init_last and name == "3"
    scale = initializers.zeros if zero else initializers.ones
    norm = layers.BatchNorm(self.dtype, scale, name=f"bn{name}")
    return norm(conv(x), train=train)


class Stage(nn.Module):
  """Blocks of one resolution.

  Attributes:
    blocks: the fields of each `Block`.
    pool: begin with 2x2 averages.
  """

  blocks: tuple[dict[str, Any], ...]
  pool: bool

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> tuple[Float[Array, "n y x d"], Float[Array, "n y x d"]]:
    """Returns the map after and before the last ReLU."""
    x = before = nn.avg_pool(x, (2, 2), (2, 2)) if self.pool else x
    for i, fields in enumerate(self.blocks):
      before = Block(**fields, name=f"block{i}")(x, train=train)
      x = nn.relu(before)
    return x, before


class Trunk(backbone.ConvNet):
  """Everything but the head.

  Attributes:
    mean: see `Backbone`.
    std: see `Backbone`.
    interpolation: see `Backbone`.
    crop_pct: see `Backbone`.
    layers: number of blocks per stage.
    width_factor: factor of all widths, which are then rounded to 8.
    zero_init_last: start each block as the identity.
  """

  mean: tuple[float, ...] = MEAN
  std: tuple[float, ...] = STD
  interpolation: str = "bicubic"
  crop_pct: float = 0.9
  layers: tuple[int, ...] = (3, 4, 6, 3)
  width_factor: float = 1.0
  zero_init_last: bool = True

  def __post_init__(self) -> None:
    super().__post_init__()
    backbone.positive("layers", self.layers, 4)
    if not self.width_factor > 0:
      raise ValueError(f"width_factor is {self.width_factor}; it must be > 0")

  @property
  def width(self) -> int:
    """Channels of the last map."""
    return self._widths()[-1]

  def run_stage(
    self, stage: str, x: Array, *, train: bool
  ) -> tuple[Array, dict[str, Array]]:
    """See `Backbone.run_stage`; 'feature' comes with 'stage4'.

    Raises:
      ValueError: a stage halves a map with an odd side.
    """
    if stage == "stem":
      x = Stem(self._stem(), self.dtype, name="stem")(x, train=train)
      return x, {"stem": x}
    index = int(stage[-1]) - 1
    blocks = self._blocks(index)
    if blocks[0]["stride"] > 1:
      _check_even(stage, x.shape[1:3])
    x, before = Stage(blocks, index == 0, name=stage)(x, train=train)
    last = backbone.before_activation(before) if index == 3 else {}
    return x, {stage: x, **last}

  def _widths(self) -> list[int]:
    return [strides.divisible(c * self.width_factor) for c in _CHANNELS]

  def _stem(self) -> tuple[tuple[str, str, layers.ConvFields], ...]:
    widths = [max(1, round(c * self.width_factor)) for c in _STEM]
    return tuple(
      (
        f"conv{i}",
        f"bn{i}",
        {"features": width, "size": 3, "stride": 2 if i == 1 else 1},
      )
      for i, width in enumerate(widths, 1)
    )

  def _blocks(self, index: int) -> tuple[dict[str, Any], ...]:
    step = strides.steps(self.output_stride, net_stride=4)[index]
    rates = strides.drop_rates(self.drop_path_rate, self.layers)[index]
    return tuple(
      {
        "features": self._widths()[index],
        "stride": step.stride if b == 0 else 1,
        "dilation": step.first_dilation if b == 0 else step.dilation,
        "drop_path": rate,
        "zero_init_last": self.zero_init_last,
        "dtype": self.dtype,
      }
      for b, rate in enumerate(rates)
    )


def _check_even(stage: str, size: tuple[int, ...]) -> None:
  if size[0] % 2 or size[1] % 2:
    raise ValueError(
      f"{stage} halves its map, which is {size[0]}x{size[1]}: branch and "
      "shortcut round odd sizes differently. Use images whose sides are "
      "multiples of 32."
    )


def from_openai(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """OpenAI's names as timm's; the text tower is dropped."""
  if not any(name.startswith(_OPENAI) for name in state_dict):
    return dict(state_dict)
  return {
    _renamed(name.removeprefix(_OPENAI)): value
    for name, value in state_dict.items()
    if name.startswith(_OPENAI)
  }


def _renamed(name: str) -> str:
  name = re.sub(r"^(conv|bn)(\d)\.", r"stem.conv\2.\1.", name)
  block = re.match(r"layer(\d)\.(\d+)\.(.*)", name)
  if block:
    stage, index, rest = block.groups()
    rest = re.sub(
      r"^(conv|bn)(\d)\.", lambda m: f"{_CONVS[int(m[2])]}.{m[1]}.", rest
    )
    rest = rest.replace("downsample.0.", "shortcut.conv.conv.")
    rest = rest.replace("downsample.1.", "shortcut.conv.bn.")
    return f"stages.{int(stage) - 1}.{index}.{rest}"
  name = re.sub(r"^attnpool\.([qkv])_proj\.", r"head.\1.", name)
  name = name.replace("attnpool.c_proj.", "head.proj.")
  return name.replace("attnpool.positional_embedding", "head.pos_embed")
