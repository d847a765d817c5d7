"""Last normalisation and classifiers of vision transformers."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from flax.linen import dtypes
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers
from kd_jax.models.blocks.tokens import transformer


class Norm(nn.Module):
  """The last layer normalisation.

  Attributes:
    inner: 'norm' of the tokens, or 'fc_norm' of what they are pooled to.
    eps: added to the variance.
    dtype: compute dtype.
    kind: of the normalisation, see `layers.NORMS`.
  """

  inner: str
  eps: float
  dtype: layers.Dtype
  kind: str = "layer"

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Normalises."""
    return layers.NORMS[self.kind](self.eps, self.dtype, self.inner)(x)


class DistilledHead(nn.Module):
  """The classifiers of the class token and of the distillation token.

  Attributes:
    features: number of classes.
    dtype: compute dtype.
  """

  features: int
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n d"], distilled: Float[Array, "n d"]
  ) -> tuple[Float[Array, "n k"], Float[Array, "n k"]]:
    """Logits of the two; the second classifier is `dist`."""
    init = transformer.INIT
    shape = (x.shape[-1], self.features)
    kernel = self.param("kernel", init, shape, jnp.float32)
    bias = self.param("bias", initializers.zeros, shape[1:], jnp.float32)
    x, kernel, bias = dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    dist = layers.Dense(
      self.features, dtype=self.dtype, kernel_init=init, name="dist"
    )
    return x @ kernel + bias, dist(distilled)
