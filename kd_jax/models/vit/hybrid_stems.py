"""Convolutions that make the tokens of `hybrid`."""

from __future__ import annotations

import functools

from flax import linen as nn
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers, pooling
from kd_jax.models.blocks.tokens import patches, transformer
from kd_jax.models.resnet import resnetv2

_WIDTHS = (256, 512, 1024, 2048)
_GROUPS = 32
_FIRST = 64
_MCI = 16
_gelu = transformer.ACTIVATIONS["gelu"]

_THEIRS, _OURS = "patch_embed.backbone.", "params/stem/patch_embed/"
_BLOCK, _PLACE = _THEIRS + "stages.{k}.blocks.{i}.", _OURS + "stage{k}_{i}/"
RULES = (
  (_THEIRS + "stem.conv.weight", _OURS + "first/kernel", "conv"),
  (_THEIRS + "stem.norm", _OURS + "norm", "affine"),
  # Without stages it is called otherwise.
  (_THEIRS + "conv.weight", _OURS + "only/kernel", "conv"),
  (_THEIRS + "norm", _OURS + "only_norm", "affine"),
  (_BLOCK + "conv{c}.weight", _PLACE + "conv{c}/kernel", "conv"),
  (_BLOCK + "norm{c}", _PLACE + "norm{c}", "affine"),
  (_BLOCK + "downsample.conv.weight", _PLACE + "downsample/kernel", "conv"),
  (_BLOCK + "downsample.norm", _PLACE + "downsample_norm", "affine"),
  (_THEIRS + "{i}.conv.weight", _OURS + "conv{i}/kernel", "conv"),
  (_THEIRS + "{i}.conv.bias", _OURS + "conv{i}/bias", "copy"),
  (_THEIRS + "{i}.bn", _OURS + "bn{i}", "norm"),
)
"""Conversion rules of both kinds; kernels that read the image come first."""


def stride(depths: tuple[int, ...]) -> int:
  """Pixels of the image per pixel of the last map of `ResNet`."""
  return 4 * 2 ** max(len(depths) - 1, 0)


class Block(nn.Module):
  """A bottleneck that normalises behind each convolution.

  Attributes:
    features: width of the output.
    stride: of the 3x3 convolution.
    project: send the shortcut through a convolution.
    dtype: compute dtype.
  """

  features: int
  stride: int
  project: bool
  dtype: layers.Dtype

  @nn.compact
  def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n y x d"]:
    """Shortcut plus branch, activated."""
    conv = functools.partial(resnetv2.StdConv, dtype=self.dtype, same=True)
    norm = functools.partial(resnetv2.group_norm, _GROUPS, self.dtype)
    width = self.features // 4
    y = nn.relu(norm("norm1")(conv(width, name="conv1")(x)))
    y = conv(width, 3, self.stride, name="conv2")(y)
    y = conv(self.features, name="conv3")(nn.relu(norm("norm2")(y)))
    y = norm("norm3")(y)
    if self.project:
      x = conv(self.features, 1, self.stride, name="downsample")(x)
      x = norm("downsample_norm")(x)
    return nn.relu(y + x)


class ResNet(nn.Module):
  """A ResNet, and patches of its last map.

  Attributes:
    features: width of a token.
    depths: blocks per stage.
    patch_size: pixels of the image per token.
    dtype: compute dtype.
  """

  features: int
  depths: tuple[int, ...]
  patch_size: int
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """Images to tokens.

    Raises:
      ValueError: the tokens do not tile the images.
    """
    del train
    patches.grid_of(x.shape[1:3], patches.pair(self.patch_size))
    names = ("first", "norm") if self.depths else ("only", "only_norm")
    conv = resnetv2.StdConv(
      _FIRST, 7, 2, dtype=self.dtype, same=True, name=names[0]
    )
    x = nn.relu(resnetv2.group_norm(_GROUPS, self.dtype, names[1])(conv(x)))
    # Nothing is below the zeros around the map.
    x = layers.same_pad(x, 3, 2)
    x = pooling.max_pool(x, pooling.Pool(size=3, stride=2, padding=0))
    for k, (depth, width) in enumerate(zip(self.depths, _WIDTHS, strict=False)):
      for i in range(depth):
        step = 2 if k and not i else 1
        block = Block(width, step, not i, self.dtype, name=f"stage{k}_{i}")
        x = block(x)
    side = self.patch_size // stride(self.depths)
    torch = layers.torch_linear_init(side**2 * x.shape[-1])
    return nn.Conv(
      self.features,
      (side, side),
      (side, side),
      "VALID",
      dtype=self.dtype,
      kernel_init=torch,
      bias_init=torch,
      name="proj",
    )(x)


class Mci(nn.Module):
  """Three convolutions without overlap, 16 times smaller.

  Attributes:
    features: width of a token, and four times that of the first two.
    dtype: compute dtype.
  """

  features: int
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """Images to tokens.

    Raises:
      ValueError: the sides of the images are no multiples of 16.
    """
    patches.grid_of(x.shape[1:3], (_MCI, _MCI))
    for i, side in enumerate((4, 2, 2)):
      last = i == 2
      torch = layers.torch_linear_init(side**2 * x.shape[-1])
      x = nn.Conv(
        self.features if last else self.features // 4,
        (side, side),
        (side, side),
        "VALID",
        use_bias=last,
        dtype=self.dtype,
        kernel_init=torch,
        bias_init=torch,
        name=f"conv{i}",
      )(x)
      if not last:
        norm = layers.BatchNorm(self.dtype, name=f"bn{i}")
        x = _gelu(norm(x, train=train))
    return x
