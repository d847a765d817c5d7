"""Blocks of EVA: attention that rotates, and gated MLPs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers
from kd_jax.models.blocks.tokens import rotary, transformer


class Attention(nn.Module):
  """Self-attention whose query and key are turned by their places.

  Attributes:
    num_heads: number of heads.
    kv_heads: heads of key and value; each serves num_heads / kv_heads heads
      of the query (arXiv:2305.13245).
    qkv_bias: add a bias to query, value and, with `key_bias`, key.
    key_bias: False leaves the key without a bias; in a fused layer the others
      are then the parameters `q_bias` and `v_bias`.
    fused: one layer `qkv`; else `q_proj`, `k_proj` and `v_proj`.
    qk_norm: normalise query and key per head.
    inner_norm: normalise what is attended, before the last layer.
    norm: kind of the normalisations, see `layers.NORMS`.
    eps: of the normalisations.
    out_init: initialiser of the kernel of `proj`.
    dtype: compute dtype; the softmax is in float32 at least.
  """

  num_heads: int
  kv_heads: int
  qkv_bias: bool
  key_bias: bool
  fused: bool
  qk_norm: bool
  inner_norm: bool
  norm: str
  eps: float
  out_init: initializers.Initializer
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "n t d"],
    turn: rotary.Turn | None = None,
    block: int = 0,
  ) -> Float[Array, "n t d"]:
    """The projected result.

    Args:
      x: tokens.
      turn: of query and key; None leaves them.
      block: number of the block, for `turn`.
    """
    width = x.shape[-1] // self.num_heads
    query, key, value = (
      y.reshape(*x.shape[:2], -1, width)
      for y in (self._fused(x) if self.fused else self._split(x))
    )
    if self.qk_norm:
      query, key = self._norm("q_norm")(query), self._norm("k_norm")(key)
    if turn is not None:
      query, key = turn(query, block), turn(key, block)
    groups = self.num_heads // self.kv_heads
    if groups > 1:
      key, value = (jnp.repeat(y, groups, axis=2) for y in (key, value))
    y = transformer.attend(query, key, value, module=self).reshape(x.shape)
    if self.inner_norm:
      y = self._norm("norm")(y)
    return self._dense(x.shape[-1], "proj", True, self.out_init)(y)

  def _fused(self, x: Array) -> list[Array]:
    width = x.shape[-1]
    whole = self.qkv_bias and self.key_bias
    y = self._dense(3 * width, "qkv", whole, transformer.INIT)(x)
    if self.qkv_bias and not whole:
      query, value = (
        self.param(name, initializers.zeros, (width,), jnp.float32)
        for name in ("q_bias", "v_bias")
      )
      bias = jnp.concatenate([query, jnp.zeros_like(query), value])
      y = y + bias.astype(y.dtype)
    return jnp.split(y, 3, axis=-1)

  def _split(self, x: Array) -> list[Array]:
    width = x.shape[-1]
    few = width // self.num_heads * self.kv_heads
    return [
      self._dense(features, name, use_bias, transformer.INIT)(x)
      for name, features, use_bias in (
        ("q_proj", width, self.qkv_bias),
        ("k_proj", few, self.qkv_bias and self.key_bias),
        ("v_proj", few, self.qkv_bias),
      )
    ]

  def _norm(self, name: str) -> nn.Module:
    return layers.NORMS[self.norm](self.eps, self.dtype, name)

  def _dense(
    self, width: int, name: str, use_bias: bool, init: initializers.Initializer
  ) -> nn.Module:
    return layers.Dense(
      width, use_bias=use_bias, dtype=self.dtype, kernel_init=init, name=name
    )


class Block(nn.Module):
  """Attention, then an MLP, each added to its input.

  Attributes:
    attn: fields of `Attention`.
    mlp: class and fields of the MLP.
    number: of the block.
    post_norm: normalise at the end of a branch instead of its entry.
    norm: kind of the normalisations, see `layers.NORMS`.
    eps: of the normalisations.
    init_values: first values of the scales of the branches; None has no
      scale.
    drop_path: probability of dropping a branch.
    dtype: compute dtype.
  """

  attn: Mapping[str, Any]
  mlp: tuple[type[nn.Module], Mapping[str, Any]]
  number: int
  post_norm: bool
  norm: str
  eps: float
  init_values: tuple[float | None, float | None]
  drop_path: float
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "n t d"],
    *,
    train: bool,
    turn: rotary.Turn | None = None,
  ) -> Float[Array, "n t d"]:
    """Two residual branches; `turn` is that of `Attention`."""
    kind, fields = self.mlp
    attn = Attention(**self.attn, name="attn")
    mlp = kind(**fields, name="mlp")
    x = x + self._branch(
      x, lambda y: attn(y, turn, self.number), 1, train=train
    )
    return x + self._branch(x, mlp, 2, train=train)

  def _branch(
    self, x: Array, layer: Callable[[Array], Array], k: int, *, train: bool
  ) -> Array:
    norm = layers.NORMS[self.norm](self.eps, self.dtype, f"norm{k}")
    y = norm(layer(x)) if self.post_norm else layer(norm(x))
    scale = self.init_values[k - 1]
    if scale is not None:
      y = transformer.LayerScale(scale, name=f"ls{k}")(y)
    return layers.DropPath(self.drop_path)(y, train=train)
