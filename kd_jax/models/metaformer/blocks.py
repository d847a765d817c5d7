"""Blocks of MetaFormers (arXiv:2210.13452), with timm's feature maps."""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers
from kd_jax.models.blocks.tokens import transformer

MIXERS = ("pool", "conv", "attention")
ACTS = ("star", "gelu")
NORMS = ("group", "group_scale", "layer_scale")
"""Normalisations of a pixel's channels, or of all pixels' ('group'); those with
'_scale' have no bias, and an eps of 1e-6."""

HEAD_DIM = 32
"""Channels of an attention head."""


def norm(kind: str, dtype: layers.Dtype, name: str) -> nn.Module:
  """One of `NORMS`."""
  bias = kind == "group"
  fields = {
    "epsilon": 1e-5 if bias else 1e-6,
    "use_bias": bias,
    "dtype": dtype,
    "use_fast_variance": False,
    "name": name,
  }
  if kind == "layer_scale":
    return nn.LayerNorm(**fields)
  return nn.GroupNorm(num_groups=1, **fields)


class StarRelu(nn.Module):
  """s max(x, 0)^2 + b (arXiv:2210.13452, section 2.2)."""

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Elementwise; parameters `scale` and `bias`, of one number each."""
    scale = self.param("scale", initializers.ones, (1,), jnp.float32)
    bias = self.param("bias", initializers.zeros, (1,), jnp.float32)
    return scale.astype(x.dtype) * nn.relu(x) ** 2 + bias.astype(x.dtype)


class Scale(nn.Module):
  """A factor per channel.

  Attributes:
    value: its first value.
  """

  value: float

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Scales; parameter `scale`."""
    init = initializers.constant(self.value)
    scale = self.param("scale", init, (x.shape[-1],), jnp.float32)
    return x * scale.astype(x.dtype)


def _dense(features: int, bias: bool, dtype: layers.Dtype, name: str) -> Any:
  init = transformer.INIT
  fields = {"use_bias": bias, "dtype": dtype, "kernel_init": init}
  return layers.Dense(features, **fields, name=name)


