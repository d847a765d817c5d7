"""Attention whose heads share their keys and values (arXiv:1911.02150)."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers
from kd_jax.models.blocks.tokens import transformer

_init = initializers.xavier_uniform()


class MultiQueryAttention(nn.Module):
  """Every pixel attends to all; as in MobileNetV4 (arXiv:2404.10518).

  Attributes:
    features: number of output channels.
    heads: number of queries per pixel.
    head_dim: channels of a query, a key and a value.
    kv_stride: above 1 a depthwise convolution of this stride, normalised,
      comes before the keys, and another before the values.
    size: its window.
    dilation: its dilation.
    same: pad it as TensorFlow does.
    eps: added to the variance in its normalisation.
    dtype: compute dtype.
  """

  features: int
  heads: int
  head_dim: int
  kv_stride: int = 1
  size: int = 3
  dilation: int = 1
  same: bool = False
  eps: float = 1e-5
  dtype: layers.Dtype = None

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n h w d"]:
    """Parameters `query`, `key`, `value` and `output`."""
    queries = self._dense(self.heads * self.head_dim, "query")(x)
    q = queries.reshape(len(x), -1, self.heads, self.head_dim)
    key, value = (self._shared(x, name, train) for name in ("key", "value"))
    key, value = (
      jnp.repeat(y[:, :, None], self.heads, axis=2) for y in (key, value)
    )
    read = transformer.attend(q, key, value, module=self)
    return self._dense(self.features, "output")(read.reshape(queries.shape))

  def _shared(self, x: Array, name: str, train: bool) -> Array:
    if self.kv_stride > 1:
      conv = layers.Conv(
        x.shape[-1],
        self.size,
        self.kv_stride,
        self.dilation,
        groups=x.shape[-1],
        dtype=self.dtype,
        same=self.same,
        kernel_init=_init,
        name=f"{name}_down",
      )
      norm = layers.BatchNorm(self.dtype, eps=self.eps, name=f"{name}_norm")
      x = norm(conv(x), train=train)
    y = self._dense(self.head_dim, name)(x)
    return y.reshape(len(y), -1, self.head_dim)

  def _dense(self, features: int, name: str) -> layers.Dense:
    return layers.Dense(
      features,
      use_bias=False,
      dtype=self.dtype,
      kernel_init=_init,
      name=name,
    )
