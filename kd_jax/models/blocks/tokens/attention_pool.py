"""Pooling of tokens by attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers
from kd_jax.models.blocks.tokens import transformer

RULES = (
  ("attn_pool.latent", "params/pool/latent", "copy"),
  ("attn_pool.q", "params/pool/q", "dense"),
  ("attn_pool.kv", "params/pool/kv", "dense"),
  ("attn_pool.proj", "params/pool/proj", "dense"),
  ("attn_pool.norm", "params/pool/norm", "affine"),
  ("attn_pool.mlp.fc1", "params/pool/mlp/fc1", "dense"),
  ("attn_pool.mlp.fc2", "params/pool/mlp/fc2", "dense"),
)
"""Conversion rules of `AttentionPool`, named `pool`."""


class AttentionPool(nn.Module):
  """Pools by attention of one learnt query, then an MLP (arXiv:1810.00825).

  Attributes:
    num_heads: number of heads.
    mlp: fields of `transformer.Mlp`.
    eps: of the normalisation.
    dtype: compute dtype.
    norm: kind of the normalisation, see `layers.NORMS`.
  """

  num_heads: int
  mlp: Mapping[str, Any]
  eps: float
  dtype: layers.Dtype
  norm: str = "layer"

  @nn.compact
  def __call__(self, x: Float[Array, "n t d"]) -> Float[Array, "n d"]:
    """One vector per image."""
    n, t, d = x.shape
    init = initializers.truncated_normal(d**-0.5)
    latent = self.param("latent", init, (1, 1, d), jnp.float32)
    q = self._dense(d, "q")(latent.astype(x.dtype))
    q = jnp.broadcast_to(
      q.reshape(1, 1, *self._heads(d)), (n, 1, *self._heads(d))
    )
    kv = self._dense(2 * d, "kv")(x).reshape(n, t, 2, *self._heads(d))
    k, v = kv[:, :, 0], kv[:, :, 1]
    y = transformer.attend(q, k, v, module=self).reshape(n, d)
    y = self._dense(d, "proj")(y)
    z = layers.NORMS[self.norm](self.eps, self.dtype, "norm")(y)
    mlp = transformer.Mlp(**self.mlp, dtype=self.dtype, name="mlp")
    return y + mlp(z)

  def _heads(self, width: int) -> tuple[int, int]:
    return self.num_heads, width // self.num_heads

  def _dense(self, width: int, name: str) -> nn.Module:
    init = transformer.INIT
    return layers.Dense(width, dtype=self.dtype, kernel_init=init, name=name)
