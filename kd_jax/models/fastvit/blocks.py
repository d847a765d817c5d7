"""Blocks of FastViT (arXiv:2303.14189), with timm's feature maps."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers, strides
from kd_jax.models.blocks.tokens import transformer
from kd_jax.models.convs import conv_norm, mobile_one

HEAD_DIM = 32
"""Channels of an attention head."""


class Stem(nn.Module):
  """Three blocks, the first two of which have a stride of 2.

  Attributes:
    width: number of channels.
    style: see `conv_norm`.
    scale: let the 3x3 blocks have 1x1 branches.
  """

  width: int
  style: conv_norm.Style
  scale: bool

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """A map at a stride of 4."""
    for i, window in enumerate(((3, 2, 1), (3, 2, self.width), (1, 1, 1))):
      block = mobile_one.MobileOne(
        self.width, self.style, *window, scale=self.scale, name=f"{i}"
      )
      x = block(x, train=train)
    return x


class Down(nn.Module):
  """A step to half the size, and a 1x1 block.

  Attributes:
    width: number of output channels.
    style: see `conv_norm`.
    size: width of the large window.
    stride: step in pixels.
    gated: squeeze-and-excitation after it.
    act: an activation after it.
  """

  width: int
  style: conv_norm.Style
  size: int
  stride: int
  gated: bool
  act: bool

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """Parameters `large`, `se` and `point`."""
    large = conv_norm.Branches(
      self.width,
      self.style,
      (("large", self.size), ("small", 3)),
      stride=self.stride,
      groups=x.shape[-1],
      name="large",
    )
    x = large(x, train=train)
    if self.gated:
      hidden = strides.divisible(self.width / 4, 0.0)
      x = layers.SqueezeExcite(hidden, self.style.dtype, name="se")(x)
    x = self.style.activate(x) if self.act else x
    point = mobile_one.MobileOne(self.width, self.style, name="point")
    return point(x, train=train)


class RepMixer(conv_norm.Mergeable):
  """x + gamma (branches(x) - norm(x)), section 3.2.1.

  Attributes:
    size: width of the depthwise window.
    style: see `conv_norm`.
    scale: first value of gamma.
  """

  size: int
  style: conv_norm.Style
  scale: float

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n h w c"]:
    """A map of the same shape."""
    width, style = x.shape[-1], self.style
    if style.fused:
      fields = {"use_bias": True, "dtype": style.dtype, "name": "merged"}
      return layers.Conv(width, self.size, groups=width, **fields)(x)
    mixer = conv_norm.Branches(**self._branches(width), name="mixer")
    norm = style.norm("norm")
    y = mixer(x, train=train) - norm(x, train=train)
    return x + transformer.LayerScale(self.scale, 3, name="layer_scale")(y)

  def _branches(self, width: int) -> dict[str, Any]:
    return {
      "features": width,
      "style": self.style,
      "branches": (("kxk0", self.size), ("scale", 1)),
      "identity": True,
      "groups": width,
    }

  def merge(self, tensors: conv_norm.Tensors) -> dict[str, np.ndarray]:
    """See `Mergeable`."""
    inner = {
      k.removeprefix("mixer/"): v
      for k, v in tensors.items()
      if k.startswith("mixer/")
    }
    gamma = tensors["layer_scale/gamma"].reshape(-1)
    mixer = conv_norm.Branches(**self._branches(len(gamma)), parent=None)
    parts = mixer.merge(inner)
    one = conv_norm.identity_kernel(1, 1, len(gamma))
    norm = {k.replace("norm/", "bn/"): v for k, v in tensors.items()}
    norm = conv_norm.folded({**norm, "conv/kernel": one}, "", self.style.eps)
    mixed = parts["merged/kernel"] * gamma, parts["merged/bias"] * gamma
    minus = -norm[0] * gamma, -norm[1] * gamma
    none = np.zeros(len(gamma))
    return conv_norm.merged(conv_norm.total([mixed, minus, (one, none)]))


class Positions(conv_norm.Mergeable):
  """The input plus a depthwise convolution of it (arXiv:2102.10882).

  Attributes:
    size: width of the window.
    style: see `conv_norm`.
  """

  size: int
  style: conv_norm.Style

  @nn.compact
  def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """A map of the same shape."""
    fused, width = self.style.fused, x.shape[-1]
    conv = layers.Conv(
      width,
      self.size,
      groups=width,
      use_bias=True,
      dtype=self.style.dtype,
      kernel_init=self.style.init(width),
      name="merged" if fused else "conv",
    )
    return conv(x) if fused else conv(x) + x

  def merge(self, tensors: conv_norm.Tensors) -> dict[str, np.ndarray]:
    """See `Mergeable`."""
    kernel, bias = tensors["conv/kernel"], tensors["conv/bias"]
    one = conv_norm.identity_kernel(1, 1, len(bias))
    return conv_norm.merged(
      conv_norm.total([(kernel, bias), (one, np.zeros(len(bias)))])
    )


class ConvMlp(nn.Module):
  """A depthwise 7x7 convolution, then two 1x1 ones.

  Attributes:
    width: hidden channels.
    style: see `conv_norm`; this normalisation stays when others are merged,
      as in timm.
  """

  width: int
  style: conv_norm.Style

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n h w c"]:
    """A map of the same shape."""
    dense = functools.partial(
      layers.Dense, dtype=self.style.dtype, kernel_init=transformer.INIT
    )
    conv = layers.Conv(
      x.shape[-1],
      7,
      groups=x.shape[-1],
      dtype=self.style.dtype,
      kernel_init=transformer.INIT,
      name="conv",
    )
    y = self.style.norm("bn")(conv(x), train=train)
    y = self.style.activate(dense(self.width, name="fc1")(y))
    return dense(x.shape[-1], name="fc2")(y)


class Block(nn.Module):
  """Pixels, then channels, both with shortcuts.

  Attributes:
    mixer: 'repmixer' or 'attention'.
    size: width of the window of the first.
    ratio: hidden channels of `ConvMlp` per channel.
    scale: first value of the scales of branches.
    norm: before attention, 'batchnorm2d' or 'layernorm2d'.
    style: see `conv_norm`.
    drop_path: probability of dropping a branch.
  """

  mixer: str
  size: int
  ratio: float
  scale: float
  norm: str
  style: conv_norm.Style
  drop_path: float

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n h w c"]:
    """A map of the same shape."""
    if self.mixer == "repmixer":
      mixer = RepMixer(self.size, self.style, self.scale, name="token_mixer")
      x, scale = mixer(x, train=train), "layer_scale"
    else:
      y = self._branch(self._attend(x, train), "layer_scale_1", train)
      x, scale = x + y, "layer_scale_2"
    mlp = ConvMlp(int(x.shape[-1] * self.ratio), self.style, name="mlp")
    return x + self._branch(mlp(x, train=train), scale, train)

  def _attend(self, x: Array, train: bool) -> Array:
    dtype = self.style.dtype
    if self.norm == "batchnorm2d":
      y = self.style.norm("norm")(x, train=train)
    else:
      y = layers.layer_norm(1e-5, dtype, "norm")(x)
    tokens = y.reshape(len(y), -1, y.shape[-1])
    attention = transformer.Attention(
      x.shape[-1] // HEAD_DIM, qkv_bias=False, dtype=dtype, name="token_mixer"
    )
    return attention(tokens).reshape(x.shape)

  def _branch(self, y: Array, name: str, train: bool) -> Array:
    y = transformer.LayerScale(self.scale, 3, name=name)(y)
    if self.drop_path:
      y = layers.DropPath(self.drop_path)(y, train=train)
    return y


class Stage(nn.Module):
  """Perhaps a step down and positions, then blocks.

  Attributes:
    down: fields of `Down`, or None.
    positions: window of `Positions`; 0 leaves them out.
    blocks: fields of each `Block` but the style.
    style: see `conv_norm`.
  """

  down: dict[str, Any] | None
  positions: int
  blocks: tuple[dict[str, Any], ...]
  style: conv_norm.Style

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """The map of the last block."""
    if self.down is not None:
      x = Down(style=self.style, **self.down, name="down")(x, train=train)
    if self.positions:
      x = Positions(self.positions, self.style, name="pos_emb")(x)
    for i, fields in enumerate(self.blocks):
      x = Block(**fields, style=self.style, name=f"block{i}")(x, train=train)
    return x
