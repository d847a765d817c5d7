"""Convolutional blocks of CoAtNet and MaxViT."""

from __future__ import annotations

import functools
from typing import Any

from flax import linen as nn
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers
from kd_jax.models.blocks.tokens import transformer

POOLS = ("avg", "avg2", "max", "max2")
"""Windows of 3 x 3 with a border, or of 2 x 2; both halve the map."""


def pool(x: Float[Array, "n h w c"], kind: str) -> Float[Array, "n y x c"]:
  """One of `POOLS`."""
  if kind.endswith("2"):
    halve = nn.max_pool if kind == "max2" else nn.avg_pool
    return halve(x, (2, 2), (2, 2))
  if kind == "max":
    return layers.max_pool(x)
  border = ((1, 1), (1, 1))
  return layers.average_pooling(
    x, (3, 3), (2, 2), border, count_include_pad=False
  )


class Downsample(nn.Module):
  """Halves the map; a 1x1 convolution `expand` makes it wider.

  Attributes:
    width: of the output.
    pool: one of `POOLS`.
    use_bias: of the convolution.
    dtype: compute dtype.
  """

  width: int
  pool: str
  use_bias: bool
  dtype: layers.Dtype

  @nn.compact
  def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n y x d"]:
    """The smaller map."""
    x = pool(x, self.pool)
    if x.shape[-1] == self.width:
      return x
    return layers.Conv(
      self.width, use_bias=self.use_bias, dtype=self.dtype, name="expand"
    )(x)


class MbConv(nn.Module):
  """1x1, 3x3, squeeze and excitation, 1x1, behind a normalisation.

  Attributes:
    width: of the output.
    stride: 1 or 2.
    expand_output: the inner width is 4 times that of the output, else of the
      input.
    pre_norm_act: activate behind the first normalisation.
    output_bias: the last convolution and that of the shortcut have a bias.
    stride_mode: 'pool' halves in front, '1x1' and 'dw' in the convolution.
    pool_type: of the shortcut.
    attn_early: excite in front of the normalisation.
    attn_act_layer: activation of the excitation.
    attn_ratio: width of the excitation over that of the output or, without
      `expand_output`, the inner one.
    act_layer: one of `transformer.ACTIVATIONS`.
    eps: of the batch normalisations.
    same: pad as TensorFlow does.
    drop_path: probability of dropping the branch.
    dtype: compute dtype.
  """

  width: int
  stride: int
  expand_output: bool
  pre_norm_act: bool
  output_bias: bool
  stride_mode: str
  pool_type: str
  attn_early: bool
  attn_act_layer: str
  attn_ratio: float
  act_layer: str
  eps: float
  same: bool
  drop_path: float
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """Shortcut plus branch."""
    act = transformer.ACTIVATIONS[self.act_layer]
    norm = functools.partial(self._norm, train=train)
    inner = 4 * (self.width if self.expand_output else x.shape[-1])
    strides = {self.stride_mode: self.stride}
    y = norm(x, "pre_norm")
    y = act(y) if self.pre_norm_act else y
    if strides.get("pool", 1) == 2:
      y = pool(y, "avg2")
    y = self._conv("conv1_1x1", inner, stride=strides.get("1x1", 1))(y)
    y = act(norm(y, "norm1"))
    depthwise = {"size": 3, "groups": inner, "stride": strides.get("dw", 1)}
    y = self._conv("conv2_kxk", inner, **depthwise)(y)
    y = self._excite(inner, "se_early")(y) if self.attn_early else y
    y = act(norm(y, "norm2"))
    y = y if self.attn_early else self._excite(inner, "se")(y)
    bias = self.output_bias
    y = self._conv("conv3_1x1", self.width, use_bias=bias)(y)
    if self.stride == 2:
      x = Downsample(
        self.width, self.pool_type, bias, self.dtype, name="shortcut"
      )(x)
    return x + layers.DropPath(self.drop_path)(y, train=train)

  def _excite(self, inner: int, name: str) -> nn.Module:
    width = self.width if self.expand_output else inner
    return layers.SqueezeExcite(
      int(self.attn_ratio * width),
      self.dtype,
      transformer.ACTIVATIONS[self.attn_act_layer],
      name=name,
    )

  def _norm(self, x: Array, name: str, *, train: bool) -> Array:
    return layers.BatchNorm(self.dtype, eps=self.eps, name=name)(x, train=train)

  def _conv(self, name: str, width: int, **fields: Any) -> nn.Module:
    return layers.Conv(
      width, **fields, same=self.same, dtype=self.dtype, name=name
    )


class ConvNext(nn.Module):
  """Depthwise 7x7, normalisation, two dense layers, residual.

  Attributes:
    width: of the output.
    stride: 1 or 2.
    output_bias: all layers have a bias.
    init_values: first value of the scale of the branch; None has no scale.
    act_layer: one of `transformer.ACTIVATIONS`.
    eps: of the layer normalisation.
    drop_path: probability of dropping the branch.
    dtype: compute dtype.
  """

  width: int
  stride: int
  output_bias: bool
  init_values: float | None
  act_layer: str
  eps: float
  drop_path: float
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """Shortcut plus branch."""
    y = layers.Conv(
      self.width,
      7,
      self.stride,
      groups=x.shape[-1],
      use_bias=self.output_bias,
      dtype=self.dtype,
      name="conv_dw",
    )(x)
    y = layers.layer_norm(self.eps, self.dtype, "norm")(y)
    y = transformer.Mlp(
      4 * self.width,
      transformer.ACTIVATIONS[self.act_layer],
      dtype=self.dtype,
      use_bias=self.output_bias,
      name="mlp",
    )(y)
    if self.init_values:
      y = transformer.LayerScale(self.init_values, name="ls")(y)
    if self.stride == 2:
      x = Downsample(self.width, "avg2", True, self.dtype, name="shortcut")(x)
    return x + layers.DropPath(self.drop_path)(y, train=train)
