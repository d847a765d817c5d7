"""Blocks, stem, stages and neck of the family in `convnext`."""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers, strides

NORMAL = initializers.normal(0.02)
"""Initialiser of all weights."""

_gelu = functools.partial(nn.gelu, approximate=False)
_Conv = functools.partial(layers.Conv, use_bias=True, kernel_init=NORMAL)


class ResponseNorm(nn.Module):
  """Global response normalisation (arXiv:2301.00808, section 3.1).

  Attributes:
    dtype: compute dtype; norms are in float32 or wider.
  """

  dtype: layers.Dtype

  @nn.compact
  def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """Adds an affine function of x times its relative norms."""
    width = (x.shape[-1],)
    scale = self.param("scale", initializers.zeros, width, jnp.float32)
    bias = self.param("bias", initializers.zeros, width, jnp.float32)
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    square = jnp.square(wide).sum((1, 2), keepdims=True)
    # The gradient of the root is infinite at a channel that is all zero.
    some = square > 0
    norm = jnp.where(some, jnp.sqrt(jnp.where(some, square, 1)), 0)
    share = norm / (norm.mean(-1, keepdims=True) + 1e-6)
    return (wide + wide * share * scale + bias).astype(x.dtype)


class Block(nn.Module):
  """Depthwise 7x7, normalisation, two dense layers, residual.

  Attributes:
    dilation: of the depthwise convolution.
    conv_mlp: the dense layers are 1x1 convolutions in timm, which matters to
      the shapes in its files only.
    use_grn: response normalisation between the dense layers.
    ls_init_value: start of the layer scale; None has none.
    drop_path: probability of dropping the branch.
    eps: of the layer normalisation.
    dtype: compute dtype.
  """

  dilation: int
  conv_mlp: bool
  use_grn: bool
  ls_init_value: float | None
  drop_path: float
  eps: float
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n h w c"]:
    """Shortcut plus branch."""
    width = x.shape[-1]
    y = _Conv(
      width,
      7,
      dilation=self.dilation,
      groups=width,
      dtype=self.dtype,
      name="conv_dw",
    )(x)
    y = layers.layer_norm(self.eps, self.dtype, "norm")(y)
    y = _gelu(self._dense(1, 4 * width)(y))
    if self.use_grn:
      y = ResponseNorm(self.dtype, name="grn")(y)
    y = self._dense(2, width)(y)
    if self.ls_init_value is not None:
      init = initializers.constant(self.ls_init_value)
      gamma = self.param("gamma", init, (width,), jnp.float32)
      y = y * gamma.astype(y.dtype)
    if self.drop_path:
      y = layers.DropPath(self.drop_path)(y, train=train)
    return y + x

  def _dense(self, index: int, features: int) -> nn.Module:
    name = f"{'conv_' if self.conv_mlp else ''}fc{index}"
    return layers.Dense(
      features, dtype=self.dtype, kernel_init=NORMAL, name=name
    )


class Stem(nn.Module):
  """One convolution of non-overlapping patches or two 3x3, normalised.

  Attributes:
    patch: side of the patches.
    widths: channels of the convolutions; two of them mean 3x3 of stride 2.
    eps: of the layer normalisation.
    dtype: compute dtype.
  """

  patch: int
  widths: tuple[int, ...]
  eps: float
  dtype: layers.Dtype

  @nn.compact
  def __call__(self, x: Float[Array, "n h w 3"]) -> Float[Array, "n y x c"]:
    """Patch embedding."""
    if len(self.widths) == 1:
      size = (self.patch, self.patch)
      x = nn.Conv(
        self.widths[0],
        size,
        size,
        padding="VALID",
        dtype=self.dtype,
        kernel_init=NORMAL,
        name="conv0",
      )(x)
    else:
      for i, width in enumerate(self.widths):
        x = _Conv(width, 3, 2, dtype=self.dtype, name=f"conv{i}")(x)
    name = f"norm{len(self.widths)}"
    return layers.layer_norm(self.eps, self.dtype, name)(x)


class Stage(nn.Module):
  """Blocks of one resolution.

  Attributes:
    features: number of output channels.
    step: stride and dilations.
    down: begin with normalisation and a strided or dilated 2x2 convolution.
    blocks: the fields of each `Block`.
  """

  features: int
  step: strides.Step
  down: bool
  blocks: tuple[dict[str, Any], ...]

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """The map of the last block."""
    if self.down:
      eps, dtype = self.blocks[0]["eps"], self.blocks[0]["dtype"]
      x = layers.layer_norm(eps, dtype, "norm")(x)
      x = _Conv(
        self.features,
        2,
        self.step.stride,
        self.step.first_dilation,
        same=self.step.dilation > 1,
        dtype=dtype,
        name="downsample",
      )(x)
    for i, fields in enumerate(self.blocks):
      x = Block(**fields, name=f"block{i}")(x, train=train)
    return x


class Neck(nn.Module):
  """Normalisation, and the hidden layer of the classifier.

  Attributes:
    hidden: width of the hidden layer; 0 leaves it out.
    norm: name of the normalisation; '' leaves it out.
    eps: of the layer normalisation.
    dtype: compute dtype.
  """

  hidden: int
  norm: str
  eps: float
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "*b d"], *, norm_only: bool = False
  ) -> Float[Array, "*b e"]:
    """Applies both, or with `norm_only` the first."""
    x = layers.layer_norm(self.eps, self.dtype, self.norm)(x)
    if norm_only or not self.hidden:
      return x
    dense = layers.Dense(
      self.hidden, dtype=self.dtype, kernel_init=NORMAL, name="fc"
    )
    return _gelu(dense(x))
