"""Blocks of GhostNet, V2 and V3."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers, maps
from kd_jax.models.convs import conv_norm

BRANCHES = ("conv0", "conv1", "conv2")
"""Equal convolutions side by side, in V3."""

_CHEAP = 3
_LONG = 5


class Ghost(nn.Module):
  """A 1x1 convolution for half of the channels, cheap maps of it for the rest.

  Attributes:
    features: number of output channels.
    style: see `conv_norm`.
    act: activate both halves.
    branched: both halves are sums of branches (arXiv:2404.11202).
    gated: weight the output by long windows of a smaller map
      (arXiv:2211.12905).
  """

  features: int
  style: conv_norm.Style
  act: bool
  branched: bool
  gated: bool

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n h w d"]:
    """Keeps the size."""
    half = -(-self.features // 2)
    if self.branched:
      first = self._branches(half, 1, "primary")(x, train=train)
      first = self._activate(first)
      rest = self._branches(half, _CHEAP, "cheap")(first, train=train)
      rest = self._activate(rest)
    else:
      plain = unfused(self.style)
      conv = conv_norm.ConvNorm(half, plain, act=self.act, name="primary")
      first = conv(x, train=train)
      rest = conv_norm.ConvNorm(
        half, plain, _CHEAP, groups=half, act=self.act, name="cheap"
      )(first, train=train)
    y = jnp.concatenate([first, rest], -1)[..., : self.features]
    if not self.gated:
      return y
    gate = Gate(self.features, unfused(self.style), name="gate")
    return y * maps.nearest(gate(x, train=train), maps.size_of(y))

  def _branches(self, half: int, size: int, name: str) -> conv_norm.Branches:
    windows = tuple((branch, size) for branch in BRANCHES)
    depthwise = size > 1
    return conv_norm.Branches(
      half,
      self.style,
      (*windows, ("scale", 1)) if depthwise else windows,
      identity=depthwise,
      groups=half if depthwise else 1,
      name=name,
    )

  def _activate(self, x: Array) -> Array:
    return self.style.activate(x) if self.act else x


def unfused(style: conv_norm.Style) -> conv_norm.Style:
  """Of what timm does not merge."""
  return dataclasses.replace(style, fused=False)


class Gate(nn.Module):
  """Weights from windows of 1x5 and 5x1 over averages of 2x2 pixels.

  Attributes:
    features: number of output channels.
    style: see `conv_norm`.
  """

  features: int
  style: conv_norm.Style

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """Numbers in (0, 1), for half of the size."""
    x = layers.average_pooling(x, (2, 2), (2, 2), "VALID")
    x = layers.Conv(
      self.features,
      dtype=self.style.dtype,
      kernel_init=self.style.init(1),
      name="conv0",
    )(x)
    x = self.style.norm("bn0")(x, train=train)
    for i, window in enumerate(((1, _LONG), (_LONG, 1)), 1):
      x = nn.Conv(
        self.features,
        window,
        padding="SAME",
        feature_group_count=self.features,
        use_bias=False,
        dtype=self.style.dtype,
        kernel_init=self.style.init(self.features),
        name=f"conv{i}",
      )(x)
      x = self.style.norm(f"bn{i}")(x, train=train)
    return nn.sigmoid(x)


class Block(nn.Module):
  """Two ghosts around a strided convolution and a gate, and a shortcut.

  Attributes:
    width: channels between the ghosts.
    features: number of output channels.
    size: width of the depthwise windows.
    stride: 1 or 2; 1 has no convolution between the ghosts.
    squeezed: hidden channels of squeeze-and-excitation; 0 has none.
    branched: see `Ghost`.
    gated: see `Ghost`, of the first one.
    style: see `conv_norm`.
  """

  width: int
  features: int
  size: int
  stride: int
  squeezed: int
  branched: bool
  gated: bool
  style: conv_norm.Style

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """The sum, not activated."""
    kinds: dict[str, Any] = {"style": self.style, "branched": self.branched}
    ghost = Ghost(
      self.width, act=True, gated=self.gated, **kinds, name="ghost1"
    )
    y = ghost(x, train=train)
    if self.stride > 1:
      y = self._depthwise()(y, train=train)
    if self.squeezed:
      y = layers.SqueezeExcite(
        self.squeezed, self.style.dtype, gate=nn.hard_sigmoid, name="se"
      )(y)
    ghost = Ghost(self.features, act=False, gated=False, **kinds, name="ghost2")
    return ghost(y, train=train) + self._short(x, train)

  def _depthwise(self) -> conv_norm.Mergeable:
    if not self.branched:
      return conv_norm.ConvNorm(
        self.width,
        unfused(self.style),
        self.size,
        self.stride,
        groups=self.width,
        name="dw",
      )
    windows = tuple((branch, self.size) for branch in BRANCHES)
    return conv_norm.Branches(
      self.width,
      self.style,
      (*windows, ("scale", 1)),
      stride=self.stride,
      groups=self.width,
      name="dw",
    )

  def _short(self, x: Array, train: bool) -> Array:
    width = x.shape[-1]
    if self.stride == 1 and width == self.features:
      return x
    style = unfused(self.style)
    first = conv_norm.ConvNorm(
      width, style, self.size, self.stride, groups=width, name="short1"
    )
    last = conv_norm.ConvNorm(self.features, style, name="short2")
    return last(first(x, train=train), train=train)


class Stage(nn.Module):
  """Blocks of one resolution.

  Attributes:
    blocks: (name, fields) of each.
    first: normalise and activate what is read, by a layer called `bn1`.
    style: see `conv_norm`.
  """

  blocks: tuple[tuple[str, dict[str, Any]], ...]
  first: bool
  style: conv_norm.Style

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """The map of the last block."""
    if self.first:
      x = self.style.activate(self.style.norm("bn1")(x, train=train))
    for name, fields in self.blocks:
      x = Block(**fields, style=self.style, name=name)(x, train=train)
    return x


class Neck(nn.Module):
  """The last blocks, a 1x1 convolution, and a layer behind the pooling.

  Attributes:
    blocks: (name, fields) of each.
    width: of the convolution.
    features: of the layer.
    pool: one of `layers.POOLS`.
    style: see `conv_norm`.
  """

  blocks: tuple[tuple[str, dict[str, Any]], ...]
  width: int
  features: int
  pool: str
  style: conv_norm.Style

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> tuple[
    Float[Array, "n d"], Float[Array, "n y x e"], Float[Array, "n y x e"]
  ]:
    """Pooled features, the last map, and the same before its activation."""
    for name, fields in self.blocks:
      x = Block(**fields, style=self.style, name=name)(x, train=train)
    style = unfused(self.style)
    before = conv_norm.ConvNorm(self.width, style, name="last")(x, train=train)
    last = style.activate(before)
    pooled = layers.global_pool(last, self.pool)
    torch = layers.torch_linear_init(pooled.shape[-1])
    dense = nn.Dense(
      self.features,
      dtype=style.dtype,
      kernel_init=torch,
      bias_init=torch,
      name="conv_head",
    )
    return style.activate(dense(pooled)), last, before
