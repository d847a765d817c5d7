"""What the forms of detectors share: fields, anchors and levels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from kd_jax.models import backbone
from kd_jax.models.blocks import layers
from kd_jax.transfer.detection import heads
from kd_jax.transfer.detection.ops import anchors
from kd_jax.types import Taps

if TYPE_CHECKING:
  from _typeshed import DataclassInstance

Size = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class BaseForm:
  """Which maps a detector reads, and what its heads are; files subclass it.

  Attributes:
    sizes: roots of the anchors' areas, pixels.
    ratios: their heights over their widths.
    pre_nms: anchors per level that suppression looks at, (in training, in
      evaluation).
    post_nms: proposals per image, (in training, in evaluation).
    pooled: bins along a side of a region.
    mask_convs: convolutions of the mask head.
    mask_channels: their width.
  """

  END: ClassVar[str] = "stage4"
  """The last stage of the backbone that whole images run through."""

  TAIL: ClassVar[str] = ""
  """The stage that regions run through, if any."""

  sizes: tuple[float, ...] = (32, 64, 128, 256, 512)
  ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
  pre_nms: tuple[int, ...] = (2000, 1000)
  post_nms: tuple[int, ...] = (1000, 1000)
  pooled: int = 7
  mask_convs: int = 4
  mask_channels: int = 256

  def __post_init__(self) -> None:
    tuples(self)
    for name in ("sizes", "ratios"):
      value = getattr(self, name)
      if not value or not all(v > 0 and math.isfinite(v) for v in value):
        raise ValueError(
          f"detector.{name} is {value}; it must hold positive numbers"
        )
    for name in ("pre_nms", "post_nms"):
      backbone.positive(f"detector.{name}", getattr(self, name), 2)
    for name, least in (("pooled", 1), ("mask_convs", 0), ("mask_channels", 1)):
      at_least(name, getattr(self, name), least)

  @property
  def cells(self) -> tuple[Float[np.ndarray, "a 4"], ...]:
    """The anchors of one position of every level, see `ops.anchors.cell`."""
    return tuple(anchors.cell((size,), self.ratios) for size in self.sizes)

  @property
  def pooled_levels(self) -> int:
    """Of so many levels, the finest, regions are pooled."""
    return len(self.cells)

  def inputs(
    self, net: backbone.Backbone, taps: Taps, size: Size
  ) -> tuple[Float[Array, "n _ _ _"], ...]:
    """The student's maps that the neck reads, finest first.

    Args:
      net: the student.
      taps: its, of images of `size`.
      size: height and width of the images.

    Raises:
      ValueError: the student does not suit the form.
    """
    raise NotImplementedError

  def strides(
    self, maps: Sequence[Float[Array, "n _ _ _"]], size: Size
  ) -> tuple[float, ...]:
    """Pixels per position of every level, from the sizes of `inputs`.

    Raises:
      ValueError: there is no such number.
    """
    raise NotImplementedError

  def neck(self, dtype: layers.Dtype) -> nn.Module | None:
    """From `inputs` to levels; None: they are the levels."""
    raise NotImplementedError

  def box(self, num_classes: int, dtype: layers.Dtype) -> nn.Module:
    """From regions to `heads.Said`."""
    raise NotImplementedError

  def mask(self, num_classes: int, dtype: layers.Dtype) -> heads.Mask:
    """From regions to masks."""
    return heads.Mask(num_classes, self.mask_convs, self.mask_channels, dtype)

  @property
  def mask_pooled(self) -> int:
    """Bins of a region for the mask head; 0: it reads `Said.features`."""
    return 0


@dataclasses.dataclass(frozen=True)
class PyramidForm(BaseForm):
  """One size of anchors per level; the last level only has proposals.

  Attributes:
    channels: width of the levels.
    widths: of the linear layers of the box head.
    mask_bins: bins along a side of a region for its mask.
  """

  channels: int = 256
  widths: tuple[int, ...] = (1024, 1024)
  mask_bins: int = 14

  def __post_init__(self) -> None:
    super().__post_init__()
    at_least("channels", self.channels, 1)
    at_least("mask_bins", self.mask_bins, 1)
    backbone.positive("detector.widths", self.widths, len(self.widths))
    if len(self.sizes) != 5:
      raise ValueError(
        f"detector.sizes is {self.sizes}; a pyramid has 5 levels, one size each"
      )

  @property
  def pooled_levels(self) -> int:
    """See `BaseForm`."""
    return 4

  @property
  def mask_pooled(self) -> int:
    """See `BaseForm`."""
    return self.mask_bins

  def box(self, num_classes: int, dtype: layers.Dtype) -> heads.LinearBox:
    """See `BaseForm`."""
    return heads.LinearBox(num_classes, self.widths, dtype)


def stride_of(x: Float[Array, "n h w c"], size: Size) -> int:
  """Pixels per position of a map.

  Args:
    x: the map.
    size: height and width of the image.

  Raises:
    ValueError: the sides disagree.
  """
  down, across = (
    round(pixels / places)
    for pixels, places in zip(size, x.shape[1:3], strict=True)
  )
  if down != across:
    raise ValueError(
      f"a map of {x.shape[1:3]} from an image of {size} has no one stride. "
      "Make the sides of the images multiples of 32, with "
      "--config.preprocess.divisor=32"
    )
  return down


def tuples(fields: DataclassInstance) -> None:
  """Lists among the fields of a dataclass become tuples: configs have lists."""
  for field in dataclasses.fields(fields):
    value = fields.__dict__.get(field.name)
    if isinstance(value, list):
      object.__setattr__(fields, field.name, tuple(value))


def at_least(name: str, value: int, least: int) -> None:
  """Raises ValueError if a field of the detector is too small."""
  if value < least:
    raise ValueError(f"detector.{name} is {value}; it must be at least {least}")


def within_unit(**values: float) -> None:
  """Raises ValueError unless fields of the detector lie in [0, 1]."""
  for name, value in values.items():
    if not 0 <= value <= 1:
      raise ValueError(f"detector.{name} is {value}; it must lie in [0, 1]")


def ordered(name: str, value: tuple[float, ...]) -> None:
  """Raises ValueError unless a field is two rising numbers of [0, 1]."""
  if len(value) != 2 or not 0 <= value[0] <= value[1] <= 1:
    raise ValueError(
      f"detector.{name} is {value}; it must hold two numbers of [0, 1], the "
      "smaller one first"
    )
