"""Blocks of EfficientViT (arXiv:2205.14756), with timm's feature maps."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers
from kd_jax.models.convs import conv_norm

SCALE = 5
"""Width of the window that makes the second scale of queries, keys, values."""


class Unit(nn.Module):
  """Convolution, normalisation, activation.

  Attributes:
    features: number of output channels.
    style: see `conv_norm`.
    size: width of the window.
    stride: step in pixels.
    groups: number of channel groups.
    normed: normalise; else the convolution has a bias.
    act: whether the activation follows.
  """

  features: int
  style: conv_norm.Style
  size: int = 1
  stride: int = 1
  groups: int = 1
  normed: bool = True
  act: bool = True

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """A map; parameters `conv` and `norm`."""
    conv = layers.Conv(
      self.features,
      self.size,
      self.stride,
      groups=self.groups,
      use_bias=not self.normed,
      dtype=self.style.dtype,
      kernel_init=self.style.init(self.groups),
      name="conv",
    )
    x = conv(x)
    if self.normed:
      x = self.style.norm("norm")(x, train=train)
    return self.style.activate(x) if self.act else x


class Spec(NamedTuple):
  """A block.

  Attributes:
    kind: 'ds' (depthwise, 1x1), 'conv' (3x3, 3x3), 'mb' (1x1, depthwise, 1x1),
      'fused' (3x3, 1x1), or 'vit' (attention, then 'mb').
    features: number of output channels.
    stride: step in pixels.
    expansion: channels between the convolutions over those of the input.
    fewer: only the last convolution is normalised.
    residual: add the input.
  """

  kind: str
  features: int
  stride: int = 1
  expansion: float = 1.0
  fewer: bool = False
  residual: bool = True


class Local(nn.Module):
  """Convolutions.

  Attributes:
    spec: of the block.
    style: see `conv_norm`.
  """

  spec: Spec
  style: conv_norm.Style

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """The branch, plus the input if there is a shortcut."""
    spec, width = self.spec, x.shape[-1]
    middle = round(width * spec.expansion)
    last = spec.features
    # (name, features, window, groups); the first 3x3 has the stride.
    units = {
      "ds": (("depth_conv", width, 3, width), ("point_conv", last, 1, 1)),
      "conv": (("conv1", width, 3, 1), ("conv2", last, 3, 1)),
      "mb": (
        ("inverted_conv", middle, 1, 1),
        ("depth_conv", middle, 3, middle),
        ("point_conv", last, 1, 1),
      ),
      "fused": (("spatial_conv", middle, 3, 1), ("point_conv", last, 1, 1)),
    }[spec.kind]
    y, stride = x, spec.stride
    for i, (name, features, size, groups) in enumerate(units):
      final = i == len(units) - 1
      step = stride if size == 3 else 1
      unit = Unit(
        features,
        self.style,
        size,
        step,
        groups,
        normed=final or not spec.fewer,
        act=not final,
        name=name,
      )
      y = unit(y, train=train)
      stride = 1 if size == 3 else stride
    return y + x if spec.residual else y


class Attention(nn.Module):
  """Linear attention with ReLU kernels, at two scales (section 3.1).

  Attributes:
    head_dim: channels of a head.
    style: see `conv_norm`.
  """

  head_dim: int
  style: conv_norm.Style

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n h w c"]:
    """A map of the same shape."""
    style, dim = self.style, self.head_dim
    heads = x.shape[-1] // dim
    width = 3 * heads * dim
    fields = {"dtype": style.dtype, "kernel_init": style.init(1)}
    qkv = layers.Conv(width, **fields, name="qkv")(x)
    wide = layers.Conv(width, SCALE, groups=width, **fields, name="deep")(qkv)
    wide = layers.Conv(width, groups=3 * heads, **fields, name="mix")(wide)
    both = jnp.concatenate([qkv, wide], -1)
    both = both.reshape(len(x), -1, 2 * heads, 3 * dim)
    # Sums over all pixels: float32 at least.
    exact = both.astype(jnp.promote_types(both.dtype, jnp.float32))
    q, k, v = jnp.split(exact, 3, axis=-1)
    q, k = nn.relu(q), nn.relu(k)
    totals = jnp.einsum("nphk,nphv->nhkv", k, v)
    over = jnp.einsum("nqhk,nhk->nqh", q, k.sum(1))
    y = jnp.einsum("nqhk,nhkv->nqhv", q, totals) / (over[..., None] + 1e-5)
    y = y.reshape(*x.shape[:3], -1).astype(both.dtype)
    proj = Unit(x.shape[-1], style, act=False, name="proj")
    return proj(y, train=train)


class Stage(nn.Module):
  """The stem's convolution, if it is here, and blocks.

  Attributes:
    stem: output channels of a strided convolution in front; 0 is none.
    blocks: of the stage.
    head_dim: see `Attention`.
    style: see `conv_norm`.
  """

  stem: int
  blocks: tuple[Spec, ...]
  head_dim: int
  style: conv_norm.Style

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """The map of the last block."""
    style = self.style
    if self.stem:
      x = Unit(self.stem, style, 3, 2, name="in_conv")(x, train=train)
    for i, spec in enumerate(self.blocks):
      name = f"block{i}"
      if spec.kind == "vit":
        attention = Attention(self.head_dim, style, name=f"attention{i}")
        x = x + attention(x, train=train)
        spec, name = spec._replace(kind="mb", fewer=True), f"local{i}"
      x = Local(spec, style, name=name)(x, train=train)
    return x


class Neck(nn.Module):
  """What lies between the last map and the classifier.

  Attributes:
    widths: channels of the 1x1 convolution and of the layer after pooling.
    pool: one of `layers.POOLS`.
    style: see `conv_norm`.
  """

  widths: tuple[int, int]
  pool: str
  style: conv_norm.Style

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n d"]:
    """Pooled and normalised, before the last activation."""
    # timm's eps of other normalisations does not reach this one.
    style = dataclasses.replace(self.style, eps=1e-5)
    x = Unit(self.widths[0], style, name="in_conv")(x, train=train)
    dtype = self.style.dtype
    x = layers.global_pool(x, self.pool)
    x = layers.Dense(self.widths[1], use_bias=False, dtype=dtype, name="dense")(
      x
    )
    return layers.layer_norm(self.style.eps, dtype, "norm")(x)
