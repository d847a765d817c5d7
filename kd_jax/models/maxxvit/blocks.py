"""Attention of CoAtNet and MaxViT: over maps, in windows and over grids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers
from kd_jax.models.blocks.tokens import transformer, windows
from kd_jax.models.maxxvit import conv_blocks

Size = tuple[int, int]


class RelativeBias(nn.Module):
  """What is added to the products of two places.

  Attributes:
    kind: 'bias' has a table, 'bias_tf' one in TensorFlow's order, 'mlp' makes
      it from the logarithm of the distances (arXiv:2111.09883).
    size: height and width of the map.
    num_heads: number of heads.
    hidden: width of the MLP.
    dtype: compute dtype of the MLP.
  """

  kind: str
  size: Size
  num_heads: int
  hidden: int
  dtype: layers.Dtype

  @nn.compact
  def __call__(self) -> Float[Array, "1 heads t t"]:
    """The bias."""
    index = windows.relative_index(self.size)
    if self.kind == "mlp":
      rows = self._mlp()
      return rows[index].transpose(2, 0, 1)[None]
    height, width = (2 * side - 1 for side in self.size)
    init = initializers.normal(0.02)
    flat = self.kind == "bias"
    shape = (
      (height * width, self.num_heads)
      if flat
      else (self.num_heads, height, width)
    )
    name = "relative_position_bias_table"
    table = self.param(name, init, shape, jnp.float32)
    if flat:
      return table[index].transpose(2, 0, 1)[None]
    # There the place of the query is subtracted from that of the key.
    return table.reshape(self.num_heads, -1)[:, index.T][None]

  def _mlp(self) -> Float[Array, "r heads"]:
    axes = [np.arange(1 - side, side, dtype=np.float64) for side in self.size]
    places = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    logs = np.sign(places) * np.log1p(np.abs(places))
    # Float32 in timm, whatever the network computes in.
    hidden = layers.Dense(self.hidden, dtype=self.dtype, name="fc1")
    out = layers.Dense(self.num_heads, dtype=self.dtype, name="fc2")
    return out(nn.relu(hidden(jnp.asarray(logs.astype(np.float32)))))


class Attention(nn.Module):
  """Self-attention with a relative bias.

  Attributes:
    width: of the output.
    inner: of all heads together.
    dim_head: of a head.
    head_first: query, key and value of a head lie together.
    rel_pos: kind and hidden width of `RelativeBias`.
    dtype: compute dtype; the softmax is in float32 at least.
  """

  width: int
  inner: int
  dim_head: int
  head_first: bool
  rel_pos: tuple[str, int]
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n t d"], size: Size
  ) -> Float[Array, "n t c"]:
    """Attends over a map of this size."""
    heads = self.inner // self.dim_head
    dense = {"dtype": self.dtype, "kernel_init": transformer.INIT}
    qkv = layers.Dense(3 * self.inner, name="qkv", **dense)(x)
    if self.head_first:
      qkv = qkv.reshape(*x.shape[:2], heads, 3, -1)
      query, key, value = (qkv[..., i, :] for i in range(3))
    else:
      qkv = qkv.reshape(*x.shape[:2], 3, heads, -1)
      query, key, value = (qkv[:, :, i] for i in range(3))
    kind, hidden = self.rel_pos
    bias = RelativeBias(kind, size, heads, hidden, self.dtype, name="rel_pos")()
    y = transformer.attend(query, key, value, bias=bias, module=self)
    y = y.reshape(*x.shape[:2], -1)
    return layers.Dense(self.width, name="proj", **dense)(y)


def grid_cut(x: Float[Array, "n h w d"], size: Size) -> Float[Array, "m l d"]:
  """Tokens that lie as far apart as possible: `size` of them per set."""
  n, height, width, d = x.shape
  h, w = size
  x = x.reshape(n, h, height // h, w, width // w, d)
  return x.transpose(0, 2, 4, 1, 3, 5).reshape(-1, h * w, d)


def grid_join(
  x: Float[Array, "m l d"], size: Size, whole: Size
) -> Float[Array, "n h w d"]:
  """The inverse of `grid_cut`, for a map of the size `whole`."""
  (h, w), (height, width), d = size, whole, x.shape[-1]
  x = x.reshape(-1, height // h, width // w, h, w, d)
  return x.transpose(0, 3, 1, 4, 2, 5).reshape(-1, height, width, d)


def partitioned(
  x: Float[Array, "n h w d"], size: Size, attention: nn.Module, *, grid: bool
) -> Float[Array, "n h w c"]:
  """Attends within windows of a size, or within grids of that many tokens."""
  whole = (x.shape[1], x.shape[2])
  if grid:
    return grid_join(attention(grid_cut(x, size), size), size, whole)
  cut = windows.cut(x, size)
  y = attention(cut.reshape(-1, *cut.shape[2:]), size)
  return windows.join(y.reshape(*cut.shape[:3], -1), size, whole)


class Residual(nn.Module):
  """What attention blocks share: scaled branches and an MLP.

  Attributes:
    attn: fields of `Attention`, without its widths.
    act_layer: one of `transformer.ACTIVATIONS`.
    eps: of the normalisations.
    init_values: first value of the scale of each branch; None has no scales.
    drop_path: probability of dropping a branch.
    dtype: compute dtype.
  """

  attn: Mapping[str, Any]
  act_layer: str
  eps: float
  init_values: float | None
  drop_path: float
  dtype: layers.Dtype

  def attention(self, name: str, width: int, inner: int) -> Attention:
    """A layer."""
    return Attention(width, inner, **self.attn, dtype=self.dtype, name=name)

  def scaled(self, y: Array, number: int, *, train: bool) -> Array:
    """A branch, as it is added."""
    if self.init_values:
      y = transformer.LayerScale(self.init_values, name=f"ls{number}")(y)
    return layers.DropPath(self.drop_path)(y, train=train)

  def feed(self, y: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """The second branch."""
    act = transformer.ACTIVATIONS[self.act_layer]
    return transformer.Mlp(4 * y.shape[-1], act, dtype=self.dtype, name="mlp")(
      y
    )

  def normed(self, x: Float[Array, "*b d"], name: str) -> Array:
    """Normalises."""
    return layers.layer_norm(self.eps, self.dtype, name)(x)


class Partition(Residual):
  """Attention in windows or over a grid, then an MLP.

  Attributes:
    size: of a window or grid.
    grid: which.
  """

  size: Size = (7, 7)
  grid: bool = False

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w d"], *, train: bool
  ) -> Float[Array, "n h w d"]:
    """Two residual branches."""
    attn = self.attention("attn", x.shape[-1], x.shape[-1])
    y = self.normed(x, "norm1")
    y = partitioned(y, self.size, attn, grid=self.grid)
    x = x + self.scaled(y, 1, train=train)
    y = self.feed(self.normed(x, "norm2"))
    return x + self.scaled(y, 2, train=train)


class ParallelPartition(Residual):
  """Both attentions side by side, each of half the width, then an MLP.

  Attributes:
    size: of a window and a grid.
  """

  size: Size = (7, 7)

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w d"], *, train: bool
  ) -> Float[Array, "n h w d"]:
    """Two residual branches."""
    width = x.shape[-1]
    y = self.normed(x, "norm1")
    both = [
      partitioned(
        y, self.size, self.attention(name, width // 2, width), grid=grid
      )
      for name, grid in (("attn_block", False), ("attn_grid", True))
    ]
    x = x + self.scaled(jnp.concatenate(both, -1), 1, train=train)
    y = self.feed(self.normed(x, "norm2"))
    return x + self.scaled(y, 2, train=train)


class Transformer(Residual):
  """Attention over the whole map, then an MLP.

  Attributes:
    width: of the output.
    stride: 1 or 2.
    expand_first: heads have the width of the output, else of the input.
    shortcut_bias: the convolution of the shortcut has a bias.
    pool_type: halves the map.
    batch_norm: normalise by batches instead of layers.
  """

  width: int = 0
  stride: int = 1
  expand_first: bool = True
  shortcut_bias: bool = True
  pool_type: str = "avg2"
  batch_norm: bool = False

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """Two residual branches."""
    name = "norm1" if self.stride == 1 else "norm1_norm"
    inner = self.width if self.expand_first else x.shape[-1]
    y = self._norm(x, name, train=train)
    if self.stride == 2:
      y = conv_blocks.pool(y, self.pool_type)
      x = conv_blocks.Downsample(
        self.width,
        self.pool_type,
        self.shortcut_bias,
        self.dtype,
        name="shortcut",
      )(x)
    size = (y.shape[1], y.shape[2])
    attn = self.attention("attn", self.width, inner)
    y = attn(y.reshape(len(y), -1, y.shape[-1]), size)
    x = x + self.scaled(y.reshape(x.shape), 1, train=train)
    y = self.feed(self._norm(x, "norm2", train=train))
    return x + self.scaled(y, 2, train=train)

  def _norm(self, x: Array, name: str, *, train: bool) -> Array:
    if not self.batch_norm:
      return self.normed(x, name)
    return layers.BatchNorm(self.dtype, eps=self.eps, name=name)(x, train=train)
