"""MobileViT's blocks: attention among the same places of all patches.

A map is cut into patches; the pixels at one place of all of them attend to each
other. The first kind (arXiv:2110.02178) has softmax attention, the second
(2206.02680) one of linear cost. Maps that the patches do not tile are resized.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers, maps
from kd_jax.models.blocks.tokens import transformer
from kd_jax.models.convs import conv_norm, mobile_one

_EPS = 1e-5
_HEADS = 4
_RATIO = 2
_INIT = initializers.normal(0.01)

Pixels = Float[Array, "n place patch d"]


def rules(theirs: str, ours: str) -> tuple[mobile_one.Rule, ...]:
  """Names in timm of either block; see `kd_jax.convert.rules`."""
  out: list[mobile_one.Rule] = [
    (f"{theirs}.conv_1x1.weight", f"{ours}/conv_1x1/kernel", "conv"),
    (f"{theirs}.norm", f"{ours}/norm", "affine"),
  ]
  for name in ("conv_kxk", "conv_proj", "conv_fusion"):
    conv = f"{ours}/{name}/conv/kernel"
    out.append((f"{theirs}.{name}.conv.weight", conv, "conv"))
    out.append((f"{theirs}.{name}.bn", f"{ours}/{name}/bn", "norm"))
  inner = f"{theirs}.transformer.{{i}}."
  for kind, layout, names in (
    ("block", "dense", ("attn.qkv", "attn.proj")),
    ("linear", "conv2d", ("attn.qkv_proj", "attn.out_proj")),
  ):
    for name in (*names, "mlp.fc1", "mlp.fc2"):
      path = f"{ours}/{kind}{{i}}/{name.replace('.', '/')}"
      out.append((inner + name, path, layout))
    for name in ("norm1", "norm2"):
      out.append((inner + name, f"{ours}/{kind}{{i}}/{name}", "affine"))
  return tuple(out)


def tiled(size: tuple[int, int], patch: int) -> tuple[int, int]:
  """The next size that patches tile."""
  height, width = (-(-side // patch) * patch for side in size)
  return height, width


def cut(x: Float[Array, "n h w c"], patch: int) -> Pixels:
  """A map as (image, place in its patch, patch, channel)."""
  n, height, width, c = x.shape
  x = x.reshape(n, height // patch, patch, width // patch, patch, c)
  return x.transpose(0, 2, 4, 1, 3, 5).reshape(n, patch**2, -1, c)


def join(
  x: Pixels, patch: int, size: tuple[int, int]
) -> Float[Array, "n h w c"]:
  """The inverse of `cut`, for a map of a size."""
  n, c = len(x), x.shape[-1]
  rows, columns = (side // patch for side in size)
  x = x.reshape(n, patch, patch, rows, columns, c)
  return x.transpose(0, 3, 1, 4, 2, 5).reshape(n, *size, c)


class Base(nn.Module):
  """What both kinds share.

  Attributes:
    kind: see `words`.
    features: number of output channels.
    width: of what attends.
    size: width of the windows of the convolutions.
    stride: of the first convolution.
    dilation: of the first, and of later convolutions.
    group: channels per group of the first; 0 is one group.
    blocks: number of blocks of attention.
    patch: side of a patch, in pixels.
    drop_path: probability of dropping a branch of those.
    style: see `conv_norm`.
  """

  kind: str
  features: int
  width: int
  size: int
  stride: int
  dilation: tuple[int, int]
  group: int
  blocks: int
  patch: int
  drop_path: float
  style: conv_norm.Style

  def local(
    self, x: Float[Array, "n h w c"], stride: int, train: bool
  ) -> Float[Array, "n y x d"]:
    """The convolutions in front of the attention."""
    groups = x.shape[-1] // self.group if self.group else 1
    conv = conv_norm.ConvNorm(
      x.shape[-1],
      self.style,
      self.size,
      stride,
      self.dilation[0],
      groups,
      act=True,
      name="conv_kxk",
    )
    return layers.Conv(
      self.width,
      dtype=self.style.dtype,
      kernel_init=self.style.init(1),
      name="conv_1x1",
    )(conv(x, train=train))

  def conv(self, name: str, size: int, *, act: bool) -> conv_norm.ConvNorm:
    """A convolution behind the attention."""
    return conv_norm.ConvNorm(
      self.features, self.style, size, act=act, name=name
    )


class MobileViT(Base):
  """Convolutions, softmax attention, and a convolution over both."""

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """An activated map."""
    y = self.local(x, self.stride, train)
    small = maps.size_of(y)
    large = tiled(small, self.patch)
    y = cut(maps.resize(y, large, align_corners=False), self.patch)
    shape = y.shape
    y = y.reshape(-1, *shape[2:])
    for i in range(self.blocks):
      y = self._block(f"block{i}")(y, train=train)
    y = layers.layer_norm(_EPS, self.style.dtype, "norm")(y)
    y = join(y.reshape(shape), self.patch, large)
    y = maps.resize(y, small, align_corners=False)
    y = self.conv("conv_proj", 1, act=True)(y, train=train)
    both = jnp.concatenate([x, y], -1)
    return self.conv("conv_fusion", self.size, act=True)(both, train=train)

  def _block(self, name: str) -> transformer.Block:
    inits = {"kernel_init": _INIT, "out_init": _INIT}
    mlp = {"width": _RATIO * self.width, "activation": self.style.activate}
    return transformer.Block(
      attn={"num_heads": _HEADS, **inits},
      mlp={**mlp, **inits},
      eps=_EPS,
      drop_path=self.drop_path,
      dtype=self.style.dtype,
      name=name,
    )


class MobileViT2(Base):
  """Convolutions and attention of linear cost."""

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """A map of the size that the patches tile, not activated."""
    size = tiled(maps.size_of(x), self.patch)
    x = maps.resize(x, size, align_corners=True)
    y = cut(self.local(x, 1, train), self.patch)
    for i in range(self.blocks):
      block = Linear(_RATIO, self.drop_path, self.style, name=f"linear{i}")
      y = block(y, train=train)
    y = join(group_norm(self.style.dtype, "norm")(y), self.patch, size)
    return self.conv("conv_proj", 1, act=False)(y, train=train)


KINDS: dict[str, type[Base]] = {
  "mobilevit": MobileViT,
  "mobilevit2": MobileViT2,
}
"""By their words."""


def group_norm(dtype: layers.Dtype, name: str) -> nn.GroupNorm:
  """Normalisation over all but the images."""
  return nn.GroupNorm(
    1, epsilon=_EPS, dtype=dtype, use_fast_variance=False, name=name
  )


class LinearAttention(nn.Module):
  """One query per pixel weights the keys of all patches.

  Attributes:
    style: dtype, and initialiser of the kernels.
  """

  style: conv_norm.Style

  @nn.compact
  def __call__(self, x: Pixels) -> Pixels:
    """Values, gated by the average key; keeps the shape."""
    width = x.shape[-1]
    y = pointwise(self.style, 1 + 2 * width, "qkv_proj")(x)
    query, key, value = jnp.split(y, [1, 1 + width], -1)
    exact = jnp.promote_types(y.dtype, jnp.float32)
    weights = nn.softmax(query.astype(exact), 2).astype(y.dtype)
    context = (key * weights).sum(2, keepdims=True)
    return pointwise(self.style, width, "out_proj")(nn.relu(value) * context)


def pointwise(style: conv_norm.Style, features: int, name: str) -> layers.Conv:
  """A 1x1 convolution with a bias, which starts at 0."""
  return layers.Conv(
    features,
    use_bias=True,
    dtype=style.dtype,
    kernel_init=style.init(1),
    name=name,
  )


class Mlp(nn.Module):
  """Two 1x1 convolutions.

  Attributes:
    ratio: inner over outer width.
    style: activation, dtype, and initialiser of the kernels.
  """

  ratio: int
  style: conv_norm.Style

  @nn.compact
  def __call__(self, x: Pixels) -> Pixels:
    """Keeps the shape."""
    y = pointwise(self.style, self.ratio * x.shape[-1], "fc1")(x)
    return pointwise(self.style, x.shape[-1], "fc2")(self.style.activate(y))


class Linear(nn.Module):
  """Linear attention, then an MLP, each normalised first.

  Attributes:
    ratio: of the MLP.
    drop_path: probability of dropping a branch.
    style: see `conv_norm`.
  """

  ratio: int
  drop_path: float
  style: conv_norm.Style

  @nn.compact
  def __call__(self, x: Pixels, *, train: bool) -> Pixels:
    """Two residual branches."""
    for norm, layer in (
      ("norm1", LinearAttention(self.style, name="attn")),
      ("norm2", Mlp(self.ratio, self.style, name="mlp")),
    ):
      y = layer(group_norm(self.style.dtype, norm)(x))
      x = x + layers.DropPath(self.drop_path)(y, train=train)
    return x
