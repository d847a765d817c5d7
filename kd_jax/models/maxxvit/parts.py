"""Stem, neck and compositions of blocks of CoAtNet and MaxViT."""

from __future__ import annotations

import functools
from typing import Any

from flax import linen as nn
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers
from kd_jax.models.blocks.tokens import transformer


class Norm(nn.Module):
  """Batch or layer normalisation.

  Attributes:
    batch: which.
    eps: added to the variance.
    dtype: compute dtype.
  """

  batch: bool
  eps: float
  dtype: layers.Dtype

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"], *, train: bool) -> Array:
    """Parameters under `norm`."""
    if self.batch:
      return layers.BatchNorm(self.dtype, eps=self.eps, name="norm")(
        x, train=train
      )
    return layers.layer_norm(self.eps, self.dtype, "norm")(x)


class Stem(nn.Module):
  """Two convolutions of 3x3; the first halves the image.

  Attributes:
    widths: of both.
    use_bias: of both.
    act_layer: one of `transformer.ACTIVATIONS`.
    batch: normalise between them by batches instead of layers.
    eps: of the normalisation.
    same: pad as TensorFlow does.
    dtype: compute dtype.
  """

  widths: tuple[int, int]
  use_bias: bool
  act_layer: str
  batch: bool
  eps: float
  same: bool
  dtype: layers.Dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """The map that enters the first stage."""
    conv = functools.partial(
      layers.Conv,
      size=3,
      use_bias=self.use_bias,
      same=self.same,
      dtype=self.dtype,
    )
    x = conv(self.widths[0], stride=2, name="conv1")(x)
    x = Norm(self.batch, self.eps, self.dtype, name="norm1")(x, train=train)
    x = transformer.ACTIVATIONS[self.act_layer](x)
    return conv(self.widths[1], name="conv2")(x)


class Neck(nn.Module):
  """The last normalisation, and a layer behind it.

  Attributes:
    batch: normalise by batches instead of layers.
    eps: of the normalisation.
    hidden: width of the layer, whose output passes tanh; None has none.
    dtype: compute dtype.
  """

  batch: bool
  eps: float
  hidden: int | None
  dtype: layers.Dtype

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"], *, train: bool) -> Array:
    """Parameters `norm`; with a layer `head_norm` and `fc`."""
    name = "norm" if self.hidden is None else "head_norm"
    if self.batch:
      norm = layers.BatchNorm(self.dtype, eps=self.eps, name=name)
      x = norm(x, train=train)
    else:
      x = layers.layer_norm(self.eps, self.dtype, name)(x)
    if self.hidden is None:
      return x
    init = transformer.INIT
    dense = layers.Dense(
      self.hidden, dtype=self.dtype, kernel_init=init, name="fc"
    )
    return nn.tanh(dense(x))


class MaxBlock(nn.Module):
  """Convolutions, then attention in windows and over a grid.

  Attributes:
    convs: class and fields of each convolutional block.
    attention: class, name and fields of each block of attention.
  """

  convs: tuple[tuple[type[nn.Module], dict[str, Any]], ...]
  attention: tuple[tuple[str, type[nn.Module], dict[str, Any]], ...]

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """Runs them all."""
    for i, (kind, fields) in enumerate(self.convs):
      name = "conv" if len(self.convs) == 1 else f"conv{i}"
      x = kind(**fields, name=name)(x, train=train)
    for name, kind, fields in self.attention:
      x = kind(**fields, name=name)(x, train=train)
    return x


class Stage(nn.Module):
  """Blocks of one resolution.

  Attributes:
    blocks: class and fields of each.
  """

  blocks: tuple[tuple[type[nn.Module], dict[str, Any]], ...]

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], *, train: bool
  ) -> Float[Array, "n y x d"]:
    """The map of the last block."""
    for i, (kind, fields) in enumerate(self.blocks):
      x = kind(**fields, name=f"block{i}")(x, train=train)
    return x
