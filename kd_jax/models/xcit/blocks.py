"""Stem, blocks and neck of XCiT."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers
from kd_jax.models.blocks.tokens import class_attention, transformer
from kd_jax.models.convs import conv_norm

EPS = 1e-6
"""Of all layer normalisations."""

_HIDDEN = 32
_LEAST = 1e-12

gelu = transformer.ACTIVATIONS["gelu"]


class Stem(nn.Module):
  """Patches by strided convolutions, with their positions.

  Attributes:
    features: width of a patch.
    patch_size: 8 or 16.
    positions: add Fourier features of the place, projected.
    dtype: compute dtype.
  """

  features: int
  patch_size: int
  positions: bool
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """The map that enters the first block."""
    steps = int(math.log2(self.patch_size))
    for i in range(steps):
      x = layers.Conv(
        self.features >> (steps - 1 - i),
        3,
        stride=2,
        dtype=self.dtype,
        kernel_init=conv_norm.torch_conv_init,
        name=f"conv{2 * i}",
      )(x)
      x = layers.BatchNorm(self.dtype, name=f"bn{2 * i}")(x, train=train)
      x = gelu(x) if i + 1 < steps else x
    if not self.positions:
      return x
    table = jnp.asarray(fourier(x.shape[1], x.shape[2]))[None]
    project = layers.Conv(
      self.features,
      use_bias=True,
      dtype=self.dtype,
      kernel_init=conv_norm.torch_conv_init,
      bias_init=layers.torch_linear_init(2 * _HIDDEN),
      name="positions",
    )
    return x + project(table.astype(x.dtype)).astype(x.dtype)


def fourier(height: int, width: int) -> np.ndarray:
  """Sines and cosines of the places: (height, width, 64) float32, as in timm.

  Rows come first; both run from 0 to 2 pi, and the frequencies fall to 1 /
  10000. timm's numbers are float32 up to the sine.
  """
  power = np.float32(2 / _HIDDEN) * (np.arange(_HIDDEN) // 2)
  frequencies = np.float32(10000.0 ** power.astype(np.float64))
  parts = []
  for size, axis in ((height, 0), (width, 1)):
    place = np.arange(1, size + 1, dtype=np.float32)
    place = place / (place[-1] + np.float32(EPS)) * np.float32(2 * math.pi)
    angle = (place[:, None] / frequencies).astype(np.float64)
    both = np.stack([np.sin(angle[:, ::2]), np.cos(angle[:, 1::2])], -1)
    table = np.float32(both).reshape(size, _HIDDEN)
    parts.append(np.expand_dims(table, 1 - axis))
  shape = (height, width, _HIDDEN)
  return np.concatenate([np.broadcast_to(p, shape) for p in parts], -1)


class CrossCovariance(nn.Module):
  """Attention of channels to channels (arXiv:2106.09681, eq. 2).

  Attributes:
    num_heads: groups of channels that attend to each other.
    qkv_bias: query, key and value have a bias.
    dtype: compute dtype; products and softmax are in float32 at least.
  """

  num_heads: int
  qkv_bias: bool
  dtype: layers.Dtype

  @nn.compact
  def __call__(self, x: Float[Array, "n t d"]) -> Float[Array, "n t d"]:
    """Weights the channels of the values; keeps the shape."""
    n, t, width = x.shape
    init = transformer.INIT
    qkv = layers.Dense(
      3 * width,
      use_bias=self.qkv_bias,
      dtype=self.dtype,
      kernel_init=init,
      name="qkv",
    )(x)
    query, key, value = jnp.moveaxis(
      qkv.reshape(n, t, 3, self.num_heads, width // self.num_heads), 2, 0
    )
    shape = (self.num_heads, 1, 1)
    heat = self.param("temperature", initializers.ones, shape, jnp.float32)
    exact = jnp.promote_types(x.dtype, jnp.float32)
    query, key = (_unit(y.astype(exact)) for y in (query, key))
    products = jnp.einsum("nthd,nthe->nhde", query, key) * heat.astype(exact)
    weights = nn.softmax(products).astype(value.dtype)
    y = jnp.einsum("nhde,nthe->nthd", weights, value).reshape(n, t, width)
    return layers.Dense(width, dtype=self.dtype, kernel_init=init, name="proj")(
      y
    )


def _unit(x: Float[Array, "n t h d"]) -> Float[Array, "n t h d"]:
  """Each channel over its length along the tokens."""
  squares = jnp.square(x).sum(1, keepdims=True)
  return x / jnp.sqrt(jnp.maximum(squares, _LEAST**2))


class Local(nn.Module):
  """Two depthwise 3x3 convolutions.

  Attributes:
    dtype: compute dtype.
  """

  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w d"], *, train: bool
  ) -> Float[Array, "n h w d"]:
    """Neighbouring patches see each other."""
    x = gelu(self._conv(x, "conv1"))
    x = layers.BatchNorm(self.dtype, name="bn")(x, train=train)
    return self._conv(x, "conv2")

  def _conv(self, x: Array, name: str) -> Array:
    width = x.shape[-1]
    return layers.Conv(
      width,
      3,
      groups=width,
      use_bias=True,
      dtype=self.dtype,
      kernel_init=conv_norm.torch_conv_init,
      bias_init=layers.torch_linear_init(9),
      name=name,
    )(x)


class Block(nn.Module):
  """Attention between channels, convolutions and an MLP, scaled.

  Attributes:
    num_heads: see `CrossCovariance`.
    mlp_ratio: width of the MLP over that of the patches.
    qkv_bias: see `CrossCovariance`.
    eta: first value of the scale of each branch.
    drop_path: probability of dropping a branch.
    dtype: compute dtype.
  """

  num_heads: int
  mlp_ratio: float
  qkv_bias: bool
  eta: float
  drop_path: float
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w d"], *, train: bool
  ) -> Float[Array, "n h w d"]:
    """Three residual branches, numbered as in timm: 1, 3, 2."""
    attend = CrossCovariance(
      self.num_heads, self.qkv_bias, self.dtype, name="attn"
    )
    y = self._norm("norm1")(x)
    y = attend(y.reshape(len(x), -1, x.shape[-1])).reshape(x.shape)
    x = x + self._branch(y, "gamma1", train)
    local = Local(self.dtype, name="local")
    y = local(self._norm("norm3")(x), train=train)
    x = x + self._branch(y, "gamma3", train)
    y = mlp(x.shape[-1], self.mlp_ratio, self.dtype)(self._norm("norm2")(x))
    return x + self._branch(y, "gamma2", train)

  def _norm(self, name: str) -> nn.Module:
    return layers.layer_norm(EPS, self.dtype, name)

  def _branch(self, y: Array, name: str, train: bool) -> Array:
    y = scaled(self, y, name, self.eta)
    return layers.DropPath(self.drop_path)(y, train=train)


def mlp(width: int, ratio: float, dtype: layers.Dtype) -> transformer.Mlp:
  """The MLP of tokens of a width."""
  return transformer.Mlp(int(width * ratio), dtype=dtype, name="mlp")


def scaled(module: nn.Module, y: Array, name: str, first: float) -> Array:
  """Channels of a branch times a parameter of a module."""
  init = initializers.constant(first)
  scale = module.param(name, init, y.shape[-1:], jnp.float32)
  return y * scale.astype(y.dtype)


class ClassBlock(nn.Module):
  """Class attention and an MLP on the class token.

  Attributes:
    num_heads: number of heads.
    mlp_ratio: width of the MLP over that of the tokens.
    qkv_bias: query, key and value have a bias.
    eta: first value of the scale of each branch.
    tokens_norm: normalise all tokens before the MLP, else the class token.
    dtype: compute dtype.
  """

  num_heads: int
  mlp_ratio: float
  qkv_bias: bool
  eta: float
  tokens_norm: bool
  dtype: layers.Dtype

  @nn.compact
  def __call__(self, x: Float[Array, "n t d"]) -> Float[Array, "n t d"]:
    """The class token first; the others get their own normalised values."""
    y = layers.layer_norm(EPS, self.dtype, "norm1")(x)
    attention = class_attention.ClassAttention(
      self.num_heads, self.qkv_bias, self.dtype, name="attn"
    )
    y = jnp.concatenate([attention(y), y[:, 1:]], 1)
    x = x + scaled(self, y, "gamma1", self.eta)
    norm = layers.layer_norm(EPS, self.dtype, "norm2")
    if self.tokens_norm:
      x = norm(x)
    else:
      x = jnp.concatenate([norm(x[:, :1]), x[:, 1:]], 1)
    y = mlp(x.shape[-1], self.mlp_ratio, self.dtype)(x[:, :1])
    y = scaled(self, y, "gamma2", self.eta)
    # The authors add the others to themselves.
    return x + jnp.concatenate([y, x[:, 1:]], 1)


class Neck(nn.Module):
  """Class token, its blocks, and the last normalisation.

  Attributes:
    depth: number of blocks.
    num_heads: see `ClassBlock`.
    mlp_ratio: the same.
    qkv_bias: the same.
    eta: the same.
    tokens_norm: the same.
    dtype: compute dtype.
  """

  depth: int
  num_heads: int
  mlp_ratio: float
  qkv_bias: bool
  eta: float
  tokens_norm: bool
  dtype: layers.Dtype

  @nn.compact
  def __call__(self, x: Float[Array, "n h w d"]) -> Float[Array, "n t d"]:
    """All tokens of the map, behind the class token."""
    n, width = len(x), x.shape[-1]
    shape = (1, 1, width)
    token = self.param("cls_token", transformer.INIT, shape, jnp.float32)
    token = jnp.broadcast_to(token.astype(x.dtype), (n, 1, width))
    x = jnp.concatenate([token, x.reshape(n, -1, width)], 1)
    for i in range(self.depth):
      x = ClassBlock(
        self.num_heads,
        self.mlp_ratio,
        self.qkv_bias,
        self.eta,
        self.tokens_norm,
        self.dtype,
        name=f"block{i}",
      )(x)
    return layers.layer_norm(EPS, self.dtype, "norm")(x)
