"""Units, stems and blocks of the family in `hgnet`."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers


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
    dense = layers.Dense(
      self.features,
      use_bias=False,
      dtype=self.dtype,
      kernel_init=layers.kaiming_fan_out,
      name="dense",
    )
    before = dense(x)
    after = nn.relu(before)
    return before, Lab(name="lab")(after) if self.lab else after
