"""What networks of equally wide tokens share (ViT, BEiT, EVA, Mixer).

The blocks are split over the stages: stage k of 1..4
runs the blocks (k - 1) depth // 4 .. k depth // 4 - 1, so that a depth of 12
makes 3, 3, 3, 3 and one of 27 makes 6, 7, 7, 7. A block keeps its number in the
whole network as its name: 'stage2/block3', tap 'block03'.

A family has a `patches.Stem`, `Stage`s of `Block`s (or of blocks of its own)
and a head; `token_net.TokenNet` runs them. Linear layers start from
N(0, 0.02^2), which is what timm's truncated normal amounts to (it cuts at 100
standard deviations); biases at 0.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers

Rotate = Callable[[Array], Array]

INIT = initializers.normal(0.02)
"""Of linear layers."""

ATTENTION = "attention"
"""Name of the weights of a softmax attention among 'intermediates'."""

PARTITION = (
  ("*/attn/proj/kernel", -2),
  ("*/fc2/kernel", -2),
  ("*kernel", -1),
)
"""`Backbone.PARTITION` of blocks of an attention and an MLP: the second layer
of each reads what the first one has split (arXiv:1909.08053, section 3)."""

_BLOCK = "params/stage{s}/block{b}/"
BLOCK_RULES = (
  *(
    (f"blocks.{{b}}.{theirs}", _BLOCK + ours, layout)
    for theirs, ours, layout in (
      ("norm1", "norm1", "affine"),
      ("attn.qkv", "attn/qkv", "dense"),
      ("attn.q_norm", "attn/q_norm", "affine"),
      ("attn.k_norm", "attn/k_norm", "affine"),
      ("attn.norm", "attn/norm", "affine"),
      ("attn.proj", "attn/proj", "dense"),
      ("ls1.gamma", "ls1/gamma", "copy"),
      ("norm2", "norm2", "affine"),
      ("mlp.fc1", "mlp/fc1", "dense"),
      ("mlp.fc1_g", "mlp/fc1_g", "dense"),
      ("mlp.fc1_x", "mlp/fc1_x", "dense"),
      ("mlp.norm", "mlp/norm", "affine"),
      ("mlp.fc2", "mlp/fc2", "dense"),
      ("ls2.gamma", "ls2/gamma", "copy"),
    )
  ),
)
"""Conversion rules of `Block`, with timm's names in a ViT."""


def quick_gelu(x: Array) -> Array:
  """OpenAI's approximation of GELU: x sigmoid(1.702 x)."""
  return x * nn.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
  "gelu": functools.partial(nn.gelu, approximate=False),
  "gelu_tanh": functools.partial(nn.gelu, approximate=True),
  "quick_gelu": quick_gelu,
  "relu": nn.relu,
  "silu": nn.silu,
}
"""By timm's names; 'gelu' is the exact one."""


