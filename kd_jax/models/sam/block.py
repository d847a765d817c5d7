"""Blocks with decomposed relative positions, in windows or over the map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers
from kd_jax.models.blocks.tokens import transformer, windows


class Attention(transformer.Attention):
  """Self-attention over a map, with a bias per row and per column.

  The bias of a query is its product with an embedding of the difference of
  rows, plus the same of columns (arXiv:2112.01526, eq. 4 and 5).

  Attributes:
    size: height and width of the map.
    table: size that the embeddings `rel_pos_h` and `rel_pos_w` are made for;
      they are resized linearly for another. None has no bias.
  """

  size: tuple[int, int] = (1, 1)
  table: tuple[int, int] | None = None

  def bias_of(
    self, q: Float[Array, "n t h d"]
  ) -> Float[Array, "n h t t"] | None:
    """See `transformer.Attention.bias_of`."""
    if self.table is None:
      return None
    n, t, heads, width = q.shape
    rows, columns = (
      self._embedding(name, side, made_for, width).astype(q.dtype)
      for name, side, made_for in zip(
        ("rel_pos_h", "rel_pos_w"), self.size, self.table, strict=True
      )
    )
    query = q.reshape(n, *self.size, heads, width)
    down = jnp.einsum("nyxhd,ykd->nhyxk", query, rows)
    across = jnp.einsum("nyxhd,xkd->nhyxk", query, columns)
    both = down[..., :, None] + across[..., None, :]
    return both.reshape(n, heads, t, t)

  def _embedding(
    self, name: str, side: int, made_for: int, width: int
  ) -> Float[Array, "q k d"]:
    shape = (2 * made_for - 1, width)
    table = self.param(name, initializers.zeros, shape, jnp.float32)
    if side != made_for:
      new = (2 * side - 1, width)
      table = jax.image.resize(table, new, "linear", antialias=False)
    places = np.arange(side)
    return table[places[:, None] - places + side - 1]


class Block(nn.Module):
  """Attention over windows or over the map, then an MLP.

  Attributes:
    attn: fields of `Attention`, without its sizes.
    mlp: fields of `transformer.Mlp`.
    window: side of the windows; 0 attends over the whole map.
    table: see `Attention`.
    eps: of the layer normalisations.
    init_values: first value of the scale of both branches; None or 0 leaves
      the scales out.
    drop_path: probability of dropping a branch.
    dtype: compute dtype.
  """

  attn: Mapping[str, Any]
  mlp: Mapping[str, Any]
  window: int
  table: tuple[int, int] | None
  eps: float
  init_values: float | None
  drop_path: float
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w d"], *, train: bool
  ) -> Float[Array, "n h w d"]:
    """Two residual branches."""
    size = (x.shape[1], x.shape[2])
    if self.window:
      size = (self.window, self.window)
    attn = Attention(
      **self.attn, size=size, table=self.table, dtype=self.dtype, name="attn"
    )

    def attend(tokens: Array, mask: np.ndarray | None) -> Array:
      del mask
      return attn(tokens.reshape(-1, *tokens.shape[2:])).reshape(tokens.shape)

    y = layers.layer_norm(self.eps, self.dtype, "norm1")(x)
    y = windows.attend(y, windows.Window(size, (0, 0)), attend)
    x = x + self._scaled(y, "ls1", train)
    y = layers.layer_norm(self.eps, self.dtype, "norm2")(x)
    y = transformer.Mlp(**self.mlp, dtype=self.dtype, name="mlp")(y)
    return x + self._scaled(y, "ls2", train)

  def _scaled(self, y: Array, name: str, train: bool) -> Array:
    if self.init_values:
      y = transformer.LayerScale(self.init_values, name=name)(y)
    return layers.DropPath(self.drop_path)(y, train=train)
