"""Blocks of TinyViT."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers
from kd_jax.models.blocks.tokens import transformer, windows
from kd_jax.models.convs import conv_norm

EPS = 1e-5
"""Of all layer normalisations."""


class Stem(nn.Module):
  """Two convolutions of stride 2.

  Attributes:
    features: width of the map.
    style: of the convolutions.
  """

  features: int
  style: conv_norm.Style

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """A quarter of the size."""
    conv = functools.partial(
      conv_norm.ConvNorm, style=self.style, size=3, stride=2
    )
    x = conv(self.features // 2, act=True, name="conv1")(x, train=train)
    return conv(self.features, name="conv2")(x, train=train)


class MBConv(nn.Module):
  """An inverted bottleneck, activated behind its sum (arXiv:1801.04381).

  Attributes:
    expand_ratio: inner width over that of the map.
    drop_path: probability of dropping the branch.
    style: of the convolutions.
  """

  expand_ratio: float
  drop_path: float
  style: conv_norm.Style

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w d"], *, train: bool
  ) -> Float[Array, "n h w d"]:
    """Keeps the shape."""
    inner = int(x.shape[-1] * self.expand_ratio)
    conv = functools.partial(conv_norm.ConvNorm, style=self.style)
    y = conv(inner, act=True, name="conv1")(x, train=train)
    middle = conv(inner, size=3, groups=inner, act=True, name="conv2")
    y = middle(y, train=train)
    y = conv(x.shape[-1], scale=0.0, name="conv3")(y, train=train)
    y = layers.DropPath(self.drop_path)(y, train=train)
    return self.style.activate(y + x)


class Merge(nn.Module):
  """Halves the size, by a depthwise convolution between two of 1 x 1.

  Attributes:
    features: width of the new map.
    style: of the convolutions.
  """

  features: int
  style: conv_norm.Style

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """No activation at the end."""
    width = self.features
    conv = functools.partial(conv_norm.ConvNorm, width, self.style)
    x = conv(act=True, name="conv1")(x, train=train)
    middle = conv(size=3, stride=2, groups=width, act=True, name="conv2")
    return conv(name="conv3")(middle(x, train=train), train=train)


@functools.cache
def offsets(side: int) -> np.ndarray:
  """Number of the distance between two places of a window: (l, l).

  Distances are |rows|, |columns|, numbered as they are met (LeViT,
  arXiv:2104.01136).
  """
  places = list(itertools.product(range(side), repeat=2))
  known: dict[tuple[int, int], int] = {}
  return np.array(
    [
      [
        known.setdefault((abs(a - c), abs(b - d)), len(known))
        for c, d in places
      ]
      for a, b in places
    ]
  )


class Attention(nn.Module):
  """Normalisation, and attention inside windows with a bias per distance.

  Attributes:
    num_heads: number of heads; divides the width.
    side: of a window.
    dtype: compute dtype.
  """

  num_heads: int
  side: int
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n windows l d"]
  ) -> Float[Array, "n windows l d"]:
    """Keeps the shape; what pads the map is attended to."""
    shape, width = x.shape, x.shape[-1]
    dense = functools.partial(
      layers.Dense, dtype=self.dtype, kernel_init=transformer.INIT
    )
    x = layers.layer_norm(EPS, self.dtype, "norm")(x)
    x = dense(3 * width, name="qkv")(x.reshape(-1, *shape[2:]))
    # The three lie together per head.
    q, k, v = jnp.split(x.reshape(*x.shape[:2], self.num_heads, -1), 3, -1)
    y = transformer.attend(q, k, v, bias=self._bias(), module=self)
    return dense(width, name="proj")(y.reshape(shape))

  def _bias(self) -> Float[Array, "1 heads l l"]:
    shape = (self.num_heads, self.side**2)
    init = initializers.zeros
    table = self.param("attention_biases", init, shape, jnp.float32)
    return table[:, offsets(self.side)][None]


class Block(nn.Module):
  """Window attention, a depthwise convolution, and an MLP.

  Attributes:
    attn: fields of `Attention`.
    mlp_ratio: width of the MLP over that of the map.
    local_conv_size: window of the convolution.
    drop_path: probability of dropping a branch.
    style: of the convolution.
  """

  attn: Mapping[str, Any]
  mlp_ratio: float
  local_conv_size: int
  drop_path: float
  style: conv_norm.Style

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w d"], *, train: bool
  ) -> Float[Array, "n h w d"]:
    """Keeps the shape."""
    dtype, width = self.style.dtype, x.shape[-1]
    drop = layers.DropPath(self.drop_path)
    attention = Attention(**self.attn, dtype=dtype, name="attn")
    side = attention.side
    window = windows.Window((side, side), (0, 0))
    y = windows.attend(x, window, lambda tokens, _: attention(tokens))
    x = x + drop(y, train=train)
    x = conv_norm.ConvNorm(
      width, self.style, self.local_conv_size, groups=width, name="local_conv"
    )(x, train=train)
    y = layers.layer_norm(EPS, dtype, "norm")(x)
    mlp = transformer.Mlp(int(width * self.mlp_ratio), dtype=dtype, name="mlp")
    return x + drop(mlp(y), train=train)


class Stage(nn.Module):
  """Blocks of one resolution.

  Attributes:
    kind: class of the blocks.
    blocks: the fields of each.
    merge: fields of `Merge` in front; None keeps the size.
  """

  kind: type[nn.Module]
  blocks: tuple[Mapping[str, Any], ...]
  merge: Mapping[str, Any] | None

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """The map of the last block."""
    if self.merge is not None:
      x = Merge(**self.merge, name="downsample")(x, train=train)
    for i, fields in enumerate(self.blocks):
      x = self.kind(**fields, name=f"block{i}")(x, train=train)
    return x