class Attention(nn.Module):
  """Multi-head self-attention with one projection for query, key and value.

  Attributes:
    num_heads: number of heads; divides the width.
    qkv_bias: add a bias to query, key and value.
    key_bias: False leaves the bias of the key out; those of query and value
      are then the parameters `q_bias` and `v_bias` (BEiT).
    qk_norm: normalise query and key per head.
    eps: of the normalisations.
    dtype: compute dtype; the softmax is in float32 at least.
    kernel_init: initialiser of the kernel of `qkv`.
    out_init: initialiser of the kernel of `proj`.
    norm: kind of the normalisations, see `layers.NORMS`.
    inner_norm: normalise what is attended, before the last layer.
    proj_bias: the last layer has a bias.
  """

  num_heads: int
  qkv_bias: bool = True
  key_bias: bool = True
  qk_norm: bool = False
  eps: float = 1e-6
  dtype: layers.Dtype = None
  kernel_init: initializers.Initializer = INIT
  out_init: initializers.Initializer = INIT
  norm: str = "layer"
  inner_norm: bool = False
  proj_bias: bool = True

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "n t d"],
    *,
    bias: Float[Array, "#n #heads t t"] | None = None,
    rotate: Rotate | None = None,
  ) -> Float[Array, "n t d"]:
    """Attends.

    Args:
      x: tokens.
      bias: added to the scaled products, before the softmax.
      rotate: (n, t, heads, d) -> the same, of query and key, after their
        normalisation: rotary position embedding.

    Returns:
      The projected result; parameters `qkv` and `proj`.
    """
    width = x.shape[-1]
    fused = self.qkv_bias and self.key_bias
    qkv = self._dense(3 * width, "qkv", fused, self.kernel_init)(x)
    if self.qkv_bias and not self.key_bias:
      qkv = qkv + self._partial_bias(width).astype(qkv.dtype)
    heads = (*x.shape[:2], 3, self.num_heads, width // self.num_heads)
    q, k, v = jnp.moveaxis(qkv.reshape(heads), 2, 0)
    if self.qk_norm:
      q, k = self._norm("q_norm")(q), self._norm("k_norm")(k)
    if rotate is not None:
      q, k = rotate(q), rotate(k)
    if bias is None:
      bias = self.bias_of(q)
    y = attend(q, k, v, bias=bias, module=self).reshape(x.shape)
    if self.inner_norm:
      y = self._norm("norm")(y)
    return self._dense(width, "proj", self.proj_bias, self.out_init)(y)

  def bias_of(
    self, q: Float[Array, "n t h d"]
  ) -> Float[Array, "n h t t"] | None:
    """What a subclass adds to the scaled products of these queries."""
    del q
    return None

  def _norm(self, name: str) -> nn.Module:
    return layers.NORMS[self.norm](self.eps, self.dtype, name)

  def _dense(
    self, width: int, name: str, use_bias: bool, init: initializers.Initializer
  ) -> nn.Module:
    return layers.Dense(
      width, use_bias=use_bias, dtype=self.dtype, kernel_init=init, name=name
    )

  def _partial_bias(self, width: int) -> Array:
    zeros = initializers.zeros
    q = self.param("q_bias", zeros, (width,), jnp.float32)
    v = self.param("v_bias", zeros, (width,), jnp.float32)
    return jnp.concatenate([q, jnp.zeros_like(q), v])


def attend(
  q: Float[Array, "n q heads d"],
  k: Float[Array, "n k heads d"],
  v: Float[Array, "n k heads d"],
  *,
  bias: Float[Array, "#n #heads q k"] | None = None,
  scale: float | None = None,
  module: nn.Module | None = None,
) -> Float[Array, "n q heads d"]:
  """Softmax attention per head (arXiv:1706.03762, eq. 1).

  Args:
    q: queries.
    k: keys.
    v: values.
    bias: added to the scaled products.
    scale: of the products; None is 1 / sqrt(d).
    module: notes the weights (n, heads, q, k) as `ATTENTION` for who asks for
      it with mutable=['intermediates']; else nothing is kept.

  Returns:
    The values, weighted; products and softmax are in float32 at least.
  """
  # Not jax.nn.dot_product_attention: it computes in float32 even for float64.
  exact = jnp.promote_types(q.dtype, jnp.float32)
  factor = q.shape[-1] ** -0.5 if scale is None else scale
  logits = factor * jnp.einsum(
    "nqhd,nkhd->nhqk", q, k, preferred_element_type=exact
  )
  if bias is not None:
    logits = logits + bias.astype(exact)
  weights = nn.softmax(logits).astype(v.dtype)
  if module is not None:
    module.sow("intermediates", ATTENTION, weights)
  return jnp.einsum("nhqk,nkhd->nqhd", weights, v)


class Mlp(nn.Module):
  """Two linear layers with an activation between them.

  Attributes:
    width: outputs of the first layer.
    activation: elementwise.
    gated: the first half of the outputs, activated, times the second half
      goes on (SwiGLU with 'silu', both halves in one layer).
    gate_last: the second half is activated instead.
    dtype: compute dtype.
    kernel_init: initialiser of the kernel of `fc1`.
    bias_init: initialiser of the bias of `fc1`.
    out_init: initialiser of the kernel of `fc2`.
    out_bias_init: initialiser of the bias of `fc2`.
    use_bias: both layers have a bias.
    norm: kind of a normalisation before the last layer, see `layers.NORMS`;
      None is none.
    eps: of that normalisation.
  """

  width: int
  activation: Callable[[Array], Array] = ACTIVATIONS["gelu"]
  gated: bool = False
  gate_last: bool = False
  dtype: layers.Dtype = None
  kernel_init: initializers.Initializer = INIT
  bias_init: initializers.Initializer = initializers.zeros
  out_init: initializers.Initializer = INIT
  out_bias_init: initializers.Initializer = initializers.zeros
  use_bias: bool = True
  norm: str | None = None
  eps: float = 1e-6

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Keeps the width; parameters `fc1` and `fc2`."""
    y = layers.Dense(
      self.width,
      use_bias=self.use_bias,
      dtype=self.dtype,
      kernel_init=self.kernel_init,
      bias_init=self.bias_init,
      name="fc1",
    )(x)
    if self.gated:
      gate, y = jnp.split(y, 2, axis=-1)
      if self.gate_last:
        gate, y = y, gate
      y = self.activation(gate) * y
    else:
      y = self.activation(y)
    if self.norm is not None:
      y = layers.NORMS[self.norm](self.eps, self.dtype, "norm")(y)
    return layers.Dense(
      x.shape[-1],
      use_bias=self.use_bias,
      dtype=self.dtype,
      kernel_init=self.out_init,
      bias_init=self.out_bias_init,
      name="fc2",
    )(y)


class LayerScale(nn.Module):
  """A factor per channel, parameter `gamma` (arXiv:2103.17239, eq. 4).

  Attributes:
    init_value: its first value.
    ndim: axes of `gamma`, of which all but the last are 1. Like timm, weight
      decay leaves vectors alone, and nothing else.
  """

  init_value: float
  ndim: int = 1

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Scales."""
    init = initializers.constant(self.init_value)
    shape = (*(1,) * (self.ndim - 1), x.shape[-1])
    gamma = self.param("gamma", init, shape, jnp.float32)
    return x * gamma.astype(x.dtype)


class Block(nn.Module):
  """Attention, then an MLP, each normalised first and added to the input.

  Attributes:
    attn: fields of `Attention`, without `dtype`.
    mlp: fields of `Mlp`, without `dtype`.
    eps: of the layer normalisations.
    init_values: first value of the scale of both branches; None or 0 leaves
      the scales out.
    drop_path: probability of dropping a branch.
    dtype: compute dtype.
    norm: kind of the normalisations, see `layers.NORMS`.
    kinds: classes of attention and MLP, where they are not `Attention` and
      `Mlp`.
  """

  attn: Mapping[str, Any]
  mlp: Mapping[str, Any]
  eps: float = 1e-6
  init_values: float | None = None
  drop_path: float = 0.0
  dtype: layers.Dtype = None
  norm: str = "layer"
  kinds: tuple[type[nn.Module], type[nn.Module]] = (Attention, Mlp)

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "n t d"],
    *,
    train: bool,
    bias: Float[Array, "#n #heads t t"] | None = None,
    rotate: Rotate | None = None,
  ) -> Float[Array, "n t d"]:
    """`bias` and `rotate` are those of `Attention`."""
    attention, perceptron = self.kinds
    attn = attention(**self.attn, dtype=self.dtype, name="attn")
    mlp = perceptron(**self.mlp, dtype=self.dtype, name="mlp")
    norm = layers.NORMS[self.norm]
    y = norm(self.eps, self.dtype, "norm1")(x)
    given = {"bias": bias, "rotate": rotate}
    given = {k: v for k, v in given.items() if v is not None}
    x = x + self._branch(attn(y, **given), "1", train)
    y = norm(self.eps, self.dtype, "norm2")(x)
    return x + self._branch(mlp(y), "2", train)

  def _branch(self, y: Array, number: str, train: bool) -> Array:
    if self.init_values:
      y = LayerScale(self.init_values, name="ls" + number)(y)
    if self.drop_path:
      y = layers.DropPath(self.drop_path)(y, train=train)
    return y


class Stage(nn.Module):
  """Blocks of one stage, named by their numbers.

  Attributes:
    kind: class of the blocks.
    blocks: (number, fields) of each.
  """

  kind: type[nn.Module]
  blocks: tuple[tuple[int, Mapping[str, Any]], ...]

  @nn.compact
  def __call__(
    self, x: Float[Array, "n t d"], *, train: bool, **call: Any
  ) -> tuple[Float[Array, "n t d"], dict[str, Array]]:
    """Runs the blocks.

    Args:
      x: tokens.
      train: passed to each block.
      **call: passed to each block.

    Returns:
      The tokens after the last block, and the taps 'block00', ...
    """
    taps = {}
    for number, fields in self.blocks:
      block = self.kind(**fields, name=f"block{number}")
      x = taps[tap_of(number)] = block(x, train=train, **call)
    return x, taps


def tap_of(number: int) -> str:
  """Name of a block's tap: 'block05'."""
  return f"block{number:02d}"


def blocks_of(stage: str, depth: int) -> range:
  """Numbers of the blocks that 'stage1'..'stage4' runs."""
  k = int(stage[-1])
  return range((k - 1) * depth // 4, k * depth // 4)