class Mixer(nn.Module):
  """Mixes pixels.

  Attributes:
    kind: one of `MIXERS`.
    dtype: compute dtype.
  """

  kind: str
  dtype: layers.Dtype

  @nn.compact
  def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """A map of the same shape."""
    if self.kind == "pool":
      sides: Any = ((1, 1), (1, 1))
      near = nn.avg_pool(x, (3, 3), (1, 1), sides, count_include_pad=False)
      return near - x
    dense = functools.partial(_dense, bias=False, dtype=self.dtype)
    if self.kind == "conv":
      return self._convolve(x, dense)
    heads = max(x.shape[-1] // HEAD_DIM, 1)
    width = heads * HEAD_DIM
    qkv = dense(3 * width, name="qkv")(x)
    qkv = qkv.reshape(len(x), -1, 3, heads, HEAD_DIM)
    q, k, v = jnp.moveaxis(qkv, 2, 0)
    y = transformer.attend(q, k, v, module=self)
    return dense(x.shape[-1], name="proj")(y.reshape(*x.shape[:3], width))

  def _convolve(self, x: Array, dense: Any) -> Array:
    width = 2 * x.shape[-1]
    y = StarRelu(name="act1")(dense(width, name="pwconv1")(x))
    fields = {"kernel_init": transformer.INIT, "name": "dwconv"}
    y = layers.Conv(width, 7, groups=width, dtype=self.dtype, **fields)(y)
    return dense(x.shape[-1], name="pwconv2")(y)


class Mlp(nn.Module):
  """Two linear layers, to four times the width and back.

  Attributes:
    act: one of `ACTS`.
    bias: of the linear layers.
    dtype: compute dtype.
  """

  act: str
  bias: bool
  dtype: layers.Dtype

  @nn.compact
  def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """A map of the same shape."""
    width, fields = x.shape[-1], {"bias": self.bias, "dtype": self.dtype}
    y = _dense(4 * width, **fields, name="fc1")(x)
    if self.act == "star":
      y = StarRelu(name="act")(y)
    else:
      y = nn.gelu(y, approximate=False)
    return _dense(width, **fields, name="fc2")(y)


class Block(nn.Module):
  """Pixels, then channels, both normalised first and added to the input.

  Attributes:
    mixer: one of `MIXERS`.
    norm: one of `NORMS`.
    act: one of `ACTS`.
    bias: of the linear layers of the MLP.
    layer_scale: first value of the scales of branches; 0 leaves them out.
    res_scale: first value of the scales of shortcuts; 0 leaves them out.
    drop_path: probability of dropping a branch.
    dtype: compute dtype.
  """

  mixer: str
  norm: str
  act: str
  bias: bool
  layer_scale: float
  res_scale: float
  drop_path: float
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n h w c"]:
    """A map of the same shape."""
    mixer = Mixer(self.mixer, self.dtype, name="token_mixer")
    # timm has 1x1 convolutions there, and linear layers beside attention.
    name = "mlp" if self.mixer == "attention" else "conv_mlp"
    mlp = Mlp(self.act, self.bias, self.dtype, name=name)
    for i, branch in ((1, mixer), (2, mlp)):
      y = branch(norm(self.norm, self.dtype, f"norm{i}")(x))
      if self.drop_path:
        y = layers.DropPath(self.drop_path)(y, train=train)
      if self.layer_scale:
        y = Scale(self.layer_scale, name=f"layer_scale{i}")(y)
      if self.res_scale:
        x = Scale(self.res_scale, name=f"res_scale{i}")(x)
      x = x + y
    return x


class Stage(nn.Module):
  """Blocks, with a step to another width in front of them.

  Attributes:
    width: number of channels.
    down: whether the step, to half the size, is there.
    down_norm: normalise before it.
    blocks: fields of each block.
  """

  width: int
  down: bool
  down_norm: bool
  blocks: tuple[dict[str, Any], ...]

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """The map of the last block."""
    dtype = self.blocks[0]["dtype"]
    if self.down and self.down_norm:
      x = norm("layer_scale", dtype, "norm")(x)
    if self.down:
      fields = {"use_bias": True, "dtype": dtype}
      init = transformer.INIT
      conv = layers.Conv(
        self.width, 3, 2, **fields, kernel_init=init, name="conv"
      )
      x = conv(x)
    for i, fields in enumerate(self.blocks):
      x = Block(**fields, name=f"block{i}")(x, train=train)
    return x


class Stem(nn.Module):
  """A 7x7 convolution of the stride 4.

  Attributes:
    width: number of channels.
    normed: normalise the result.
    dtype: compute dtype.
  """

  width: int
  normed: bool
  dtype: layers.Dtype

  @nn.compact
  def __call__(self, x: Float[Array, "n h w 3"]) -> Float[Array, "n y x d"]:
    """A map."""
    # A padding of 2, where that of a centred window is 3.
    conv = nn.Conv(
      self.width,
      (7, 7),
      (4, 4),
      ((2, 2), (2, 2)),
      dtype=self.dtype,
      kernel_init=transformer.INIT,
      name="conv",
    )
    x = conv(x)
    return norm("layer_scale", self.dtype, "norm")(x) if self.normed else x


class Head(nn.Module):
  """A classifier with a hidden layer.

  Attributes:
    classes: number of outputs.
    dtype: compute dtype.
  """

  classes: int
  dtype: layers.Dtype

  @nn.compact
  def __call__(self, x: Float[Array, "n c"]) -> Float[Array, "n d"]:
    """The logits."""
    y = _dense(4 * x.shape[-1], True, self.dtype, "fc1")(x)
    y = layers.layer_norm(1e-6, self.dtype, "norm")(nn.relu(y) ** 2)
    return _dense(self.classes, True, self.dtype, "fc2")(y)
