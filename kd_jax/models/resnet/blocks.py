"""Blocks, stems and stages of the family in `resnet`."""

from __future__ import annotations

from typing import Any

from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers, strides
from kd_jax.models.convs import gates

EXPANSION = {"basic": 1, "bottleneck": 4}
"""Output channels over base width, per kind of block."""


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
    se_ratio: hidden over output channels of squeeze-excite; 0 has none.
    avg_down: average before the convolution of the shortcut.
    dtype: compute dtype.
    eca: gates of `gates.Eca` at the end of the branch.
    aa: pooling in place of the stride, see `strides.POOLS`; '' is none.
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
  se_ratio: float
  avg_down: bool
  dtype: layers.Dtype
  eca: bool = False
  aa: str = ""

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """Shortcut plus branch."""
    out = self.channels * EXPANSION[self.kind]
    zero = initializers.zeros if self.zero_init_last else initializers.ones
    convs = self._convs(out)
    y = x
    for i, fields in enumerate(convs, 1):
      last = i == len(convs)
      pooled = self.aa if "stride" in fields else ""
      own: layers.ConvFields = {**fields}
      if pooled:
        own["stride"] = 1
      y = layers.Conv(**own, dtype=self.dtype, name=f"conv{i}")(y)
      scale = zero if last else initializers.ones
      norm = layers.BatchNorm(self.dtype, scale, name=f"bn{i}")
      y = norm(y, train=train)
      y = y if last else nn.relu(y)
      y = self._pool(y) if pooled else y
    if self.eca:
      y = gates.Eca(self.dtype, name="se")(y)
    if self.se_ratio:
      width = strides.divisible(out * self.se_ratio, keep=0.0)
      y = layers.SqueezeExcite(width, self.dtype, name="se")(y)
    if self.drop_path:
      y = layers.DropPath(self.drop_path)(y, train=train)
    return self._shortcut(x, out, train) + y

  def _pool(self, x: Array) -> Array:
    """Timm's pooling, which blurs where dilation takes a stride's place."""
    if self.stride == 2:
      return strides.POOLS[self.aa](x)
    if self.aa == "blur" and self.first_dilation != self.dilation:
      return strides.blur(x, "reflect", stride=1)
    return x

  def _shortcut(self, x: Array, out: int, train: bool) -> Array:
    if self.stride == 1 and x.shape[-1] == out:
      return x
    stride, name = self.stride, "downsample"
    if self.avg_down:
      x, stride = strides.average_down(x, stride, self.dilation), 1
      name = "avg_down"
    conv = layers.Conv(out, stride=stride, dtype=self.dtype, name=name)
    norm = layers.BatchNorm(self.dtype, name=f"{name}_bn")
    return norm(conv(x), train=train)

  def _convs(self, out: int) -> tuple[layers.ConvFields, ...]:
    first: layers.WindowFields = {
      "size": 3,
      "stride": self.stride,
      "dilation": self.first_dilation,
    }
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
  """Convolutions, each with normalisation and ReLU.

  Attributes:
    convs: (name of the convolution, of the normalisation, fields) of each.
    dtype: compute dtype.
  """

  convs: tuple[tuple[str, str, layers.ConvFields], ...]
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w 3"], *, train: bool
  ) -> Float[Array, "n y x c"]:
    """Applies all."""
    for conv, norm, fields in self.convs:
      x = layers.Conv(**fields, dtype=self.dtype, name=conv)(x)
      x = nn.relu(layers.BatchNorm(self.dtype, name=norm)(x, train=train))
    return x


class Stage(nn.Module):
  """Blocks of one resolution.

  Attributes:
    blocks: the fields of each `Block`.
    pool: what comes first: 'max' (3x3 of stride 2), 'conv' (a 3x3
      convolution of stride 2, normalisation and ReLU), 'avg' (2x2 averages),
      'blur' ('max' with a blur in place of its stride) or ''.
  """

  blocks: tuple[dict[str, Any], ...]
  pool: str

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> tuple[Float[Array, "n y x d"], Float[Array, "n y x d"]]:
    """Returns the map after and before the last ReLU."""
    if self.pool == "max":
      x = layers.max_pool(x)
    if self.pool == "avg":
      x = strides.average(x)
    if self.pool == "blur":
      sides: Any = ((1, 1), (1, 1))
      x = strides.POOLS["blur"](nn.max_pool(x, (3, 3), (1, 1), sides))
    if self.pool == "conv":
      dtype = self.blocks[0]["dtype"]
      x = layers.Conv(x.shape[-1], 3, 2, dtype=dtype, name="pool")(x)
      x = nn.relu(layers.BatchNorm(dtype, name="pool_bn")(x, train=train))
    before = x
    for i, fields in enumerate(self.blocks):
      before = Block(**fields, name=f"block{i}")(x, train=train)
      x = nn.relu(before)
    return x, before
