"""What looks at maps for boxes, and at boxes for classes and masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from kd_jax.models.blocks import layers
from kd_jax.transfer.detection import parts


class Said(NamedTuple):
  """What a box head says of regions.

  Attributes:
    features: (r, h, w, c), what a mask head that shares them reads.
    logits: (r, classes + 1) float32; background is last.
    deltas: (r, classes, 4) float32.
  """

  features: Float[Array, "r h w c"]
  logits: Float[Array, "r classes1"]
  deltas: Float[Array, "r classes 4"]


class Rpn(nn.Module):
  """Region proposals (arXiv:1506.01497, section 3.1), shared by all levels.

  Attributes:
    anchors: per position.
    dtype: compute dtype.
  """

  anchors: int
  dtype: layers.Dtype = None

  @nn.compact
  def __call__(
    self, maps: Sequence[Float[Array, "n _ _ c"]]
  ) -> tuple[list[Float[Array, "n _"]], list[Float[Array, "n _ 4"]]]:
    """(objectness, deltas) of the anchors of each map, float32.

    In the order of `ops.anchors.grid`; parameters `conv`, `objectness` and
    `deltas`.
    """
    init, kind = initializers.normal(0.01), self.dtype
    fields = {"init": init, "dtype": kind}
    hidden = parts.conv(maps[0].shape[-1], 3, **fields, name="conv")
    scores = parts.conv(self.anchors, **fields, name="objectness")
    moves = parts.conv(self.anchors * 4, **fields, name="deltas")
    objectness, deltas = [], []
    for x in maps:
      x = nn.relu(hidden(x))
      objectness.append(parts.wide(scores(x)).reshape(len(x), -1))
      deltas.append(parts.wide(moves(x)).reshape(len(x), -1, 4))
    return objectness, deltas


class Predictor(nn.Module):
  """Class and box of every class, from one vector per region.

  Attributes:
    num_classes: without background.
    dtype: compute dtype.
  """

  num_classes: int
  dtype: layers.Dtype = None

  @nn.compact
  def __call__(
    self, x: Float[Array, "r d"]
  ) -> tuple[Float[Array, "r classes1"], Float[Array, "r classes 4"]]:
    """Parameters `classes` and `deltas`."""
    classes = nn.Dense(
      self.num_classes + 1,
      dtype=self.dtype,
      kernel_init=initializers.normal(0.01),
      name="classes",
    )
    deltas = nn.Dense(
      self.num_classes * 4,
      dtype=self.dtype,
      kernel_init=initializers.normal(0.001),
      name="deltas",
    )
    moves = parts.wide(deltas(x)).reshape(len(x), self.num_classes, 4)
    return parts.wide(classes(x)), moves


class LinearBox(nn.Module):
  """Linear layers with ReLU, and a predictor (arXiv:1612.03144, section 4.2).

  Attributes:
    num_classes: without background.
    widths: of the layers.
    dtype: compute dtype.
  """

  num_classes: int
  widths: tuple[int, ...]
  dtype: layers.Dtype = None

  @nn.compact
  def __call__(self, x: Float[Array, "r h w c"], *, train: bool) -> Said:
    """Parameters `fc1`, ... (rows, columns, channels flat), `predictor`."""
    del train
    features, x = x, x.reshape(len(x), -1)
    for i, width in enumerate(self.widths, 1):
      layer = nn.Dense(
        width, dtype=self.dtype, kernel_init=parts.XAVIER, name=f"fc{i}"
      )
      x = nn.relu(layer(x))
    found = Predictor(self.num_classes, self.dtype, name="predictor")(x)
    return Said(features, *found)


class MeanBox(nn.Module):
  """A predictor on the mean of a map, which a BatchNorm may come before.

  Attributes:
    num_classes: without background.
    extra_norm: whether it does, as in He et al. (arXiv:1911.05722).
    dtype: compute dtype.
  """

  num_classes: int
  extra_norm: bool
  dtype: layers.Dtype = None

  @nn.compact
  def __call__(self, x: Float[Array, "r h w c"], *, train: bool) -> Said:
    """Parameters `norm`, `predictor`."""
    if self.extra_norm:
      x = layers.BatchNorm(self.dtype, name="norm")(x, train=train)
    predictor = Predictor(self.num_classes, self.dtype, name="predictor")
    return Said(x, *predictor(x.mean((1, 2))))


class Mask(nn.Module):
  """A mask of every class (arXiv:1703.06870, figure 4).

  Attributes:
    num_classes: without background.
    convs: number of 3x3 convolutions.
    channels: of all layers.
    dtype: compute dtype.
  """

  num_classes: int
  convs: int
  channels: int
  dtype: layers.Dtype = None

  @nn.compact
  def __call__(
    self, x: Float[Array, "r h w c"]
  ) -> Float[Array, "r s s classes"]:
    """Logits, float32; parameters `conv1`, ..., `deconv`, `classifier`."""
    fields = {"init": parts.MSRA, "dtype": self.dtype}
    for i in range(1, self.convs + 1):
      layer = parts.conv(self.channels, 3, **fields, name=f"conv{i}")
      x = nn.relu(layer(x))
    x = nn.relu(parts.Deconv(self.channels, self.dtype, name="deconv")(x))
    fields["init"] = initializers.normal(0.001)
    classifier = parts.conv(self.num_classes, **fields, name="classifier")
    return parts.wide(classifier(x))
