"""Blocks of vision transformers beside the usual one, with timm's names.

respost           normalises at the end of a branch (arXiv:2111.09883)
parallel_scaling  attention and MLP side by side (arXiv:2302.05442)
diff_parallel_scaling  the same with differential attention
parallel_things   two attentions side by side, then two MLPs
  (arXiv:2203.09795)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers
from kd_jax.models.blocks.tokens import transformer

_SMALL = 1e-6
_BLOCK = "params/stage{s}/block{b}/"
_LAMBDAS = ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2")
_ATTN = (
  ("qkv", "qkv", "dense"),
  ("q_norm", "q_norm", "affine"),
  ("k_norm", "k_norm", "affine"),
  ("norm", "norm", "affine"),
  ("sub_norm", "sub_norm", "affine"),
  ("proj", "proj", "dense"),
  *((name, name, "copy") for name in _LAMBDAS),
)
_MLP = tuple(
  (name, name, "affine" if name == "norm" else "dense")
  for name in ("fc1", "fc1_g", "fc1_x", "norm", "fc2")
)
RULES = (
  *(
    (f"blocks.{{b}}.{theirs}", _BLOCK + ours, layout)
    for theirs, ours, layout in (
      *((f"attn.{t}", f"attn/{o}", how) for t, o, how in _ATTN),
      ("in_norm", "in_norm", "affine"),
      ("in_proj", "in_proj", "dense"),
      ("mlp_bias", "mlp_bias", "copy"),
      ("q_norm", "q_norm", "affine"),
      ("k_norm", "k_norm", "affine"),
      ("sub_norm", "sub_norm", "affine"),
      *((name, name, "copy") for name in _LAMBDAS),
      ("attn_out_proj", "attn_out_proj", "dense"),
      ("mlp_out_proj", "mlp_out_proj", "dense"),
      ("out_proj", "out_proj", "dense"),
      ("ls.gamma", "ls/gamma", "copy"),
      ("attns.{i}.norm", "attns{i}/norm", "affine"),
      *(
        (f"attns.{{i}}.attn.{t}", f"attns{{i}}/attn/{o}", h)
        for t, o, h in _ATTN
      ),
      ("attns.{i}.ls.gamma", "attns{i}/ls/gamma", "copy"),
      ("ffns.{i}.norm", "ffns{i}/norm", "affine"),
      *((f"ffns.{{i}}.mlp.{t}", f"ffns{{i}}/mlp/{o}", h) for t, o, h in _MLP),
      ("ffns.{i}.ls.gamma", "ffns{i}/ls/gamma", "copy"),
    )
  ),
)
"""Conversion rules of what `transformer.BLOCK_RULES` lacks."""


class DiffAttention(transformer.Attention):
  """The difference of two softmax attentions (arXiv:2410.05258, eq. 1).

  Attributes:
    number: of the block; the share of the second attention starts from it.
  """

  number: int = 0

  @nn.compact
  def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
    self, x: Float[Array, "n t d"]
  ) -> Float[Array, "n t d"]:
    """See `transformer.Attention`; there is no bias and no rotation."""
    width = x.shape[-1]
    qkv = self._dense(3 * width, "qkv", self.qkv_bias, self.kernel_init)(x)
    query, key, value = jnp.split(qkv, 3, axis=-1)
    half = width // self.num_heads // 2
    query, key = (
      y.reshape(*x.shape[:2], 2 * self.num_heads, half) for y in (query, key)
    )
    if self.qk_norm:
      query, key = self._norm("q_norm")(query), self._norm("k_norm")(key)
    value = value.reshape(*x.shape[:2], self.num_heads, 2 * half)
    y = difference(self, query, key, value, self.number)
    if self.inner_norm:
      y = self._norm("norm")(y)
    return self._dense(width, "proj", self.proj_bias, self.out_init)(y)


def difference(
  module: nn.Module,
  query: Float[Array, "n t heads d"],
  key: Float[Array, "n t heads d"],
  value: Float[Array, "n t h e"],
  number: int,
) -> Float[Array, "n t c"]:
  """Attention of the even heads minus a share of that of the odd ones.

  Args:
    module: gets the parameters `lambda_q1` and so on, and `sub_norm`.
    query: twice as many heads as the value has.
    key: the same.
    value: per pair of heads.
    number: of the block.
  """
  width = query.shape[-1]
  init = initializers.normal(0.1)
  q1, k1, q2, k2 = (
    module.param(name, init, (width,), jnp.float32) for name in _LAMBDAS
  )
  first = 0.8 - 0.6 * math.exp(-0.3 * number)
  share = jnp.exp(jnp.sum(q1 * k1)) - jnp.exp(jnp.sum(q2 * k2)) + first
  one, two = (
    transformer.attend(query[:, :, i::2], key[:, :, i::2], value, module=module)
    for i in (0, 1)
  )
  y = one - share.astype(one.dtype) * two
  y = layers.rms_norm(1e-5, module.dtype, "sub_norm")(y) * (1 - first)
  return y.reshape(*y.shape[:2], -1)


class ResPost(nn.Module):
  """Attention, then an MLP, each normalised last and added to the input.

  Attributes:
    attn: fields of the attention.
    mlp: fields of the MLP.
    kinds: their classes.
    norm: kind of the normalisations, see `layers.NORMS`.
    eps: of the normalisations.
    init_values: first scale of the normalisations; None is 1.
    drop_path: probability of dropping a branch.
    dtype: compute dtype.
  """

  attn: Mapping[str, Any]
  mlp: Mapping[str, Any]
  kinds: tuple[type[nn.Module], type[nn.Module]]
  norm: str
  eps: float
  init_values: float | None
  drop_path: float
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n t d"], *, train: bool
  ) -> Float[Array, "n t d"]:
    """Two residual branches."""
    attention, perceptron = self.kinds
    attn = attention(**self.attn, dtype=self.dtype, name="attn")
    x = x + self._last(attn(x), "norm1", train)
    mlp = perceptron(**self.mlp, dtype=self.dtype, name="mlp")
    return x + self._last(mlp(x), "norm2", train)

  def _last(self, y: Array, name: str, train: bool) -> Array:
    first = 1.0 if self.init_values is None else self.init_values
    norm = layers.NORMS[self.norm](
      self.eps, self.dtype, name, initializers.constant(first)
    )
    return layers.DropPath(self.drop_path)(norm(y), train=train)


class ParallelScaling(nn.Module):
  """One normalisation and one layer in front of attention and MLP.

  Attributes:
    num_heads: number of heads.
    width: of the MLP.
    activation: of the MLP.
    qkv_bias: the layer in front has a bias; else only the MLP has one.
    qk_norm: normalise query and key per head.
    proj_bias: the layers at the end have a bias.
    norm: kind of the normalisations, see `layers.NORMS`.
    eps: of the normalisations.
    init_values: first value of the scale of the branch; None has no scale.
    drop_path: probability of dropping the branch.
    differential: subtract two attentions, and have one layer at the end.
    number: of the block.
    dtype: compute dtype.
  """

  num_heads: int
  width: int
  activation: Callable[[Array], Array]
  qkv_bias: bool
  qk_norm: bool
  proj_bias: bool
  norm: str
  eps: float
  init_values: float | None
  drop_path: float
  differential: bool
  number: int
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n t d"], *, train: bool
  ) -> Float[Array, "n t d"]:
    """One residual branch."""
    d = x.shape[-1]
    y = self._norm("in_norm")(x)
    y = self._dense(self.width + 3 * d, "in_proj", self.qkv_bias)(y)
    ends = [self.width + i * d for i in range(3)]
    hidden, query, key, value = jnp.split(y, ends, axis=-1)
    if not self.qkv_bias:
      zeros = initializers.zeros
      bias = self.param("mlp_bias", zeros, (self.width,), jnp.float32)
      hidden = hidden + bias.astype(hidden.dtype)
    attended = self._attend(query, key, value)
    y = self._out(attended, self.activation(hidden), d)
    if self.init_values is not None:
      y = transformer.LayerScale(self.init_values, name="ls")(y)
    return x + layers.DropPath(self.drop_path)(y, train=train)

  def _attend(self, query: Array, key: Array, value: Array) -> Array:
    shape = query.shape[:2]
    heads = self.num_heads * (2 if self.differential else 1)
    query, key = (y.reshape(*shape, heads, -1) for y in (query, key))
    value = value.reshape(*shape, self.num_heads, -1)
    if self.qk_norm:
      query, key = self._norm("q_norm")(query), self._norm("k_norm")(key)
    if self.differential:
      return difference(self, query, key, value, self.number)
    y = transformer.attend(query, key, value, module=self)
    return y.reshape(*shape, -1)

  def _out(self, attended: Array, hidden: Array, width: int) -> Array:
    if self.differential:
      both = jnp.concatenate([attended, hidden], -1)
      return self._dense(width, "out_proj", self.proj_bias)(both)
    first = self._dense(width, "attn_out_proj", self.proj_bias)(attended)
    return first + self._dense(width, "mlp_out_proj", self.proj_bias)(hidden)

  def _norm(self, name: str) -> nn.Module:
    return layers.NORMS[self.norm](self.eps, self.dtype, name)

  def _dense(self, width: int, name: str, use_bias: bool) -> nn.Module:
    init = transformer.INIT
    return layers.Dense(
      width, use_bias=use_bias, dtype=self.dtype, kernel_init=init, name=name
    )


class Branch(nn.Module):
  """A layer behind its normalisation, scaled.

  Attributes:
    name_of: name of the layer.
    kind: its class.
    fields: its fields.
    norm: kind of the normalisation, see `layers.NORMS`.
    eps: of the normalisation.
    init_values: first value of the scale; None or 0 has no scale.
    drop_path: probability of dropping it.
    dtype: compute dtype.
  """

  name_of: str
  kind: type[nn.Module]
  fields: Mapping[str, Any]
  norm: str
  eps: float
  init_values: float | None
  drop_path: float
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n t d"], *, train: bool
  ) -> Float[Array, "n t d"]:
    """What is added to the input."""
    layer = self.kind(**self.fields, dtype=self.dtype, name=self.name_of)
    y = layer(layers.NORMS[self.norm](self.eps, self.dtype, "norm")(x))
    if self.init_values:
      y = transformer.LayerScale(self.init_values, name="ls")(y)
    return layers.DropPath(self.drop_path)(y, train=train)


class ParallelThings(nn.Module):
  """Two attentions side by side, then two MLPs.

  Attributes:
    attn: fields of an attention.
    mlp: fields of an MLP.
    kinds: their classes.
    branch: the other fields of `Branch`.
  """

  attn: Mapping[str, Any]
  mlp: Mapping[str, Any]
  kinds: tuple[type[nn.Module], type[nn.Module]]
  branch: Mapping[str, Any]

  @nn.compact
  def __call__(
    self, x: Float[Array, "n t d"], *, train: bool
  ) -> Float[Array, "n t d"]:
    """Two sums of branches."""
    fields = (self.attn, self.mlp)
    for k, (name, of) in enumerate((("attn", "attns"), ("mlp", "ffns"))):
      branches = [
        Branch(name, self.kinds[k], fields[k], **self.branch, name=f"{of}{i}")
        for i in range(2)
      ]
      x = x + sum(branch(x, train=train) for branch in branches)
    return x


def gate_kernel(
  key: Array, shape: tuple[int, int], dtype: layers.Dtype = jnp.float32
) -> Array:
  """Half of a gated MLP's first layer starts near zero, as in timm."""
  kernel = 0.02 * jax.random.normal(key, shape, dtype)
  return kernel.at[:, shape[1] // 2 :].multiply(_SMALL / 0.02)


def gate_bias(
  key: Array, shape: tuple[int], dtype: layers.Dtype = jnp.float32
) -> Array:
  """And its bias at one."""
  del key
  return jnp.zeros(shape, dtype).at[shape[0] // 2 :].set(1.0)
