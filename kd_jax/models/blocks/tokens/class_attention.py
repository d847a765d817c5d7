"""Attention of the class token to all tokens (arXiv:2103.17239, section 3)."""

from __future__ import annotations

from flax import linen as nn
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers
from kd_jax.models.blocks.tokens import transformer

PARTS = ("q", "k", "v", "proj")
"""Its linear layers, named as in timm."""


class ClassAttention(nn.Module):
  """Attends with the first token alone.

  Attributes:
    num_heads: number of heads; divides the width.
    qkv_bias: query, key and value have a bias.
    dtype: compute dtype.
  """

  num_heads: int
  qkv_bias: bool
  dtype: layers.Dtype

  @nn.compact
  def __call__(self, x: Float[Array, "n t d"]) -> Float[Array, "n 1 d"]:
    """What is added to the class token; parameters are named as `PARTS`."""
    query, key, value = (
      self._heads(tokens, name)
      for tokens, name in ((x[:, :1], "q"), (x, "k"), (x, "v"))
    )
    y = transformer.attend(query, key, value, module=self)
    return layers.Dense(
      x.shape[-1],
      dtype=self.dtype,
      kernel_init=transformer.INIT,
      name="proj",
    )(y.reshape(len(x), 1, -1))

  def _heads(self, x: Array, name: str) -> Float[Array, "n t heads e"]:
    y = layers.Dense(
      x.shape[-1],
      use_bias=self.qkv_bias,
      dtype=self.dtype,
      kernel_init=transformer.INIT,
      name=name,
    )(x)
    return y.reshape(*x.shape[:2], self.num_heads, -1)
