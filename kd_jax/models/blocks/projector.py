"""ScaleKD's cross-attention projector (arXiv:2411.06786, section 3.1).

Learned or given queries on the teacher's grid attend to the student's map, so
that a map of any size and width becomes one of the teacher's. As in the
authors' code, which differs from a plain decoder block: no self-attention, no
residual around the attention, and a factor on its logits.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from flax.linen import dtypes
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models import backbone
from kd_jax.models.blocks import layers
from kd_jax.models.blocks.tokens import transformer

NORMS = ("batch", "layer")

_EPS = 1e-5
_POSITIONS = initializers.normal(0.02)  # cut at 100 deviations in the original


class Projector(nn.Module):
  """(n, h, w, s) of the student -> (n, queries, width) of the teacher.

  z = ReLU(norm(conv3x3(x))) + E;  u = ReLU(W q);  y = LN(attention(u, z, z));
  output y + MLP(y). Initialised as PyTorch does by default, E from N(0, .02^2),
  queries from N(0, 1). Two biases of the original are left out, of keys and of
  the convolution in front of a batch normalisation: they change no output, and
  their gradient is zero.

  Attributes:
    width: the teacher's.
    num_heads: of the attention; divides `width`.
    num_queries: rows of the learned table of queries; 0 has none, and queries
      must be given.
    sharpness: factor on the logits of the attention (5 in most of the pairs).
    norm: one of `NORMS`, of the student's side; 'batch' has global statistics.
    dtype: compute dtype.
  """

  width: int
  num_heads: int
  num_queries: int = 0
  sharpness: float = 1.0
  norm: str = "batch"
  dtype: layers.Dtype = None

  def __post_init__(self) -> None:
    super().__post_init__()
    backbone.one_of("norm", self.norm, NORMS)
    if self.num_heads < 1 or self.width % self.num_heads:
      raise ValueError(
        f"the projector has {self.num_heads} heads, which do not divide the "
        f"teacher's width {self.width}. Set --config.method.heads."
      )
    if not self.sharpness > 0:
      raise ValueError(f"sharpness is {self.sharpness}; it must be > 0")

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "n h w s"],
    query: Float[Array, "n q d"] | None = None,
    *,
    train: bool,
  ) -> Float[Array, "n q d"]:
    """Projects; gradients flow into `query` too.

    Args:
      x: the student's map, of the size that the parameters were made for.
      query: given queries; None takes the learned ones.
      train: use and update batch statistics.
    """
    keys = self._keys(x, train)
    if query is None:
      table = (self.num_queries, self.width)
      query = self.param("query", initializers.normal(1.0), table, jnp.float32)
      query = jnp.broadcast_to(query, (x.shape[0], *table))
    query = nn.relu(self._dense("query_proj", self.width)(query))
    y = self._attention(query, keys)
    y = layers.layer_norm(_EPS, self.dtype, "norm")(y)
    hidden = nn.relu(self._dense("fc1", 4 * self.width)(y))
    return y + self._dense("fc2", self.width)(hidden)

  def _keys(self, x: Array, train: bool) -> Float[Array, "n k s"]:
    n, height, width, channels = x.shape
    init = layers.torch_linear_init(9 * channels)
    conv = layers.Conv(
      channels,
      3,
      dtype=self.dtype,
      use_bias=self.norm != "batch",
      kernel_init=init,
      bias_init=init,
      name="conv",
    )
    x = conv(x)
    if self.norm == "batch":
      x = layers.BatchNorm(self.dtype, name="conv_norm")(x, train=train)
    else:
      x = layers.layer_norm(_EPS, self.dtype, "conv_norm")(x)
    shape = (height, width, channels)
    place = self.param("pos_embed", _POSITIONS, shape, jnp.float32)
    x = nn.relu(x) + place.astype(x.dtype)
    return x.reshape(n, height * width, channels)

  def _attention(self, query: Array, keys: Array) -> Array:
    q, k, v = (
      self._heads(self._dense(name, self.width, name != "k")(of))
      for name, of in (("q", query), ("k", keys), ("v", keys))
    )
    scale = self.sharpness * q.shape[-1] ** -0.5
    mixed = transformer.attend(q, k, v, scale=scale)
    return self._dense("proj", self.width)(mixed.reshape(query.shape))

  def _heads(self, x: Array) -> Array:
    return x.reshape(*x.shape[:2], self.num_heads, -1)

  def _dense(self, name: str, width: int, use_bias: bool = True) -> nn.Module:
    return TorchDense(width, use_bias, self.dtype, name=name)


class TorchDense(nn.Module):
  """Linear layer whose kernel and bias start from U(-1, 1) / sqrt(inputs).

  Attributes:
    width: number of outputs.
    use_bias: add a bias.
    dtype: compute dtype.
  """

  width: int
  use_bias: bool = True
  dtype: layers.Dtype = None

  @nn.compact
  def __call__(self, x: Float[Array, "*n i"]) -> Float[Array, "*n o"]:
    """Parameters `kernel` and `bias`."""
    init = layers.torch_linear_init(x.shape[-1])
    shape = (x.shape[-1], self.width)
    kernel = self.param("kernel", init, shape, jnp.float32)
    x, kernel = dtypes.promote_dtype(x, kernel, dtype=self.dtype)
    y = x @ kernel
    if not self.use_bias:
      return y
    bias = self.param("bias", init, shape[1:], jnp.float32)
    return y + bias.astype(y.dtype)
