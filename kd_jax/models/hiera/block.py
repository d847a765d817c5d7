"""Stem and blocks of Hiera."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers
from kd_jax.models.blocks.tokens import transformer, windows

EPS = 1e-6
"""Of all layer normalisations."""

STRIDE = 4
UNIT = 8
"""Side of a window of stage 1, in patches."""

_POOL = (2, 2)


class Stem(nn.Module):
  """Overlapping patches with their positions.

  Attributes:
    features: width of a patch.
    grid: patches down and across.
    coarse: size of the table of positions of the image, to which those inside
      a window are added; None has one of `grid`.
    dtype: compute dtype.
  """

  features: int
  grid: tuple[int, int]
  coarse: tuple[int, int] | None
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, images: Float[Array, "n h w c"]
  ) -> Float[Array, "n y x d"]:
    """The map that enters the first block."""
    torch = layers.torch_linear_init(7 * 7 * images.shape[-1])
    x = nn.Conv(
      self.features,
      (7, 7),
      (STRIDE, STRIDE),
      ((3, 3), (3, 3)),
      dtype=self.dtype,
      kernel_init=torch,
      bias_init=torch,
      name="proj",
    )(images)
    return x + self._positions().astype(x.dtype)

  def _positions(self) -> Float[Array, "1 y x d"]:
    if self.coarse is None:
      table = self._table("pos_embed", (math.prod(self.grid), self.features))
      return table.reshape(1, *self.grid, self.features)
    table = self._table("pos_embed", (self.features, *self.coarse))
    unit = self._table("pos_embed_win", (self.features, UNIT, UNIT))
    table = jax.image.resize(table, (*table.shape[:2], *self.grid), "bicubic")
    repeats = (1, 1, *(side // UNIT for side in self.grid))
    return jnp.moveaxis(table + jnp.tile(unit, repeats), 1, -1)

  def _table(self, name: str, shape: tuple[int, ...]) -> Array:
    init = initializers.normal(0.02)
    return self.param(name, init, (1, *shape), jnp.float32)


class Attention(nn.Module):
  """Attention inside windows, whose query may be pooled.

  Attributes:
    features: width of the result.
    num_heads: number of heads.
    window: side of the windows, before pooling; 0 is the whole map.
    pooled: the query is the largest of every 2 x 2 pixels.
    out_init: initialiser of the kernel of `proj`.
    dtype: compute dtype; the softmax is in float32 at least.
  """

  features: int
  num_heads: int
  window: int
  pooled: bool
  out_init: initializers.Initializer
  dtype: layers.Dtype

  @nn.compact
  def __call__(self, x: Float[Array, "n h w d"]) -> Float[Array, "n y x c"]:
    """The map of the queries."""
    qkv = layers.Dense(
      3 * self.features,
      dtype=self.dtype,
      kernel_init=transformer.INIT,
      name="qkv",
    )(x)
    query, key, value = jnp.split(qkv, 3, axis=-1)
    size = (x.shape[1], x.shape[2])
    if self.window:
      size = (self.window, self.window)
    inner = size
    if self.pooled:
      query = nn.max_pool(query, _POOL, _POOL)
      inner = (size[0] // 2, size[1] // 2)
    query, key, value = (
      self._heads(windows.cut(y, side))
      for y, side in ((query, inner), (key, size), (value, size))
    )
    y = transformer.attend(query, key, value, module=self)
    area = (x.shape[1] * inner[0] // size[0], x.shape[2] * inner[1] // size[1])
    y = y.reshape(len(x), -1, y.shape[1], self.features)
    return layers.Dense(
      self.features, dtype=self.dtype, kernel_init=self.out_init, name="proj"
    )(windows.join(y, inner, area))

  def _heads(self, x: Float[Array, "n m l d"]) -> Float[Array, "k l h c"]:
    return x.reshape(
      -1, x.shape[2], self.num_heads, x.shape[3] // self.num_heads
    )


class Block(nn.Module):
  """Attention, then an MLP, each normalised first and added to the input.

  Attributes:
    attn: fields of `Attention`, without `dtype`.
    mlp_ratio: width of the MLP over that of the block.
    expand_proj: a wider input is projected; else it is the largest and the
      mean of every 2 x 2 pixels.
    init_values: first value of the scale of both branches; None has no scales.
    drop_path: probability of dropping a branch.
    dtype: compute dtype.
  """

  attn: Mapping[str, Any]
  mlp_ratio: float
  expand_proj: bool
  init_values: float | None
  drop_path: float
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w d"], *, train: bool
  ) -> Float[Array, "n y x c"]:
    """Two residual branches; the map is halved where `attn` pools."""
    width, out = self.attn["features"], self.attn["out_init"]
    y = layers.layer_norm(EPS, self.dtype, "norm1")(x)
    if x.shape[-1] != width:
      x = self._expanded(x, y, width)
    y = Attention(**self.attn, dtype=self.dtype, name="attn")(y)
    x = x + self._scaled(y, "ls1", train)
    y = layers.layer_norm(EPS, self.dtype, "norm2")(x)
    hidden = int(width * self.mlp_ratio)
    y = transformer.Mlp(hidden, out_init=out, dtype=self.dtype, name="mlp")(y)
    return x + self._scaled(y, "ls2", train)

  def _expanded(self, x: Array, normed: Array, width: int) -> Array:
    if not self.expand_proj:
      largest, mean = (
        pool(x, _POOL, _POOL) for pool in (nn.max_pool, nn.avg_pool)
      )
      return jnp.concatenate([largest, mean], -1)
    wide = layers.Dense(
      width, dtype=self.dtype, kernel_init=transformer.INIT, name="proj"
    )
    return nn.max_pool(wide(normed), _POOL, _POOL)

  def _scaled(self, y: Array, name: str, train: bool) -> Array:
    if self.init_values is not None:
      y = transformer.LayerScale(self.init_values, name=name)(y)
    return layers.DropPath(self.drop_path)(y, train=train)


class Stage(nn.Module):
  """Blocks of one stage, named by their numbers in the network.

  Attributes:
    blocks: (number, fields) of each.
  """

  blocks: tuple[tuple[int, Mapping[str, Any]], ...]

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w d"], *, train: bool
  ) -> Float[Array, "n y x c"]:
    """The map of the last block."""
    for number, fields in self.blocks:
      x = Block(**fields, name=f"block{number}")(x, train=train)
    return x
